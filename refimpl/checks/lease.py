"""Is the VM's lease held by a living lock daemon (handover 3; R1)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem
from refimpl.model.facts import HostFacts, VmFacts, VmState


def check(s: Subject) -> Iterator[Problem]:
    """Yield what is wrong with lease and lock daemons. A VM holds its lease only while it runs."""
    if s.vm is None or s.source is None or not s.source.reachable:
        return
    if s.vm.state is VmState.RUNNING or (s.vm.state is VmState.PAUSED and s.vm.lease is None):
        yield from _lease(s, s.vm, s.source)
    for host in (s.source, s.destination):
        if host is not None and host.reachable and host.lock_daemon_alive is False:
            yield s.problem("lock_daemon.down", host.name)


def _lease(s: Subject, vm: VmFacts, source: HostFacts) -> Iterator[Problem]:
    found = partial(s.problem, vm=vm.name, path=vm.lease.path if vm.lease else None)
    if vm.lease is None:
        yield found("lease.absent", source.name)
    elif vm.lease.held is None:
        yield found("lease.unseen", source.name)
    elif not vm.lease.held:
        yield found("lease.not_held", source.name)


def told(s: Subject) -> str | None:
    """Say who holds the lease; None when the VM was not seen."""
    if s.pair is None:
        return None
    if s.vm is not None and s.vm.lease is not None and s.vm.lease.held:
        return f"held by the lock daemon of {s.pair.source.name}"
    return "held only while the VM runs"
