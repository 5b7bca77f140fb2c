"""Properties that the table has as such, whatever a backend does, and that hold under any sequence of events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.engine.backend import LOOKING, OWN_COMMANDS
from refimpl.engine.phases import DEADLINES, QUIET, TABLE
from refimpl.engine.step import step
from refimpl.model.events import NOTES, Kind
from refimpl.model.phase import ENDS, Phase
from refimpl.model.request import CommandKind as C

AFTER_CLAIM = frozenset(Phase) - ENDS - {Phase.NEW, Phase.CHECK}
CLEANING = {C.CLEAN_UP: Phase.SETTLING, C.CLEAN_UP_UNDONE: Phase.UNDOING, C.CLEAN_UP_MOVED: Phase.CLEANUP}
UNCLAIMED = {Kind.CLAIM_REFUSED}
NEED_A_PERSON = (Phase.INDETERMINATE, Phase.POSTCOPY_PAUSED)
LATE = (Phase.SWITCH, Phase.COMMITTED, Phase.POSTCOPY, Phase.RECONCILE, Phase.UNDOING, Phase.SETTLING, Phase.CLEANUP)


def reachable(start: Phase, without: frozenset[Phase] = frozenset()) -> set[Phase]:
    """Return every phase that can follow, never going through `without`."""
    found: set[Phase] = set()
    border = {start}
    while border:
        border = {row.phase for (phase, _), row in TABLE.items() if phase in border} - found - without
        found |= border
    return found


@pytest.mark.parametrize("phase", sorted(frozenset(Phase) - ENDS))
def test_every_phase_that_is_no_end_can_be_left_and_leads_to_an_end(phase: Phase) -> None:
    assert any(row.phase is not phase for (at, _), row in TABLE.items() if at is phase)
    assert reachable(phase) & ENDS


@pytest.mark.parametrize("phase", sorted(frozenset(Phase) - {Phase.NEW}))
def test_every_phase_can_be_reached(phase: Phase) -> None:
    assert phase in reachable(Phase.NEW)


def test_an_end_is_an_end() -> None:
    """Only an end that needs a person, or that left something behind, can be left again, and by a recovery alone."""
    left = {(phase, kind) for phase, kind in TABLE if phase in ENDS}
    tidied = ENDS - {Phase.COMPLETED, *NEED_A_PERSON}
    assert left == {
        *((phase, Kind.LOOK_AGAIN) for phase in NEED_A_PERSON),
        *((phase, Kind.TIDY_AGAIN) for phase in tidied),
    }


def test_rows_are_made_of_what_exists() -> None:
    for (phase, kind), row in TABLE.items():
        assert isinstance(phase, Phase)
        assert isinstance(kind, Kind)
        assert isinstance(row.phase, Phase)
        assert all(isinstance(command, C) for command in row.commands)


def test_every_command_is_given_by_some_row() -> None:
    assert {command for row in TABLE.values() for command in row.commands} == set(C)
    assert not OWN_COMMANDS & LOOKING


def test_notes_of_the_engine_steer_nothing() -> None:
    assert not {kind for _, kind in TABLE} & NOTES


@pytest.mark.rule("R1")
def test_allowed_to_run_only_with_the_commit_recorded_first() -> None:
    allowed = {key: row.phase for key, row in TABLE.items() if C.ALLOW_RUN in row.commands}
    assert allowed == {(Phase.COMMITTED, Kind.COMMIT_RECORDED): Phase.COMMITTED}


@pytest.mark.rule("R1")
def test_committed_only_by_a_bound_source() -> None:
    into = {kind for (phase, kind), row in TABLE.items() if row.phase is Phase.COMMITTED and phase is not row.phase}
    assert into == {Kind.SOURCE_BOUND}


@pytest.mark.rule("R1")
def test_post_copy_begins_only_with_the_destination_recorded_first() -> None:
    begun = {key: row.phase for key, row in TABLE.items() if C.START_POSTCOPY in row.commands}
    assert begun == {(Phase.MEMORY, Kind.POSTCOPY_RECORDED): Phase.MEMORY}


@pytest.mark.rule("R1")
def test_a_vm_in_two_halves_is_ended_only_where_one_was_seen_to_be_gone() -> None:
    assert {key for key, row in TABLE.items() if C.END_HALVES in row.commands} == {
        (Phase.RECONCILE, Kind.POSTCOPY_LOST)
    }


@pytest.mark.rule("R1")
@pytest.mark.parametrize("phase", [Phase.SWITCH, Phase.COMMITTED, Phase.POSTCOPY])
def test_nothing_is_undone_after_the_switch_without_evidence(phase: Phase) -> None:
    assert not {Phase.UNDOING, Phase.CLEANUP, Phase.SETTLING} & reachable(phase, frozenset({Phase.RECONCILE}))


def test_what_the_call_returned_is_never_a_verdict() -> None:
    assert {row.phase for (_, kind), row in TABLE.items() if kind is Kind.CALL_RETURNED} == {Phase.RECONCILE}


@pytest.mark.rule("R4")
@pytest.mark.parametrize("phase", LATE)
def test_from_the_switch_on_a_cancel_changes_nothing(phase: Phase) -> None:
    assert TABLE[phase, Kind.CANCEL_WISHED] == (phase, (C.ANSWER_TOO_LATE,))


@pytest.mark.rule("R4")
def test_a_cancel_is_asked_for_only_before_the_switch() -> None:
    asking = {phase for (phase, _), row in TABLE.items() if C.REQUEST_CANCEL in row.commands}
    assert asking == {Phase.SETUP, Phase.STORAGE, Phase.MEMORY}
    assert not asking & reachable(Phase.SWITCH, frozenset({Phase.RECONCILE}))


@pytest.mark.rule("R4")
@pytest.mark.parametrize("phase", sorted(frozenset(Phase) - ENDS))
def test_every_phase_answers_a_wish_to_cancel(phase: Phase) -> None:
    assert (phase, Kind.CANCEL_WISHED) in TABLE


@pytest.mark.rule("R3")
def test_files_go_only_where_it_was_decided_whose_copy_is_the_vm_and_after_that_was_settled() -> None:
    for command, phase in CLEANING.items():
        assert {key for key, row in TABLE.items() if command in row.commands} == {(phase, Kind.SETTLED)}


@pytest.mark.rule("R10")
def test_the_claim_is_given_back_at_every_end_but_where_a_person_is_needed() -> None:
    for (phase, kind), row in TABLE.items():
        if row.phase in ENDS and phase in AFTER_CLAIM and kind not in UNCLAIMED:
            assert (C.RELEASE in row.commands) == (row.phase not in NEED_A_PERSON), (phase, kind)


@pytest.mark.rule("R5")
def test_nothing_is_changed_before_the_checks_passed() -> None:
    for (phase, _), row in TABLE.items():
        if phase in (Phase.NEW, Phase.CHECK) and row.phase is not Phase.SETUP:
            assert set(row.commands) <= LOOKING


def test_a_phase_that_the_clock_can_end_says_what_then() -> None:
    assert set(DEADLINES) == {phase for phase, kind in TABLE if kind is Kind.DEADLINE}
    assert set(Phase) >= QUIET


def test_every_interrupted_phase_can_be_recovered() -> None:
    before = {Phase.NEW, Phase.CHECK}
    for phase in frozenset(Phase) - ENDS - before | set(NEED_A_PERSON):
        assert TABLE[phase, Kind.LOOK_AGAIN] == (Phase.RECONCILE, (C.INSPECT,))
    for phase in before | {Phase.SETUP}:
        assert TABLE[phase, Kind.NOTHING_TOUCHED].phase is Phase.FAILED


@given(st.lists(st.sampled_from(sorted(Kind)), max_size=200))
def test_no_sequence_of_events_raises_or_leaves_an_end(kinds: list[Kind]) -> None:
    phase = Phase.NEW
    for kind in kinds:
        before = phase
        phase, commands = step(phase, kind)
        again = kind in (Kind.LOOK_AGAIN, Kind.TIDY_AGAIN)
        assert before not in ENDS or again or (phase is before and not commands)


@given(st.sampled_from(sorted(Phase)), st.sampled_from(sorted(Kind)))
def test_an_event_without_a_row_changes_nothing(phase: Phase, kind: Kind) -> None:
    if (phase, kind) not in TABLE:
        assert step(phase, kind) == (phase, ())


def walk(phase: Phase, choices: list[int]) -> list[tuple[Phase, Kind, tuple[C, ...]]]:
    """Walk through the table along rows that exist; return (phase entered, on what, commands) of each step."""
    steps = []
    for choice in choices:
        kinds = sorted(kind for at, kind in TABLE if at is phase)
        if not kinds:
            break
        kind = kinds[choice % len(kinds)]
        phase, commands = step(phase, kind)
        steps.append((phase, kind, commands))
    return steps


CHOICES = st.lists(st.integers(0, 1000), max_size=60)


def test_a_transfer_is_started_by_what_only_prepare_answers() -> None:
    assert {kind for (_, kind), row in TABLE.items() if C.START_TRANSFER in row.commands} == {Kind.PREPARED}


def test_a_copy_is_let_run_by_what_only_the_commit_record_answers() -> None:
    assert {kind for (_, kind), row in TABLE.items() if C.ALLOW_RUN in row.commands} == {Kind.COMMIT_RECORDED}


@given(CHOICES)
def test_commands_come_in_their_order_on_every_walk(choices: list[int]) -> None:
    commands = [command for _, _, given_then in walk(Phase.NEW, choices) for command in given_then]
    first = {command: commands.index(command) for command in commands}
    for earlier, later in ((C.PROBE, C.CLAIM), (C.CLAIM, C.PREPARE)):
        assert later not in first or (earlier in first and first[earlier] < first[later])


@given(CHOICES)
def test_after_the_switch_nothing_is_settled_without_evidence_on_any_walk(choices: list[int]) -> None:
    wanted = False
    for _, _, commands in walk(Phase.SWITCH, choices):
        wanted = wanted or C.INSPECT in commands
        assert wanted or not {C.SETTLE_SOURCE, C.SETTLE_DESTINATION, *CLEANING, C.REQUEST_CANCEL} & set(commands)


@given(CHOICES)
def test_every_walk_gives_the_claim_back_at_most_once_and_only_at_its_end(choices: list[int]) -> None:
    steps = walk(Phase.NEW, choices)
    ends = [i for i, (phase, _, _) in enumerate(steps) if phase in ENDS and phase not in NEED_A_PERSON]
    steps = steps[: ends[0] + 1] if ends else steps
    released = [i for i, (_, _, commands) in enumerate(steps) if C.RELEASE in commands]
    assert released in ([], [len(steps) - 1])
