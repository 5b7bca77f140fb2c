"""The outside gap: how long a listener in the guest's network heard nothing, around a move.

It contains the blackout, the guest's own lateness, and the time until switches had learnt where the guest's address
is now. It is not the blackout (`blackout` measures that) and not what QEMU calls downtime. A gap can only be seen down
to the heartbeat's period: the period and its own spread before the move stand beside it.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from refimpl.meter.receiver import Arrival
from refimpl.meter.verdict import State, Verdict, not_measured

NAME = "outside gap"
LEAST_BEFORE = 20
"""So many intervals are needed before the move for a spread that says something."""


@dataclass(frozen=True, slots=True)
class OutsideGap:
    """Figures of one move; all times in milliseconds.

    `outside_gap_ms`: the longest silence that touches the move. `before_*`: intervals between arrivals before it.
    `lost_datagrams`: numbers that never arrived, counted apart, between the first and the last that did.
    """

    outside_gap_ms: float
    period_ms: float
    before_median_ms: float
    before_p99_ms: float
    before_max_ms: float
    before_count: int
    lost_datagrams: int
    duplicated_datagrams: int
    reordered_datagrams: int


def measure(
    arrivals: Sequence[Arrival], boot: str, around_ns: tuple[int, int], period_ms: float
) -> OutsideGap | Verdict:
    """Measure the longest silence that touches the time `around_ns` (start and end of the move, same clock).

    A verdict *not measured* comes back when there are too few arrivals before the move or none after its start.
    """
    own = sorted((a for a in arrivals if a.boot == boot), key=lambda a: a.at_ns)
    start_ns, end_ns = around_ns
    intervals = [(a.at_ns, b.at_ns) for a, b in itertools.pairwise(own)]
    before = sorted((b - a) / 1e6 for a, b in intervals if b < start_ns)
    touching = [(b - a) / 1e6 for a, b in intervals if b >= start_ns and a <= end_ns]
    if len(before) < LEAST_BEFORE:
        return not_measured(NAME, f"only {len(before)} heartbeat intervals before the move, {LEAST_BEFORE} are needed")
    if own[-1].at_ns < end_ns:
        return not_measured(NAME, "no heartbeat arrived after the move")
    numbers = [a.number for a in own]
    return OutsideGap(
        outside_gap_ms=max(touching),
        period_ms=period_ms,
        before_median_ms=statistics.median(before),
        before_p99_ms=before[min(len(before) - 1, round(0.99 * len(before)))],
        before_max_ms=before[-1],
        before_count=len(before),
        lost_datagrams=max(numbers) - min(numbers) + 1 - len(set(numbers)),
        duplicated_datagrams=len(numbers) - len(set(numbers)),
        reordered_datagrams=sum(b < a for a, b in itertools.pairwise(numbers)),
    )


def outside_gap_verdict(
    arrivals: Sequence[Arrival], boot: str, around_ns: tuple[int, int], period_ms: float
) -> Verdict:
    """Return the measurement as a verdict: *ok* means measured; how long is too long is for others to say."""
    found = measure(arrivals, boot, around_ns, period_ms)
    if isinstance(found, Verdict):
        return found
    text = (
        f"{found.outside_gap_ms:.1f} ms of silence (period {period_ms:g} ms; before the move median "
        f"{found.before_median_ms:.1f}, p99 {found.before_p99_ms:.1f}, longest {found.before_max_ms:.1f} ms); "
        f"{found.lost_datagrams} datagrams lost"
    )
    return Verdict(NAME, State.OK, text, {name: getattr(found, name) for name in OutsideGap.__slots__})
