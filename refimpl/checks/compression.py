"""How the memory is compressed on its way: the best method that both hosts have (semantics 2.2)."""

from __future__ import annotations

from collections.abc import Iterator

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem
from refimpl.model.request import PerformanceOption, PostCopy

NOT_WITH_POST_COPY = frozenset({"zstd"})
"""Methods that need several channels, which QEMU 10.0 refuses together with post-copy."""


def check(s: Subject) -> Iterator[Problem]:
    """Yield that compression was chosen and the hosts have no method in common."""
    if s.facts.store_problem is not None or s.live_pair is None:
        return
    _, source, destination = s.live_pair
    if s.option is PerformanceOption.COMPRESSION and not method(s):
        here, there = (", ".join(h.compression) or "none" for h in (source, destination))
        yield s.problem("compression.none", destination.name, source=source.name, here=here, there=there)


def method(s: Subject) -> str:
    """Return the source's best method that the destination has too, empty when there is none.

    What does not go with post-copy is left out with it (libvirt-qemu 7.3), whatever the version.
    """
    assert s.source is not None
    assert s.destination is not None
    common = (m for m in s.source.compression if m in s.destination.compression)
    without = frozenset() if s.request.post_copy is PostCopy.OFF else NOT_WITH_POST_COPY
    return next((m for m in common if m not in without), "")


def told(s: Subject) -> str | None:
    """Say how the memory goes; None when not both hosts, or not their settings, were seen."""
    if s.pair is None or s.facts.store_problem is not None:
        return None
    if s.live_pair is None:
        return "the VM is off: there is no memory to compress"
    return f"Compression by {method(s)}" if s.option is PerformanceOption.COMPRESSION else "memory goes as it is"
