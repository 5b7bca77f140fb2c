"""Does the whole memory of the VM fit at the destination (R6; reserved by arithmetic)."""

from __future__ import annotations

from collections.abc import Iterator

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem
from refimpl.model.facts import VmState


def check(s: Subject) -> Iterator[Problem]:
    """Yield a shortage of memory at the destination, with the measured numbers."""
    host = s.destination
    if s.vm is None or s.vm.state is VmState.OFF or host is None or not host.reachable:
        return
    free_mib = host.memory_mib - host.memory_used_mib
    if s.vm.memory_mib > free_mib:
        values = {"free_mib": free_mib, "total_mib": host.memory_mib, "needed_mib": s.vm.memory_mib}
        yield s.problem("memory.short", host.name, vm=s.vm.name, **values)


def told(s: Subject) -> str | None:
    """Say what is needed and what is left; None when the destination was not seen."""
    if s.pair is None:
        return None
    if s.live_pair is None:
        return "the VM is off and needs none"
    vm, _, host = s.live_pair
    left = host.memory_mib - host.memory_used_mib
    return f"{vm.memory_mib} MiB needed, {left} of {host.memory_mib} MiB left on {host.name}"
