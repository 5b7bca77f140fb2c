"""`refimpl vm`: virtual machines with the built-in guest on the hosts of a lab."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from refimpl.cli.context import backend_of, json_option, lab_option, open_lab, require_root
from refimpl.cli.failing import errors_as_json
from refimpl.cli.say import as_json as print_json
from refimpl.cli.say import columns
from refimpl.model.phase import ExitCode

if TYPE_CHECKING:
    from refimpl.app.vms import VmDesk
    from refimpl.model.facts import HostFacts, VmFacts

SHORT = "Virtual machines: create, list, start, stop, remove."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}")


@click.group(short_help=SHORT)
def vm() -> None:
    """Virtual machines with the built-in guest: it works, and proves afterwards what happened to it."""


@contextmanager
def _desk(verb: str, lab_name: str | None) -> Iterator[VmDesk]:
    require_root(verb)
    group = open_lab(lab_name).group
    with backend_of(group) as backend:
        from refimpl.app.vms import VmDesk

        yield VmDesk(group, backend)


def _valid_name(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise click.BadParameter("letters, digits, dot, dash, underscore; at most 50, a letter or digit first")
    return value


@vm.command(short_help="Make a VM with the built-in guest (New-VM).")
@click.argument("name", callback=_valid_name)
@click.option("--host", metavar="HOST", help="Where. [default: the host with the most memory left]")
@click.option("--memory", type=click.IntRange(96), default=256, show_default=True, metavar="MIB")
@click.option("--vcpus", type=click.IntRange(1, 16), default=1, show_default=True)
@click.option("--start", "start_it", is_flag=True, help="Start it too.")
@click.option(
    "--writer-rate", type=click.IntRange(0), default=1000, show_default=True, help="Pages of 4 KiB written per second."
)
@click.option(
    "--working-set", type=click.IntRange(1), default=16, show_default=True, metavar="MIB", help="Memory written to."
)
@click.option("--content", type=click.Choice(["zero", "text", "random"]), default="text", show_default=True)
@click.option("--heartbeat-period", type=click.IntRange(1), default=10, show_default=True, metavar="MS")
@click.option(
    "--accelerator",
    type=click.Choice(["auto", "kvm", "tcg"]),
    default="auto",
    show_default=True,
    help="auto: KVM if the guest's own kernel boots with it here.",
)
@json_option
@lab_option
def create(
    name: str,
    host: str | None,
    memory: int,
    vcpus: int,
    start_it: bool,
    writer_rate: int,
    working_set: int,
    content: Any,
    heartbeat_period: int,
    accelerator: str,
    as_json: bool,
    lab_name: str | None,
) -> int:
    """Make the VM NAME, off, with a disk on the lab's shared directory and a lease.

    Corresponds to New-VM (with --start: and Start-VM). Its guest writes memory and disk blocks and sends heartbeats;
    the first one of a machine builds the guest, which takes some seconds.

    \b
    Example:
      refimpl vm create web1 --start --writer-rate 5000 --content random
    """
    if working_set + 64 > memory:
        raise click.UsageError(f"a working set of {working_set} MiB needs --memory {working_set + 64} or more")
    with errors_as_json(as_json), _desk("vm create", lab_name) as desk:
        from refimpl.app.accelerator import choose
        from refimpl.guest import GuestParameters

        chosen = choose(accelerator)
        parameters = GuestParameters(
            heartbeat_period_ms=heartbeat_period,
            writer_rate_pages_per_s=writer_rate,
            writer_working_set_mib=working_set,
            writer_content=content,
        )
        record = desk.create(name, host, memory_mib=memory, vcpus=vcpus, accelerator=chosen.name, parameters=parameters)
        place = desk.start(name) if start_it else desk.find(name)
    if as_json:
        print_json({"vm": record.to_json(), "host": place.host.name, "accelerator_why": chosen.why})
    else:
        state = "started" if start_it else "off"
        click.echo(
            f"VM {name!r} on host {place.host.name}: {state}, {memory} MiB, {vcpus} vCPU, address {record.address}"
        )
        click.echo(
            f"accelerator {chosen.name}" + ("" if chosen.name == "kvm" else " (refimpl doctor says why not KVM)")
        )
        if not start_it:
            click.echo(f"Next: refimpl vm start {name}")
    return ExitCode.OK


@vm.command("list", short_help="List the VMs of all hosts (Get-VM).")
@json_option
@lab_option
def list_(as_json: bool, lab_name: str | None) -> int:
    """List the VMs of all hosts: state, lease, and the mark of a move that has not ended.

    Corresponds to Get-VM. Ends with 8 when a host does not answer.

    \b
    Example:
      refimpl vm list
    """
    with errors_as_json(as_json), _desk("vm list", lab_name) as desk:
        seen = desk.look()
    silent = [facts for facts in seen.values() if not facts.reachable]
    found = [(facts, vm) for facts in seen.values() for vm in facts.vms]
    if as_json:
        hosts = [{"host": f.name, "reachable": f.reachable, "says": _says(f)} for f in seen.values()]
        print_json({"hosts": hosts, "vms": [_row(facts, vm) for facts, vm in found]})
        return ExitCode.ENVIRONMENT if silent else ExitCode.OK
    if found:
        head = ("VM", "HOST", "STATE", "MEMORY", "VCPUS", "LEASE", "MOVED BY")
        click.echo(columns(head, [_cells(facts, vm) for facts, vm in found]))
    else:
        click.echo("No VMs. Make one: refimpl vm create web1 --start")
    for facts in silent:
        click.echo(f"Host {facts.name} does not answer: {_says(facts) or 'no reason known'}", err=True)
    return ExitCode.ENVIRONMENT if silent else ExitCode.OK


def _says(facts: HostFacts) -> str | None:
    return facts.native.text if facts.native else None


def _row(facts: HostFacts, vm: VmFacts) -> dict[str, Any]:
    return {
        "name": vm.name,
        "id": vm.id,
        "host": facts.name,
        "state": vm.state,
        "memory_mib": vm.memory_mib,
        "vcpus": vm.vcpus,
        "lease_held": vm.lease.held if vm.lease else None,
        "lease": vm.lease.path if vm.lease else None,
        "operation": vm.operation,
    }


def _cells(facts: HostFacts, vm: VmFacts) -> tuple[str, ...]:
    words = {True: "held", False: "not held", None: "not seen"}
    lease = words[vm.lease.held] if vm.lease else "none"
    mark = f"operation {vm.operation}" if vm.operation else "-"
    return (vm.name, facts.name, str(vm.state), f"{vm.memory_mib} MiB", str(vm.vcpus), lease, mark)


@vm.command(short_help="Start a VM (Start-VM).")
@click.argument("name")
@json_option
@lab_option
def start(name: str, as_json: bool, lab_name: str | None) -> int:
    """Start the VM NAME where it is defined; nothing when it runs.

    Corresponds to Start-VM.

    \b
    Example:
      refimpl vm start web1
    """
    with errors_as_json(as_json), _desk("vm start", lab_name) as desk:
        place = desk.start(name)
    return _done(name, place.host.name, "runs", as_json)


@vm.command(short_help="Switch a VM off (Stop-VM).")
@click.argument("name")
@click.option("--force", is_flag=True, help="Do not ask the guest (Stop-VM -TurnOff).")
@json_option
@lab_option
def stop(name: str, force: bool, as_json: bool, lab_name: str | None) -> int:
    """Switch the VM NAME off and wait until it is; nothing when it is off.

    Corresponds to Stop-VM, with --force to Stop-VM -TurnOff.

    \b
    Example:
      refimpl vm stop web1 --force
    """
    with errors_as_json(as_json), _desk("vm stop", lab_name) as desk:
        place = desk.stop(name, force=force)
    return _done(name, place.host.name, "off", as_json)


@vm.command(short_help="Remove a VM that is off, with its disk (Remove-VM).")
@click.argument("name")
@json_option
@lab_option
def remove(name: str, as_json: bool, lab_name: str | None) -> int:
    """Remove the VM NAME, which has to be off, with its disk and its lease.

    Corresponds to Remove-VM, which keeps the disk.

    \b
    Example:
      refimpl vm remove web1
    """
    with errors_as_json(as_json), _desk("vm remove", lab_name) as desk:
        place = desk.remove(name)
    return _done(name, place.host.name, "removed", as_json)


def _done(name: str, host: str, state: str, as_json: bool) -> int:
    if as_json:
        print_json({"vm": name, "host": host, "state": state})
    else:
        click.echo(f"VM {name!r} on host {host}: {state}")
    return ExitCode.OK
