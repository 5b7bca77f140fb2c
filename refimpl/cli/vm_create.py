"""`refimpl vm create`: a VM with the built-in guest, or with a guest of the user's own."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refimpl.cli.context import json_option, lab_option, open_lab
from refimpl.cli.failing import errors_as_json
from refimpl.cli.say import as_json as print_json
from refimpl.cli.vm_desk import desk_of, reach_json, say_reach
from refimpl.cli.vm_types import DISK, FORWARD, MEMORY, NIC
from refimpl.model.phase import ExitCode
from refimpl.model.request import VmState

if TYPE_CHECKING:
    from refimpl.app.own_guest import OwnGuest
    from refimpl.app.vm_places import VmPlace
    from refimpl.app.vms import VmDesk
    from refimpl.guest import GuestParameters

_FILE = click.Path(path_type=Path)
_BUILT_IN_MIB, _OWN_MIB = 256, 1024
_ONLY_BUILT_IN = ("storage", "writer_rate", "working_set", "content", "heartbeat_period")
_ONLY_OWN = (
    "disks",
    "initrd",
    "append",
    "nics",
    "no_nic",
    "firmware",
    "cloud_init",
    "cloud_init_network",
    "image_in_place",
    "vtpm",
    "host_device",
    "shared_folder",
)


@click.command(short_help="Make a VM: the built-in guest or your own (New-VM).")
@click.argument("name")
@click.option("--host", metavar="HOST", help="Where. [default: the host with the most memory left]")
@click.option("--memory", type=MEMORY, help="[default: 256 MiB, with a guest of your own 1 GiB]")
@click.option("--vcpus", type=click.IntRange(1, 16), default=1, show_default=True)
@click.option(
    "--start", "start_it", is_flag=True, help="Start it too, and wait until its guest works or has an address."
)
@click.option("--no-wait", is_flag=True, help="With --start: do not wait.")
@click.option("--wait-limit", type=click.IntRange(1), default=300, show_default=True, metavar="S", help="How long.")
@click.option("--forward", "forwards", type=FORWARD, multiple=True, help="A port of 127.0.0.1 here leads to the guest.")
@click.option("--image", type=_FILE, metavar="FILE", help="Own guest: its boot disk, raw or qcow2; it is copied.")
@click.option("--image-in-place", is_flag=True, help="Do not copy disks: they are on the lab's shared storage already.")
@click.option(
    "--disk", "disks", type=DISK, multiple=True, help="Own guest: one more disk, new (10G) or a copy of FILE."
)
@click.option("--kernel", type=_FILE, metavar="FILE", help="Own guest: boot this Linux kernel directly.")
@click.option("--initrd", type=_FILE, metavar="FILE", help="With --kernel: the initial RAM disk.")
@click.option("--append", default="", metavar="TEXT", help="With --kernel: the kernel's command line.")
@click.option(
    "--nic",
    "nics",
    type=NIC,
    multiple=True,
    metavar="SWITCH[,mac=MAC]",
    help="Own guest: an adapter. [default: one on the VM switch]",
)
@click.option("--no-nic", is_flag=True, help="Own guest: no adapter.")
@click.option("--firmware", type=click.Choice(["bios", "uefi"]), default="bios", show_default=True, help="Own guest's.")
@click.option("--cloud-init", type=_FILE, metavar="FILE", help="Own guest: user data for cloud-init, in its DVD drive.")
@click.option("--cloud-init-network", type=_FILE, metavar="FILE", help="With --cloud-init: its network-config.")
@click.option("--vtpm", is_flag=True, help="Refused: a virtual TPM's state does not move.")
@click.option("--host-device", metavar="DEVICE", help="Refused: a device of a host does not move.")
@click.option("--shared-folder", metavar="DIR", help="Refused: a folder of a host does not move.")
@click.option(
    "--storage",
    type=click.Choice(["shared", "local"]),
    default="shared",
    show_default=True,
    help="Built-in guest: its disk is where all hosts see it, or on the host's own storage.",
)
@click.option(
    "--writer-rate",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Built-in guest: 4 KiB pages per second.",
)
@click.option(
    "--working-set",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    metavar="MIB",
    help="Built-in guest: memory written to.",
)
@click.option(
    "--content",
    type=click.Choice(["zero", "text", "random"]),
    default="text",
    show_default=True,
    help="Built-in guest.",
)
@click.option(
    "--heartbeat-period", type=click.IntRange(1), default=10, show_default=True, metavar="MS", help="Built-in guest."
)
@click.option(
    "--accelerator",
    type=click.Choice(["auto", "kvm", "tcg"]),
    default="auto",
    show_default=True,
    help="auto: KVM if the built-in guest's kernel boots with it here.",
)
@json_option("vm-created")
@lab_option
def create(
    name: str,
    host: str | None,
    memory: int | None,
    vcpus: int,
    start_it: bool,
    no_wait: bool,
    wait_limit: int,
    accelerator: str,
    as_json: bool,
    lab_name: str | None,
    **guest: Any,
) -> int:
    """Make the VM NAME, off, with a lease, and disks on the lab's shared directory or on the host's own storage.

    Without --image or --kernel it has the built-in guest, which writes memory and disk blocks and sends heartbeats; the
    first one of a machine builds it, which takes some seconds. A guest of your own gets its address by DHCP.
    Corresponds to New-VM (with --start: and Start-VM).

    \b
    Examples:
      refimpl vm create web1 --start --writer-rate 5000 --content random
      refimpl vm create shop --image debian.qcow2 --memory 2G --cloud-init user.yaml --forward 8080:80 --start
    """
    own = _own_wish(click.get_current_context(), guest)
    memory = memory or (_BUILT_IN_MIB if own is None else _OWN_MIB)
    told = _parameters(memory, guest) if own is None else None
    with errors_as_json(as_json):
        from refimpl.app.vm_record import require_name

        require_name(name)
        with desk_of("vm create", lab_name) as desk:
            from refimpl.app.accelerator import choose

            chosen = choose(accelerator)
            desk.create(
                name,
                host,
                memory_mib=memory,
                vcpus=vcpus,
                accelerator=chosen.name,
                parameters=told,
                own=own,
                forwards=guest["forwards"],
                local=guest["storage"] == "local",
            )
            place, state = _begun(desk, name, start_it, None if no_wait else wait_limit)
            reach, record = desk.reach(name), desk.record(name)
    if as_json:
        made = record.to_json() if record else {}
        made.pop("maker", None)
        standing = VmState.RUNNING if start_it else VmState.OFF
        rows = {"vm": made or None, "host": place.host.name, "state": standing, "accelerator_why": chosen.why}
        print_json(rows | reach_json(reach))
        return ExitCode.OK
    click.echo(f"VM {name!r} on host {place.host.name}: {state}, {memory} MiB, {vcpus} vCPU")
    click.echo(f"accelerator {chosen.name}" + ("" if chosen.name == "kvm" else " (refimpl doctor says why not KVM)"))
    say_reach(reach, open_lab(lab_name).group.management_netns)
    if not start_it:
        click.echo(f"Next: refimpl vm start {shlex.quote(name)}")
    return ExitCode.OK


def _begun(desk: VmDesk, name: str, start_it: bool, wait_limit_s: int | None) -> tuple[VmPlace, str]:
    """Start a VM if asked to, and return where it is and how it stands; without a limit it is not waited for."""
    if not start_it:
        return desk.find(name), "off"
    if wait_limit_s is None:
        return desk.start(name), "started"
    click.echo(f"VM {name!r} was made; it is started and waited for, {wait_limit_s} s at most", err=True)
    place, record = desk.start_and_wait(name, wait_limit_s), desk.record(name)
    # Of a guest of the user's own an address is all that was seen: it may still be starting its services.
    return place, "works" if record and record.parameters else "runs"


def _own_wish(ctx: click.Context, guest: dict[str, Any]) -> OwnGuest | None:
    """Return what a guest of the user's own is to be made of, None for the built-in one."""
    own = guest["image"] is not None or guest["kernel"] is not None
    wrong = [option for option in (_ONLY_BUILT_IN if own else _ONLY_OWN) if _given(ctx, option)]
    if wrong:
        names = ", ".join(max(p.opts, key=len) for p in ctx.command.params if p.name in wrong)
        whose = "the built-in guest" if own else "a guest of your own, which --image or --kernel brings"
        raise click.UsageError(f"{names}: only for {whose}")
    if not own:
        return None
    for option, needs in (("initrd", "kernel"), ("append", "kernel"), ("cloud_init_network", "cloud_init")):
        if guest[option] and guest[needs] is None:
            raise click.UsageError(f"--{option.replace('_', '-')} needs --{needs.replace('_', '-')}")
    if guest["no_nic"] and (guest["nics"] or guest["forwards"]):
        raise click.UsageError("--no-nic excludes --nic and --forward")
    return _own_guest(guest)


def _own_guest(guest: dict[str, Any]) -> OwnGuest:
    from refimpl.app.own_guest import OwnGuest

    refused = (("--vtpm", "vtpm"), ("--host-device", "host_device"), ("--shared-folder", "shared_folder"))
    return OwnGuest(
        image=guest["image"],
        in_place=guest["image_in_place"],
        disks=guest["disks"],
        kernel=guest["kernel"],
        initrd=guest["initrd"],
        append=guest["append"],
        nics=() if guest["no_nic"] else guest["nics"] or None,
        uefi=guest["firmware"] == "uefi",
        user_data=guest["cloud_init"],
        network_config=guest["cloud_init_network"],
        refused=tuple(option for option, name in refused if guest[name]),
    )


def _given(ctx: click.Context, option: str) -> bool:
    return ctx.get_parameter_source(option) is not click.core.ParameterSource.DEFAULT


def _parameters(memory_mib: int, guest: dict[str, Any]) -> GuestParameters:
    from refimpl.guest import GuestParameters, least_memory_mib

    working_set = guest["working_set"]
    if (least := least_memory_mib(working_set)) > memory_mib:
        raise click.UsageError(f"a working set of {working_set} MiB needs --memory {least} or more")
    return GuestParameters(
        writer_rate_pages_per_s=guest["writer_rate"],
        writer_working_set_mib=working_set,
        writer_content=guest["content"],
        heartbeat_period_ms=guest["heartbeat_period"],
    )
