"""Is the VM's lease held by a living lock daemon, and do both hosts see the same lease (handover 3; R1).

A destination that cannot reach the lease, or sees another file in its place, would refuse to run the VM when the source
has given it up already; so that is found out before.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from refimpl.checks.subject import Pair, Subject
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
    if s.pair is not None:
        yield from _space(s, s.pair)


def _space(s: Subject, pair: Pair) -> Iterator[Problem]:
    """Yield for each host that it cannot reach the lease space, or that both see different ones."""
    here, there = pair.source.lease_space, pair.destination.lease_space
    for host, space in ((pair.source, here), (pair.destination, there)):
        if space is not None and space.wrong:
            yield s.problem("lease.unreachable", host.name, vm=pair.vm.name, path=space.path, detail=space.wrong)
    if here is None or there is None or here.wrong or there.wrong:
        return
    other = here.identity is not None and here.identity != there.identity
    if other or there.probed is False:
        told = {"here": here.identity or "none yet", "there": there.identity or "none"}
        yield s.problem("lease.unshared", pair.destination.name, vm=pair.vm.name, path=here.path, **told)


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
