"""`refimpl vm list|show`: where the VMs of a lab are, what they have, and how their guests are reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from refimpl.cli.context import json_option, lab_option
from refimpl.cli.failing import errors_as_json
from refimpl.cli.say import as_json as print_json
from refimpl.cli.say import columns
from refimpl.cli.vm_desk import desk_of, forwards_text, reach_json
from refimpl.model.phase import ExitCode
from refimpl.model.request import VmState

if TYPE_CHECKING:
    from refimpl.app.vm_network import Reach
    from refimpl.app.vm_record import VmRecord
    from refimpl.app.vms import VmPlace
    from refimpl.model.facts import HostFacts, VmFacts

_LEASES = {True: "held", False: "NOT HELD", None: "not seen"}


@click.command("list", short_help="List the VMs of all hosts (Get-VM).")
@json_option("vm-list")
@lab_option
def list_(as_json: bool, lab_name: str | None) -> int:
    """List the VMs of all hosts: state, address, forwards, lease, and the mark of a move that has not ended.

    Corresponds to Get-VM. Ends with 8 when a host does not answer.

    \b
    Example:
      refimpl vm list
    """
    with errors_as_json(as_json), desk_of("vm list", lab_name) as desk:
        seen = desk.look()
        found = [(facts, vm, desk.reach(vm.name)) for facts in seen.values() for vm in facts.vms]
    silent = [facts for facts in seen.values() if not facts.reachable]
    if as_json:
        hosts = [{"host": f.name, "reachable": f.reachable, "says": _says(f)} for f in seen.values()]
        print_json({"hosts": hosts, "vms": [_row(facts.name, vm) | reach_json(r) for facts, vm, r in found]})
        return ExitCode.ENVIRONMENT if silent else ExitCode.OK
    if found:
        head = ("VM", "HOST", "STATE", "MEMORY", "VCPUS", "LEASE", "ADDRESS", "FORWARDS", "MOVED BY")
        click.echo(columns(head, [_cells(facts, vm, reach) for facts, vm, reach in found]))
    else:
        click.echo("No VMs. Make one: refimpl vm create web1 --start")
    for text in (_unleased(facts.name, vm) for facts, vm, _ in found):
        if text is not None:
            click.echo(text, err=True)
    for facts in silent:
        click.echo(f"Host {facts.name} does not answer: {_says(facts) or 'no reason known'}", err=True)
    return ExitCode.ENVIRONMENT if silent else ExitCode.OK


@click.command(short_help="Show everything about one VM (Get-VM).")
@click.argument("name")
@json_option("vm")
@lab_option
def show(name: str, as_json: bool, lab_name: str | None) -> int:
    """Show everything about the VM NAME: state, settings, disks, adapters, address and forwards.

    Corresponds to Get-VM, Get-VMMemory, Get-VMProcessor, Get-VMNetworkAdapter, Get-VMHardDiskDrive.

    \b
    Example:
      refimpl vm show web1
    """
    with errors_as_json(as_json), desk_of("vm show", lab_name) as desk:
        place = desk.find(name)
        record, reach, settings = desk.record(name), desk.reach(name), desk.settings(place)
    row = _row(place.host.name, place.facts) | reach_json(reach) | settings.to_json()
    row |= {"guest": None if record is None else _kind(record), "accelerator": record.accelerator if record else None}
    if as_json:
        print_json({"vm": row})
    else:
        click.echo(columns((), [(f"  {title}", text) for title, text in _lines(place, reach, row)]))
        unleased = _unleased(place.host.name, place.facts)
        if unleased is not None:
            click.echo(unleased, err=True)
    return ExitCode.OK


def _kind(record: VmRecord) -> str:
    return "own" if record.parameters is None else "built-in"


def _says(facts: HostFacts) -> str | None:
    return facts.native.text if facts.native else None


def _row(host: str, vm: VmFacts) -> dict[str, Any]:
    return {
        "name": vm.name,
        "id": vm.id,
        "host": host,
        "state": vm.state,
        "memory_mib": vm.memory_mib,
        "vcpus": vm.vcpus,
        "lease_held": vm.lease.held if vm.lease else None,
        "lease": vm.lease.path if vm.lease else None,
        "operation": vm.operation,
    }


def _lease(vm: VmFacts) -> str:
    if vm.lease is None:
        return "none"
    return _LEASES[vm.lease.held] if vm.state is VmState.RUNNING or vm.lease.held else "-"


def _unleased(host: str, vm: VmFacts) -> str | None:
    """Return what to say of a VM that runs without its lease, None of any other."""
    if vm.state is not VmState.RUNNING or vm.lease is None or vm.lease.held is not False or vm.operation is not None:
        return None
    return f"VM {vm.name} runs on {host} without its lease: a second copy could start. Mend: refimpl lab mend {host}"


def _mark(vm: VmFacts) -> str:
    return f"operation {vm.operation}" if vm.operation else "-"


def _cells(facts: HostFacts, vm: VmFacts, reach: Reach) -> tuple[str, ...]:
    first = (vm.name, facts.name, str(vm.state), f"{vm.memory_mib} MiB", str(vm.vcpus), _lease(vm))
    return (*first, reach.address or "-", forwards_text(reach), _mark(vm))


def _lines(place: VmPlace, reach: Reach, row: dict[str, Any]) -> list[tuple[str, str]]:
    vm = place.facts
    adapters = [
        (
            f"adapter {nic['number']}",
            f"{nic['mac']}, " + (f"switch {nic['switch']}" if nic["switch"] else "connected to none"),
        )
        for nic in row["adapters"]
    ]
    return [
        ("name", vm.name),
        ("id", vm.id),
        ("host", place.host.name),
        ("state", str(vm.state)),
        ("guest", row["guest"] or "not made here"),
        ("memory", f"{vm.memory_mib} MiB"),
        ("processors", f"{vm.vcpus}" + (f" ({row['accelerator']})" if row["accelerator"] else "")),
        ("compatibility", "on: a baseline processor under KVM" if row["processor_compatibility"] else "off"),
        ("firmware", row["firmware"]),
        *[(f"disk {number}", path) for number, path in enumerate(row["disks"], 1)],
        ("DVD", row["dvd"] or "-"),
        *adapters,
        ("address", reach.address or "-"),
        ("forwards", forwards_text(reach)),
        ("lease", _lease(vm)),
        ("moved by", _mark(vm)),
    ]
