"""The outside gap: how long a listener in the guest's network heard nothing, around a move.

It contains the blackout, the guest's own lateness, and the time until switches had learnt where the guest's address
is now. It is not the blackout (`blackout` measures that) and not what QEMU calls downtime. A gap can only be seen down
to the heartbeat's period: the period and its own spread before the move stand beside it.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import replace

from refimpl.meter.receiver import Arrival
from refimpl.meter.verdict import Figure, State, Verdict, not_measured

NAME = "outside gap"
LEAST_BEFORE = 20
"""So many intervals are needed before the move for a spread that says something."""


def outside_gap_verdict(
    arrivals: Sequence[Arrival], boot: str, around_ns: tuple[int, int], period_ms: float
) -> Verdict:
    """Measure the longest silence that touches the time `around_ns` (start and end of the move, same clock).

    *Ok* means measured; how long is too long is for others to say. *Not measured*: too few arrivals before the move, or
    none after its end. Figures, times in milliseconds: `outside_gap_ms`, `period_ms`; `before_...`: the intervals
    between arrivals before the move; `lost_datagrams`: numbers that never arrived, counted apart, between the first and
    the last that did.
    """
    own = sorted((a for a in arrivals if a.boot == boot), key=lambda a: a.at_ns)
    numbers = [a.number for a in own]
    lost = max(numbers, default=0) - min(numbers, default=1) + 1 - len(set(numbers))
    counts = {
        "lost_datagrams": lost,
        "duplicated_datagrams": len(numbers) - len(set(numbers)),
        "reordered_datagrams": sum(b < a for a, b in itertools.pairwise(numbers)),
    }
    found = silence_verdict([a.at_ns for a in own], around_ns, period_ms, "heartbeat")
    if not found.good:
        return found
    return replace(found, text=f"{found.text}; {lost} datagrams lost", figures={**found.figures, **counts})


def silence_verdict(times_ns: Sequence[int], around_ns: tuple[int, int], period_ms: float, what: str) -> Verdict:
    """Measure the longest silence between arrivals of `what` (in the singular), as `outside_gap_verdict` does."""
    start_ns, end_ns = around_ns
    intervals = list(itertools.pairwise(sorted(times_ns)))
    before = sorted((b - a) / 1e6 for a, b in intervals if b < start_ns)
    if len(before) < LEAST_BEFORE:
        return not_measured(NAME, f"only {len(before)} {what} intervals before the move, {LEAST_BEFORE} are needed")
    if max(times_ns) < end_ns:
        return not_measured(NAME, f"no {what} arrived after the move")
    gap_ms = max((b - a) / 1e6 for a, b in intervals if b >= start_ns and a <= end_ns)
    median_ms, p99_ms = statistics.median(before), before[min(len(before) - 1, round(0.99 * len(before)))]
    figures: dict[str, Figure] = {
        "outside_gap_ms": gap_ms,
        "period_ms": period_ms,
        "before_median_ms": median_ms,
        "before_p99_ms": p99_ms,
        "before_max_ms": before[-1],
        "before_count": len(before),
        "heard": what,
    }
    text = (
        f"{gap_ms:.1f} ms of silence (period {period_ms:g} ms; before the move median {median_ms:.1f}, "
        f"p99 {p99_ms:.1f}, longest {before[-1]:.1f} ms)"
    )
    return Verdict(NAME, State.OK, text, figures)
