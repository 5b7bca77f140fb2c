"""`refimpl vm start|stop|pause|resume|remove`: the life of a VM that was made."""

from __future__ import annotations

import click

from refimpl.cli.context import json_option, lab_option
from refimpl.cli.failing import errors_as_json
from refimpl.cli.vm_desk import desk_of, tell_done
from refimpl.model.request import VmState


@click.command(short_help="Start a VM (Start-VM).")
@click.argument("name")
@json_option("vm-changed")
@lab_option
def start(name: str, as_json: bool, lab_name: str | None) -> int:
    """Start the VM NAME where it is defined; nothing when it runs. Its port forwards are started again if need be.

    Corresponds to Start-VM.

    \b
    Example:
      refimpl vm start web1
    """
    with errors_as_json(as_json), desk_of("vm start", lab_name) as desk:
        place = desk.start(name)
    return tell_done(name, place.host.name, VmState.RUNNING, as_json)


@click.command(short_help="Switch a VM off (Stop-VM).")
@click.argument("name")
@click.option("--force", is_flag=True, help="Do not ask the guest (Stop-VM -TurnOff).")
@json_option("vm-changed")
@lab_option
def stop(name: str, force: bool, as_json: bool, lab_name: str | None) -> int:
    """Switch the VM NAME off and wait until it is; nothing when it is off.

    Corresponds to Stop-VM, with --force to Stop-VM -TurnOff.

    \b
    Example:
      refimpl vm stop web1 --force
    """
    with errors_as_json(as_json), desk_of("vm stop", lab_name) as desk:
        place = desk.stop(name, force=force)
    return tell_done(name, place.host.name, VmState.OFF, as_json)


@click.command(short_help="Let a running VM stand still (Suspend-VM).")
@click.argument("name")
@json_option("vm-changed")
@lab_option
def pause(name: str, as_json: bool, lab_name: str | None) -> int:
    """Let the running VM NAME stand still, its memory kept; nothing when it is paused. It can be moved as it is.

    Corresponds to Suspend-VM.

    \b
    Example:
      refimpl vm pause web1
    """
    with errors_as_json(as_json), desk_of("vm pause", lab_name) as desk:
        place = desk.pause(name)
    return tell_done(name, place.host.name, VmState.PAUSED, as_json)


@click.command(short_help="Let a paused VM go on (Resume-VM).")
@click.argument("name")
@json_option("vm-changed")
@lab_option
def resume(name: str, as_json: bool, lab_name: str | None) -> int:
    """Let the paused VM NAME go on; nothing when it runs.

    Corresponds to Resume-VM.

    \b
    Example:
      refimpl vm resume web1
    """
    with errors_as_json(as_json), desk_of("vm resume", lab_name) as desk:
        place = desk.resume(name)
    return tell_done(name, place.host.name, VmState.RUNNING, as_json)


@click.command(short_help="Remove a VM that is off, with its disks (Remove-VM).")
@click.argument("name")
@json_option("vm-changed")
@lab_option
def remove(name: str, as_json: bool, lab_name: str | None) -> int:
    """Remove the VM NAME, which has to be off, with its lease, its forwards and the disks that were made for it.

    Corresponds to Remove-VM, which keeps the disks. Disks named with --image-in-place stay. Of a VM that no host has,
    as after a `vm create` that was killed, it removes what was made for it.

    \b
    Example:
      refimpl vm remove web1
    """
    with errors_as_json(as_json), desk_of("vm remove", lab_name) as desk:
        place = desk.remove(name)
    return tell_done(name, place.host.name if place else None, None, as_json)
