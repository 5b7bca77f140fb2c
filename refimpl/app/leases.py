"""Mending the leases of a lab's host: its daemons are the lab's, and what is being moved is left alone.

`refimpl.backends.libvirt.mend_leases` has the order of things; here is who may not be touched, and why.
"""

from __future__ import annotations

from pathlib import Path

from refimpl.backends.libvirt import connection
from refimpl.backends.libvirt.mend_leases import HostMended, Place, mend
from refimpl.backends.libvirt.running import RunningVm
from refimpl.checks.ownership import gone_there
from refimpl.engine.backend import Backend
from refimpl.engine.store import GroupStore
from refimpl.hosts import process
from refimpl.hosts.factory import channel_for
from refimpl.lab import Lab, LabError
from refimpl.model.errors import Problem, RefimplError, error
from refimpl.model.facts import Scope
from refimpl.model.group import HostEntry


class LabDaemons:
    """The daemons of one host of a lab."""

    def __init__(self, lab: Lab, host: str) -> None:
        """Use this host of the lab, which has to be on."""
        self._lab, self._host = lab, host

    def lock_daemon_runs(self) -> bool:
        """Whether virtlockd runs."""
        return self._lab.daemon(self._host, "virtlockd") is not None

    def in_order(self) -> bool:
        """Whether libvirtd runs and began after virtlockd."""
        return self._lab.daemons_in_order(self._host)

    def start(self) -> None:
        """Start what does not run, virtlockd first."""
        if not self.lock_daemon_runs():
            # One that was killed has left its socket, and it would be taken for that of the new one.
            self._lab.stop_daemon(self._host, "virtlockd")
        self._lab.start_daemons(self._host)

    def end_lock_daemon(self) -> None:
        """End virtlockd."""
        self._lab.stop_daemon(self._host, "virtlockd")

    def restart_libvirtd(self) -> None:
        """Start libvirtd anew."""
        self._lab.restart_libvirtd(self._host)


def mend_leases(lab: Lab, host: str, backend: Backend) -> HostMended:
    """Mend a host's leases. LabError `lab.host_unknown`, RefimplError `host.down`, `lease.host_moving`, `lease.stuck`.

    The process has to be in the lab's management network.
    """
    group = lab.group
    entry = group.host(host)
    if entry is None:
        known = ", ".join(h.name for h in group.hosts)
        raise LabError("lab.host_unknown", lab=lab.name, host=host, known=known)
    init = entry.channel.init
    if not process.alive(init):
        raise error("host.down", host=host, detail=f"its init process {init.pid} has ended")
    moves = [claim for claim in lab.moves() if host in (claim.plan.source, claim.plan.destination)]
    if moves:
        told = ", ".join(f"{claim.operation} (VM {claim.plan.vm})" for claim in moves)
        raise error("lease.host_moving", host=host, moves=told, operation=moves[0].operation)
    others = {h.name: channel_for(h) for h in group.hosts if h.name != host}
    spares = Spares(GroupStore.standing(Path(group.store_path)), entry, backend)
    place = Place(entry, channel_for(entry), others, group.lease_directory, spares.why)
    try:
        return mend(place, LabDaemons(lab, host))
    except connection.failures() as failure:
        problem = Problem("lease.stuck", {"host": host, "detail": str(failure)}, native=connection.native(failure))
        raise RefimplError(problem) from failure


class Spares:
    """Who is left alone on a host: VMs that a move has, and copies that another host's copy has superseded."""

    def __init__(self, store: GroupStore, host: HostEntry, backend: Backend) -> None:
        """Judge by the group's store, and by what the owner's host shows."""
        self._store, self._host, self._backend = store, host, backend

    def why(self, vm: RunningVm) -> Problem | None:
        """Return why a VM is left alone, None when its lease may be taken again."""
        name = self._host.name
        claimed = (claim.operation for claim in self._store.claims() if claim.plan.vm_id == vm.id)
        operation = vm.operation or next(claimed, None)
        if operation is not None:
            return Problem("vm.stamped", {"vm": vm.name, "operation": operation}, host=name)
        record = self._store.owner(vm.id)
        if record is None or record.owns(name, vm.epoch) or gone_there(record, self._backend.observe(Scope())):
            return None
        return Problem("owner.elsewhere", {"vm": vm.name, "owner": record.owner, "epoch": record.epoch}, host=name)
