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
