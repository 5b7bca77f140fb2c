"""How the memory is compressed on its way: the best method that both hosts have (semantics 2.2)."""

from __future__ import annotations

from collections.abc import Iterator

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem
from refimpl.model.facts import VmState
from refimpl.model.request import PerformanceOption


def check(s: Subject) -> Iterator[Problem]:
    """Yield that compression was chosen and the hosts have no method in common."""
    if s.vm is None or s.source is None or s.destination is None or s.vm.state is VmState.OFF:
        return
    option = s.request.performance_option or s.settings(s.source.name).performance_option
    both = s.source.reachable and s.destination.reachable
    if option is PerformanceOption.COMPRESSION and both and not method(s):
        here, there = (", ".join(h.compression) or "none" for h in (s.source, s.destination))
        yield s.problem("compression.none", s.destination.name, source=s.source.name, here=here, there=there)


def method(s: Subject) -> str:
    """Return the source's best method that the destination has too, empty when there is none."""
    assert s.source is not None
    assert s.destination is not None
    return next((m for m in s.source.compression if m in s.destination.compression), "")
