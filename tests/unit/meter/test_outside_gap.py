from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from refimpl.meter.outside_gap import LEAST_BEFORE, outside_gap_verdict
from refimpl.meter.receiver import Arrival
from refimpl.meter.verdict import State
from tests.unit.meter.guest_lines import BOOT

MS = 1_000_000
MOVE = (1000 * MS, 1100 * MS)


def steady(first: int = 1, last: int = 200) -> list[Arrival]:
    """One arrival each 10 ms, number n at n times 10 ms."""
    return [Arrival(n * 10 * MS, BOOT, n) for n in range(first, last + 1)]


def measured(arrivals: list[Arrival], move: tuple[int, int] = MOVE) -> SimpleNamespace:
    found = outside_gap_verdict(arrivals, BOOT, move, 10)
    assert found.state is State.OK, found
    return SimpleNamespace(**found.figures)


def test_a_steady_heartbeat_has_a_gap_of_its_period():
    found = measured(steady())
    assert (found.outside_gap_ms, found.before_median_ms, found.before_max_ms, found.lost_datagrams) == (10, 10, 10, 0)


def test_a_freeze_of_500_ms_adds_just_that_and_loses_nothing():
    frozen = [a if a.at_ns <= 1020 * MS else replace(a, at_ns=a.at_ns + 500 * MS) for a in steady()]
    found = measured(frozen)
    assert (found.outside_gap_ms, found.lost_datagrams, found.before_max_ms) == (510, 0, 10)


def test_dropped_datagrams_are_counted_apart():
    found = measured([a for a in steady() if not 100 <= a.number < 120])
    assert (found.lost_datagrams, found.outside_gap_ms) == (20, 210)


def test_a_silence_away_from_the_move_is_not_its_gap():
    found = measured([a for a in steady() if not 50 <= a.number < 70])
    assert (found.outside_gap_ms, found.before_max_ms, found.lost_datagrams) == (10, 210, 20)


def test_doubles_and_disorder_are_counted():
    arrivals = steady()
    found = measured([*arrivals, replace(arrivals[149], at_ns=arrivals[150].at_ns + 1)])
    assert (found.duplicated_datagrams, found.reordered_datagrams) == (1, 1)


def test_other_boots_are_left_out():
    assert measured([*steady(), Arrival(1035 * MS, "ffffff", 9000)]).lost_datagrams == 0


def test_too_little_before_or_nothing_after_is_not_measured():
    few = steady(first=100 - LEAST_BEFORE)
    assert outside_gap_verdict(few, BOOT, MOVE, 10).state is State.NOT_MEASURED
    silent = [a for a in steady() if a.at_ns < 1050 * MS]
    assert outside_gap_verdict(silent, BOOT, MOVE, 10).state is State.NOT_MEASURED
    assert outside_gap_verdict(steady(), BOOT, MOVE, 10).state is State.OK
