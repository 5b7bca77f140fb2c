"""Does either host lack a fence? Then a VM cannot be taken over from it should it fall silent: a warning (ADR 15)."""

from __future__ import annotations

from collections.abc import Iterator

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem


def check(s: Subject) -> Iterator[Problem]:
    """Yield a warning for each host without one."""
    if s.pair is None:
        return
    for host in (s.pair.source, s.pair.destination):
        if not s.settings(host.name).fence.exists:
            yield s.problem("fence.missing", host.name, vm=s.pair.vm.name)


def told(s: Subject) -> str | None:
    """Say what there is; None when the two hosts were not seen."""
    if s.pair is None:
        return None
    hosts = (s.pair.source.name, s.pair.destination.name)
    return ", ".join(f"{host}: {s.settings(host).fence.agent}" for host in hosts)
