"""`refimpl lab mend`: the leases of a host are taken again that its lock daemon has lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from refimpl.cli.context import backend_of, json_option, lab_option, open_lab, require_root
from refimpl.cli.failing import errors_as_json, problem_text
from refimpl.cli.say import as_json as print_json
from refimpl.cli.say import columns, milliseconds
from refimpl.model.phase import ExitCode

if TYPE_CHECKING:
    from refimpl.backends.libvirt.mend_leases import HostMended, VmMended


@click.command(short_help="Take the leases of a host's VMs again that were lost.")
@click.argument("host")
@json_option("lab-mended")
@lab_option
def mend(host: str, as_json: bool, lab_name: str | None) -> int:
    """Start HOST's lock daemon, restart its libvirtd, and take the leases of its running VMs again.

    Each VM whose lease is not held is paused and resumed for that, some 5 to 50 ms. What is in order is left as it is,
    and so is a VM that is being moved. Done again it finishes what was interrupted. A lease that was taken so outlives
    its VM: where the VM is off and its lease still locked, a new lock daemon gives it back. Ends with 8 when a VM still
    runs without its lease, or a lease is still locked. Corresponds to no cmdlet.

    \b
    Example:
      sudo refimpl lab mend h1
    """
    with errors_as_json(as_json):
        require_root("lab mend")
        lab = open_lab(lab_name)
        from refimpl.app.leases import mend_leases

        with backend_of(lab.group) as backend:
            mended = mend_leases(lab, host, backend)
    if as_json:
        print_json({"lab": lab.name, **_told(mended)})
    else:
        _say(mended)
    return ExitCode.OK if mended.whole else ExitCode.ENVIRONMENT


def _told(mended: HostMended) -> dict[str, object]:
    return {
        "host": mended.host,
        "whole": mended.whole,
        "lock_daemon_started": mended.lock_daemon_started,
        "libvirtd_restarted": mended.libvirtd_restarted,
        "released": list(mended.released),
        "left_locked": list(mended.left_locked),
        "vms": [
            {
                "vm": vm.vm,
                "lease": vm.did,
                "pause_ms": vm.pause_ms,
                "resumed": vm.resumed,
                "problem": vm.problem.to_json() if vm.problem else None,
            }
            for vm in mended.vms
        ],
    }


def _say(mended: HostMended) -> None:
    lock = "started" if mended.lock_daemon_started else "ran"
    libvirtd = "started anew" if mended.libvirtd_restarted else "left as it was"
    click.echo(f"Host {mended.host}: lock daemon {lock}, libvirtd {libvirtd}.")
    if mended.vms:
        click.echo(columns(("VM", "LEASE", "STOOD STILL"), [(vm.vm, str(vm.did), _pause(vm)) for vm in mended.vms]))
    else:
        click.echo("No VM runs there.")
    for id in mended.released:
        click.echo(f"The lease of VM {id}, which is not on there, was given back.")
    for id in mended.left_locked:
        click.echo(f"The lease of VM {id}, which is not on there, is still locked.")
    for vm in mended.vms:
        if vm.problem is not None:
            click.echo(problem_text(vm.problem), err=True)


def _pause(vm: VmMended) -> str:
    if vm.resumed:
        return "until now: its mending was interrupted"
    return milliseconds(vm.pause_ms) if str(vm.did) == "taken again" else "-"
