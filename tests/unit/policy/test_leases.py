"""What the end of a lock daemon means for a move, and a copy that runs without its lease."""

from __future__ import annotations

from dataclasses import replace

import pytest

from refimpl.model.errors import Problem
from refimpl.model.events import Event, Kind
from refimpl.model.facts import VmState
from refimpl.model.learning import record
from refimpl.model.ledger import Ledger
from refimpl.model.phase import Phase, Side
from refimpl.model.request import HandOver
from refimpl.policy.closing import closing
from refimpl.policy.leases import lease_space_gone, lock_daemon_gone
from tests.builders import destination, event, evidence, ledger, source

HOSTS = {Side.SOURCE: "a", Side.DESTINATION: "b"}
CANCELLED = Problem("transfer.cancelled", {"vm": "web", "source": "a"})


def gone(side: Side) -> Event:
    return Event(Kind.LOCK_DAEMON_GONE, 1, {}, side=side, host=HOSTS[side])


def unsafe(side: Side = Side.DESTINATION) -> Ledger:
    told = record(ledger(), gone(side), Phase.MEMORY)
    made = lock_daemon_gone(told, gone(side))
    assert made is not None
    return record(told, Event(made.kind, 1, made.values), Phase.MEMORY)


def ids(problems: tuple[Problem, ...]) -> list[str]:
    return [problem.id for problem in problems]


@pytest.mark.rule("R1")
@pytest.mark.parametrize(
    ("hand_over", "side", "broken_off"),
    [
        (HandOver.STRICT, Side.SOURCE, False),
        (HandOver.STRICT, Side.DESTINATION, True),
        (HandOver.DELEGATED, Side.SOURCE, True),
        (HandOver.DELEGATED, Side.DESTINATION, True),
    ],
)
def test_a_move_is_broken_off_when_only_leases_guard_it_or_it_could_not_run_there(
    hand_over: HandOver, side: Side, broken_off: bool
) -> None:
    made = lock_daemon_gone(ledger(hand_over=hand_over), gone(side))
    assert (made is not None and made.kind is Kind.LEASE_UNSAFE) is broken_off
    if made is not None:
        problem = made.values["problem"]
        assert (problem.id, problem.side, problem.host) == ("lease.unsafe", side, HOSTS[side])
        assert f"refimpl lab mend {HOSTS[side]}" in problem.mend


@pytest.mark.rule("R1")
@pytest.mark.error("lease.space_lost")
@pytest.mark.parametrize("hand_over", [HandOver.STRICT, HandOver.DELEGATED])
def test_so_it_is_when_the_destination_cannot_reach_the_lease_any_more(hand_over: HandOver) -> None:
    made = lease_space_gone(ledger(hand_over=hand_over), unreached(Side.DESTINATION))
    assert made is not None
    problem = made.values["problem"]
    assert (made.kind, problem.id, problem.side) == (Kind.LEASE_UNSAFE, "lease.space_lost", Side.DESTINATION)
    assert "host 'b' cannot reach" in problem.text
    assert "/leases/web: Stale file handle" in problem.text
    assert lease_space_gone(unsafe(), unreached(Side.DESTINATION)) is None


@pytest.mark.rule("R1")
def test_a_source_that_cannot_reach_it_matters_only_where_leases_are_all_there_is() -> None:
    assert lease_space_gone(ledger(hand_over=HandOver.STRICT), unreached(Side.SOURCE)) is None
    assert lease_space_gone(ledger(hand_over=HandOver.DELEGATED), unreached(Side.SOURCE)) is not None


def unreached(side: Side) -> Event:
    values = {"path": "/leases/web", "detail": "Stale file handle"}
    return Event(Kind.LEASE_SPACE_GONE, 1, values, side, HOSTS[side])


def test_it_is_broken_off_once() -> None:
    assert lock_daemon_gone(unsafe(), gone(Side.DESTINATION)) is None


@pytest.mark.rule("R19")
@pytest.mark.error("lease.lost")
def test_each_host_is_named_once() -> None:
    told = ledger()
    for side in (Side.SOURCE, Side.DESTINATION, Side.SOURCE):
        told = record(told, gone(side), Phase.MEMORY)
    assert [(w.id, w.side, w.host) for w in told.warnings] == [
        ("lease.lost", Side.SOURCE, "a"),
        ("lease.lost", Side.DESTINATION, "b"),
    ]
    assert told.problems == ()
    assert "refimpl lab mend a" in told.warnings[0].mend


@pytest.mark.rule("R2")
@pytest.mark.error("lease.unsafe")
def test_what_was_broken_off_has_failed_and_nobody_is_said_to_have_cancelled_it() -> None:
    told = record(unsafe(), event(Kind.CANCEL_ACCEPTED), Phase.MEMORY)
    told = record(told, event(Kind.CALL_RETURNED, ok=False, problem=CANCELLED), Phase.MEMORY)
    assert ids(told.problems) == ["lease.unsafe"]
    made = closing(replace(told, owner=Kind.SOURCE_OWNS), event(Kind.CLEANED))
    assert made is not None
    assert made.kind is Kind.UNDONE_FAILED


def test_a_person_who_cancelled_too_has_it_cancelled() -> None:
    told = record(unsafe(), event(Kind.CANCEL_WISHED), Phase.MEMORY)
    told = record(told, event(Kind.CANCEL_ACCEPTED), Phase.MEMORY)
    made = closing(replace(told, owner=Kind.SOURCE_OWNS), event(Kind.CLEANED))
    assert made is not None
    assert made.kind is Kind.UNDONE_CANCELLED


def test_too_late_it_completes_with_the_warning_alone() -> None:
    told = record(unsafe(), event(Kind.CANCEL_TOO_LATE, reason="the switch has begun"), Phase.SWITCH)
    told = record(told, event(Kind.DESTINATION_OWNS, why="runs there"), Phase.RECONCILE)
    assert (ids(told.problems), ids(told.warnings)) == ([], ["lease.lost"])


def test_a_recovery_decides_anew() -> None:
    again = record(unsafe(), event(Kind.LOOK_AGAIN), Phase.RECONCILE)
    assert lock_daemon_gone(again, gone(Side.DESTINATION)) is not None
    assert Ledger.from_json(again.to_json()) == again


@pytest.mark.error("lease.not_taken")
def test_a_copy_that_runs_without_its_lease_is_a_warning_and_the_last_look_counts() -> None:
    bare = evidence(source(VmState.ABSENT), destination(VmState.RUNNING, lease_held=False))
    told = record(record(ledger(), bare, Phase.RECONCILE), bare, Phase.RECONCILE)
    assert [(w.id, w.side, w.host) for w in told.warnings] == [("lease.not_taken", Side.DESTINATION, "b")]
    assert told.looks == 2
    for held in (True, None):
        seen = evidence(source(VmState.ABSENT), destination(VmState.RUNNING, lease_held=held))
        assert record(told, seen, Phase.RECONCILE).warnings == ()


def test_a_copy_that_does_not_run_needs_no_lease() -> None:
    for state in (VmState.PAUSED, VmState.OFF, VmState.PLANNED):
        told = record(ledger(), evidence(source(), destination(state, lease_held=False)), Phase.RECONCILE)
        assert told.warnings == ()


def test_what_stayed_at_the_source_without_its_lease_is_said_too() -> None:
    told = record(ledger(), evidence(source(lease_held=False), destination()), Phase.RECONCILE)
    assert [(w.id, w.host) for w in told.warnings] == [("lease.not_taken", "a")]
