"""Are the VM's disks the same file on both hosts, and is its lease held by a living lock daemon."""

from __future__ import annotations

from collections.abc import Iterator

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem
from refimpl.model.facts import HostFacts, VmFacts, VmState
from refimpl.model.phase import Side


def check(s: Subject) -> Iterator[Problem]:
    """Yield what is wrong with disks (R5, semantics 2.8) and lease (handover 3)."""
    if s.vm is None or s.source is None or not s.source.reachable:
        return
    if s.destination is not None and s.destination.reachable and s.destination is not s.source:
        yield from _disks(s.vm, s.destination)
    if s.vm.state is VmState.RUNNING:
        yield from _lease(s.vm, s.source)
    for host, side in ((s.source, Side.SOURCE), (s.destination, Side.DESTINATION)):
        if host is not None and host.reachable and host.lock_daemon_alive is False:
            yield Problem(id="lock_daemon.down", values={"host": host.name}, side=side, host=host.name)


def _disks(vm: VmFacts, destination: HostFacts) -> Iterator[Problem]:
    for disk in vm.disks:
        there = destination.disks.get(disk.path)
        values = {"vm": vm.name, "host": destination.name, "path": disk.path}
        if there is None or there.identity is None:
            yield Problem(id="disk.missing", values=values, side=Side.DESTINATION, host=destination.name)
        elif there.identity != disk.identity:
            values |= {"there": there.identity, "here": str(disk.identity)}
            yield Problem(id="disk.different", values=values, side=Side.DESTINATION, host=destination.name)


def _lease(vm: VmFacts, source: HostFacts) -> Iterator[Problem]:
    values = {"vm": vm.name, "host": source.name, "path": vm.lease.path if vm.lease else None}
    if vm.lease is None:
        yield Problem(id="lease.absent", values=values, side=Side.SOURCE, host=source.name)
    elif vm.lease.held is None:
        yield Problem(id="lease.unseen", values=values, side=Side.SOURCE, host=source.name)
    elif not vm.lease.held:
        yield Problem(id="lease.not_held", values=values, side=Side.SOURCE, host=source.name)
