"""Post-copy beyond what one recovery shows: as often as needed, and what a person is told of each end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from refimpl.model.events import Kind
from refimpl.model.outcome import Outcome
from refimpl.model.phase import ExitCode, Phase
from refimpl.model.request import MigrationRequest, PostCopy
from tests.contract.benches import world
from tests.moves import Rig
from tests.property.post_copy_scenarios import POST_COPY_SCENARIOS, WRITES_MUCH
from tests.property.scenario import fault, faults, play

WISH = MigrationRequest("web", "b", post_copy=PostCopy.ALLOWED)


def outcome_of(name: str) -> Outcome:
    return play(POST_COPY_SCENARIOS[name])[1]


def ids(outcome: Outcome) -> list[str]:
    return [problem.id for problem in (*outcome.problems, *outcome.warnings)]


@pytest.mark.error("post_copy.paused")
def test_in_two_halves_a_person_is_needed_and_told_to_end_neither() -> None:
    outcome = outcome_of("post-copy, the link drops")
    assert (outcome.exit_code, outcome.runs_on, outcome.post_copy_ms) == (ExitCode.INDETERMINATE, "b", None)
    assert "part of its memory is on a still" in outcome.sentence
    told = outcome.problems[-1]
    assert told.id == "post_copy.paused"
    assert "end neither" in told.why
    assert f"refimpl recover {outcome.operation}" in told.mend


@pytest.mark.error("post_copy.not_resumed")
def test_a_recovery_that_comes_too_early_changes_nothing() -> None:
    assert {"post_copy.not_resumed", "post_copy.paused"} <= set(ids(outcome_of("post-copy, recovered too early")))


@pytest.mark.error("post_copy.stalled")
def test_silence_without_an_error_is_found_out() -> None:
    rig, outcome = play(POST_COPY_SCENARIOS["post-copy, nothing is sent any more"])
    assert "post_copy.stalled" in ids(outcome)
    assert rig.commands()[-1] == "inspect"


@pytest.mark.error("post_copy.not_started")
def test_what_was_not_begun_is_told_and_the_move_goes_on() -> None:
    outcome = outcome_of("post-copy, not taken")
    assert outcome.completed
    assert ids(outcome) == ["post_copy.not_started"]
    assert outcome.post_copy_ms is None


def test_it_is_recovered_as_often_as_it_takes() -> None:
    slow = {"networks": {"migration": {"bytes_s": 10_000_000}}} | WRITES_MUCH
    breaks = fault("link-drops", network="migration", during="post-copy", for_ms=1_000)
    again = fault("link-drops", network="migration", at_s=70.0, for_ms=1_000)
    rig = Rig(world(**slow, **faults(breaks, again, fault("resume-refused", times=2))), WISH)
    ended = rig.start(post_copy_at=Phase.MEMORY)
    tries = 0
    while ended is not None and ended.end is Phase.POSTCOPY_PAUSED:
        assert tries < 6
        tries += 1
        ended = rig.recover(after_ms=5_000)
    assert ended is not None
    assert (ended.end, ended.problems, tries) == (Phase.COMPLETED, (), 3)
    assert rig.copies() == {"b": "running"}


def test_its_time_without_the_whole_memory_is_measured() -> None:
    rig, outcome = play(POST_COPY_SCENARIOS["post-copy, asked for"])
    at = {event.kind: event.at_ns for event in rig.events}
    assert outcome.post_copy_ms == (at[Kind.POSTCOPY_ENDED] - at[Kind.POSTCOPY_SEEN]) / 1e6
    assert outcome.blackout_ms is not None
    assert outcome.post_copy_ms > outcome.blackout_ms > 0


def test_a_lost_vm_says_which_half_went() -> None:
    why = {
        name: outcome_of(f"post-copy, the {name} dies").problems[-1].values["detail"]
        for name in ("source", "destination")
    }
    assert "the source's process is gone" in str(why["source"])
    assert "the destination's process is gone" in str(why["destination"])


def test_old_kept_ends_are_read_without_it() -> None:
    kept = outcome_of("post-copy, asked for").to_json()
    for name in ("post_copy", "post_copy_ms"):
        del kept[name]
    assert Outcome.from_json(kept).post_copy == PostCopy.OFF
    assert MigrationRequest.from_json({**replace(WISH).to_json()}) == WISH
