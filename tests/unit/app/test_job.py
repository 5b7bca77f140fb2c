"""The job of a move: percent never falls; an end has its state, and an error code unless it succeeded (R9)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.app.job import E_FAIL, JobState, job_of
from refimpl.model.errors import Problem
from refimpl.model.events import Event, Kind
from refimpl.model.phase import ENDS, Phase
from tests.property.scenario import play
from tests.property.scenarios import SCENARIOS
from tests.unit.cli.fakes import outcome

PHASES = st.sampled_from(sorted(Phase))
BYTES = st.one_of(st.none(), st.integers(0, 2**40))


def lines(*events: Event) -> list[dict[str, object]]:
    return [event.to_json() for event in events]


def entered(phase: Phase) -> Event:
    return Event(Kind.PHASE_ENTERED, 1, {"phase": phase})


def progress(total: int | None, remaining: int | None) -> Event:
    return Event(Kind.PROGRESS, 1, {"total_bytes": total, "remaining_bytes": remaining})


@pytest.mark.rule("R9")
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_move_has_a_job_from_0_to_its_end(name: str) -> None:
    rig, ended = play(SCENARIOS[name])
    events = lines(*rig.events)
    percents = [job_of("web", "b", events[:n], None).percent for n in range(len(events) + 1)]
    assert percents == sorted(percents)
    assert percents[0] == 0
    assert percents[-1] < 100
    job = job_of("web", "b", events, ended)
    assert (job.percent == 100) == ended.completed
    assert (job.error_code == 0) == ended.completed
    assert bool(job.to_json()["Errors"]) == (not ended.completed and bool(ended.problems))
    assert not job.cancellable


@pytest.mark.rule("R9")
@given(st.lists(st.one_of(PHASES.map(entered), st.builds(progress, BYTES, BYTES)), max_size=30))
def test_percent_never_falls_whatever_comes(events: list[Event]) -> None:
    percents = [job_of("web", "b", lines(*events[:n]), None).percent for n in range(len(events) + 1)]
    assert percents == sorted(percents)
    assert all(0 <= percent <= 99 for percent in percents)


@pytest.mark.rule("R9")
def test_set_up_is_below_10_and_copying_below_90() -> None:
    setup = lines(entered(Phase.CHECK), entered(Phase.SETUP), Event(Kind.PREPARED, 1, {"address": "x"}))
    assert 0 < job_of("web", "b", setup, None).percent < 10
    copying = [*setup, *lines(entered(Phase.MEMORY), progress(100, 50))]
    assert job_of("web", "b", copying, None).percent == 49
    done = [*copying, *lines(progress(100, 0))]
    assert job_of("web", "b", done, None).percent == 89
    assert job_of("web", "b", [*done, *lines(entered(Phase.SWITCH))], None).percent == 90


@pytest.mark.rule("R4")
@pytest.mark.rule("R9")
@pytest.mark.parametrize("phase", sorted(frozenset(Phase) - ENDS))
def test_it_can_be_cancelled_until_the_switch(phase: Phase) -> None:
    early = phase in (Phase.NEW, Phase.CHECK, Phase.SETUP, Phase.STORAGE, Phase.MEMORY)
    assert job_of("web", "b", lines(entered(phase)), None).cancellable == early


@pytest.mark.rule("R9")
@pytest.mark.parametrize(
    ("end", "state"),
    [
        (Phase.COMPLETED, JobState.COMPLETED),
        (Phase.COMPLETED_WITH_WARNINGS, JobState.COMPLETED_WITH_WARNINGS),
        (Phase.CANCELLED, JobState.TERMINATED),
        (Phase.REFUSED, JobState.EXCEPTION),
        (Phase.FAILED, JobState.EXCEPTION),
        (Phase.LOST, JobState.EXCEPTION),
    ],
)
def test_each_end_has_its_state(end: Phase, state: JobState) -> None:
    assert job_of("web", "b", [], outcome(end)).state is state


@pytest.mark.rule("R9")
def test_the_error_code_is_hyper_v_s_own_where_one_is_known() -> None:
    short = Problem("memory.short", {"host": "b"})
    assert job_of("web", "b", [], outcome(Phase.REFUSED, problems=(short,))).error_code == 0x800705AA
    other = Problem("limit.reached", {"host": "b"})
    assert job_of("web", "b", [], outcome(Phase.REFUSED, problems=(other,))).error_code == E_FAIL


@pytest.mark.rule("R9")
def test_states_have_hyper_vs_numbers() -> None:
    assert [int(state) for state in JobState] == [2, 3, 4, 7, 8, 10, 32768]
