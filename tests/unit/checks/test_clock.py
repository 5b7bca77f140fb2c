"""Clocks: what is certain of their difference counts, and nothing else."""

from __future__ import annotations

import pytest

from refimpl.model.facts import ClockFact, Facts, VmState
from tests.builders import NOW_S, vm
from tests.judging import found, passed, seen, warned


def apart(seconds: float, uncertainty_s: float = 0.0, state: VmState = VmState.RUNNING) -> Facts:
    """Host b was read a minute after host a, by another observer's time."""
    clock = ClockFact(NOW_S + 60 + seconds, uncertainty_s)
    here = {"clock": ClockFact(NOW_S, 0.0), "clock_reference_s": NOW_S}
    return seen(vm(state=state), here=here, clock=clock, clock_reference_s=NOW_S + 60)


@pytest.mark.rule("R5")
@pytest.mark.error("clock.skew")
@pytest.mark.parametrize("sign", [1, -1])
def test_more_than_five_minutes_refuse(sign: int) -> None:
    problem = found(apart(sign * 301))["clock.skew"]
    assert (problem.values["apart_s"], problem.values["limit_s"]) == (301.0, 300.0)
    assert "clock.skew" not in warned(apart(sign * 299))


@pytest.mark.error("clock.apart")
def test_what_spoils_a_blackouts_figure_is_a_warning() -> None:
    assert warned(apart(0.25))["clock.apart"].values["apart_ms"] == 250.0
    assert passed(apart(0.09))


def test_what_may_be_the_reading_is_not_counted() -> None:
    assert passed(apart(400, uncertainty_s=400))
    assert set(warned(apart(400, uncertainty_s=200))) == {"clock.apart"}


def test_a_vm_that_is_off_needs_no_clock_and_one_that_was_not_read_is_not_judged() -> None:
    assert passed(apart(400, state=VmState.OFF))
    assert passed(seen(clock=None))
    assert passed(seen(clock_reference_s=None))
