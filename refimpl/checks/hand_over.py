"""Can the hand-over that was asked for be had? Its guarantee is another check's: the lease (R1)."""

from __future__ import annotations

from collections.abc import Iterator

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem
from refimpl.model.request import HandOver, PostCopy


def check(s: Subject) -> Iterator[Problem]:
    """Yield what cannot be chosen here; whatever is not asked for is the backend's own."""
    asked = s.request.hand_over
    if asked is not None and asked not in s.facts.hand_overs:
        offered = ", ".join(s.facts.hand_overs) or "none"
        yield s.problem("hand_over.unavailable", s.request.destination, hand_over=str(asked), offered=offered)


def told(s: Subject) -> str | None:
    """Say which it is; None when the two hosts were not seen, or the backend did not say what it offers."""
    if s.pair is None or not s.facts.hand_overs:
        return None
    if s.request.hand_over is None and s.request.post_copy is not PostCopy.OFF:
        return f"{HandOver.DELEGATED}, as post-copy is asked for"
    return str(s.request.hand_over) if s.request.hand_over else f"{s.facts.hand_overs[0]}, as nothing else is asked for"
