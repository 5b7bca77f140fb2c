"""Do the clocks of both hosts agree, as far as the readings are certain.

Two limits, each with its reason. Five minutes is what Kerberos allows between two machines (semantics 2.5) and more
than any certificate is dated back here: beyond it the hosts do not trust each other. A tenth of a second is of the size
of a blackout, which is told by the source's clock at its beginning and the destination's at its end: beyond it the
figure means nothing, which is worth a warning, while the move itself does not suffer.
"""

from __future__ import annotations

from collections.abc import Iterator

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem
from refimpl.model.facts import HostFacts

REFUSED_S = 300.0
WARNED_S = 0.1


def check(s: Subject) -> Iterator[Problem]:
    """Yield clocks that are certainly too far apart. Nothing of a VM that is off depends on them."""
    if s.live_pair is None:
        return
    _, source, destination = s.live_pair
    apart = apart_s(source, destination)
    certain_s = 0.0 if apart is None else max(0.0, apart[0] - apart[1])
    if certain_s > REFUSED_S:
        values = {"apart_s": round(certain_s, 1), "limit_s": REFUSED_S}
        yield s.problem("clock.skew", destination.name, source=source.name, **values)
    elif certain_s > WARNED_S:
        yield s.problem("clock.apart", destination.name, source=source.name, apart_ms=round(certain_s * 1000, 1))


def apart_s(one: HostFacts, other: HostFacts) -> tuple[float, float] | None:
    """Return by how much two clocks differ and by how much that may be off, in seconds; None: not both were read."""
    ours, theirs = _skew_s(one), _skew_s(other)
    if ours is None or theirs is None:
        return None
    return abs(ours[0] - theirs[0]), ours[1] + theirs[1]


def _skew_s(host: HostFacts) -> tuple[float, float] | None:
    if host.clock is None or host.clock_reference_s is None:
        return None
    return host.clock.now_s - host.clock_reference_s, host.clock.uncertainty_s


def told(s: Subject) -> str | None:
    """Say how far they are apart; None when they were not read."""
    if s.pair is None:
        return None
    apart = apart_s(s.pair.source, s.pair.destination)
    if apart is None:
        return None
    return f"{apart[0] * 1000:.0f} ms apart, give or take {apart[1] * 1000:.0f} ms"
