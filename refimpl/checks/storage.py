"""Are the VM's disks the same file on both hosts, and is its lease held by a living lock daemon."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem
from refimpl.model.facts import HostFacts, VmFacts, VmState


def check(s: Subject) -> Iterator[Problem]:
    """Yield what is wrong with disks (R5, semantics 2.8) and lease (handover 3)."""
    if s.vm is None or s.source is None or not s.source.reachable:
        return
    if s.destination is not None and s.destination.reachable and s.destination is not s.source:
        yield from _disks(s, s.vm, s.destination)
    if s.vm.state is VmState.RUNNING:
        yield from _lease(s, s.vm, s.source)
    for host in (s.source, s.destination):
        if host is not None and host.reachable and host.lock_daemon_alive is False:
            yield s.problem("lock_daemon.down", host.name)


def _disks(s: Subject, vm: VmFacts, destination: HostFacts) -> Iterator[Problem]:
    for disk in vm.disks:
        there = destination.disks.get(disk.path)
        found = partial(s.problem, vm=vm.name, path=disk.path)
        if there is None or there.identity is None:
            yield found("disk.missing", destination.name)
        elif there.identity != disk.identity:
            yield found("disk.different", destination.name, there=there.identity, here=str(disk.identity))


def _lease(s: Subject, vm: VmFacts, source: HostFacts) -> Iterator[Problem]:
    found = partial(s.problem, vm=vm.name, path=vm.lease.path if vm.lease else None)
    if vm.lease is None:
        yield found("lease.absent", source.name)
    elif vm.lease.held is None:
        yield found("lease.unseen", source.name)
    elif not vm.lease.held:
        yield found("lease.not_held", source.name)
