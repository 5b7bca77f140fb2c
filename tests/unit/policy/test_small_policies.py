"""Convergence, choice of network, closing."""

from __future__ import annotations

import pytest

from refimpl.model.events import Event, Kind
from refimpl.model.facts import VmState
from refimpl.model.learning import record
from refimpl.model.ledger import Ledger
from refimpl.model.phase import Phase
from refimpl.policy.closing import closing
from refimpl.policy.convergence import MOST_UNHEEDED, pass_limit
from refimpl.policy.networks import next_network
from tests.builders import event, ledger, plan


@pytest.mark.rule("R8")
def test_the_pass_limit_is_reached_exactly_then() -> None:
    asked = ledger(plan=plan(pass_limit=3), passes=3)
    assert pass_limit(asked, event(Kind.PASS_ENDED, number=2)) is None
    made = pass_limit(asked, event(Kind.PASS_ENDED, number=3))
    assert made is not None
    assert made.kind is Kind.PASS_LIMIT_REACHED
    assert made.values == {"passes": 3}


@pytest.mark.rule("R8")
def test_the_switch_is_forced_again_only_when_it_could_not_be_forced_before() -> None:
    failed = ledger(plan=plan(pass_limit=3), passes=4)
    assert pass_limit(failed, event(Kind.PASS_ENDED, number=4)) is not None
    forced = record(failed, event(Kind.STEERED, what="switch"), Phase.MEMORY)
    assert pass_limit(forced, event(Kind.PASS_ENDED, number=4)) is None


@pytest.mark.rule("R13")
@pytest.mark.error("network.no_connection")
def test_networks_in_order_until_none_is_left() -> None:
    failed = event(Kind.NETWORK_FAILED, address="10.1.0.2")
    first = record(ledger(), failed, Phase.SETUP)
    made = next_network(first, failed)
    assert made is not None
    assert made.kind is Kind.NEXT_NETWORK
    assert made.values["plan"].address == "10.2.0.2"
    again = event(Kind.NETWORK_FAILED, address="10.2.0.2")
    second = record(ledger(plan=made.values["plan"], networks_tried=first.networks_tried), again, Phase.SETUP)
    made = next_network(second, again)
    assert made is not None
    assert made.kind is Kind.NO_NETWORK_LEFT
    assert "10.1.0.2, 10.2.0.2" in made.values["problem"].text


def test_no_network_without_a_plan() -> None:
    assert next_network(ledger(plan=None), event(Kind.NETWORK_FAILED, address="x")) is None
    assert plan().address == "10.1.0.2"


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"owner": Kind.DESTINATION_OWNS}, Kind.FINISHED),
        ({"owner": Kind.SOURCE_OWNS}, Kind.UNDONE_FAILED),
        ({"owner": Kind.SOURCE_OWNS, "cancel_wished": True, "cancel_accepted": True}, Kind.UNDONE_CANCELLED),
        ({"owner": Kind.SOURCE_OWNS, "cancel_accepted": True}, Kind.UNDONE_FAILED),
        ({"owner": Kind.GUEST_ENDED, "cancel_accepted": True}, Kind.UNDONE_FAILED),
        ({"refused": True}, Kind.UNDONE_REFUSED),
        ({"owner": None}, Kind.UNDONE_FAILED),
        ({"owner": Kind.BOTH_RAN}, Kind.SETTLED_DUAL_RUN),
        ({"owner": Kind.MEMORY_GONE}, Kind.SETTLED_LOST),
    ],
)
def test_ends(changes: dict[str, object], end: Kind) -> None:
    made = closing(ledger(**changes), event(Kind.CLEANED))
    assert made is not None
    assert made.kind is end


@pytest.mark.error("cleanup.left_behind", "cancel.too_late")
def test_warnings_end_with_warnings() -> None:
    moved = ledger(owner=Kind.DESTINATION_OWNS)
    left = record(moved, event(Kind.LEFT_BEHIND, items=["/x"]), Phase.CLEANUP)
    assert f"refimpl recover {left.operation}" in left.warnings[0].mend, "a host may only have been silent"
    made = closing(left, event(Kind.CLEANED))
    assert made is not None
    assert made.kind is Kind.FINISHED_WITH_WARNINGS
    late = record(moved, event(Kind.CANCEL_TOO_LATE, reason="the switch has begun"), Phase.SWITCH)
    made = closing(late, event(Kind.CLEANED))
    assert made is not None
    assert made.kind is Kind.FINISHED_WITH_WARNINGS


@pytest.mark.rule("R4")
def test_an_accepted_cancel_that_the_move_overtook_is_a_warning() -> None:
    wished = ledger(cancel_wished=True, cancel_accepted=True)
    moved = record(wished, event(Kind.DESTINATION_OWNS, why="seen"), Phase.RECONCILE)
    assert [w.id for w in moved.warnings] == ["cancel.too_late"]


@pytest.mark.error("vm.off_there", "vm.paused_there")
def test_what_stopped_again_after_the_move_is_a_warning() -> None:
    for state, id in ((VmState.OFF, "vm.off_there"), (VmState.PAUSED, "vm.paused_there")):
        moved = record(ledger(), event(Kind.DESTINATION_OWNS, why="seen", state=state), Phase.RECONCILE)
        assert [w.id for w in moved.warnings] == [id]
        made = closing(moved, event(Kind.CLEANED))
        assert made is not None
        assert made.kind is Kind.FINISHED_WITH_WARNINGS


@pytest.mark.rule("R8")
@pytest.mark.error("blackout.too_long")
@pytest.mark.parametrize("rate", [1_000_000.0, None])
def test_at_the_last_pass_a_blackout_that_would_be_too_long_cancels(rate: float | None) -> None:
    asked = ledger(plan=plan(pass_limit=3, cancel_if_blackout_exceeds_ms=100), passes=3)
    known = record(asked, event(Kind.PASS_ENDED, number=3, remaining_bytes=200_000, bytes_s=rate), Phase.MEMORY)
    assert pass_limit(known, event(Kind.PASS_ENDED, number=2)) is None
    made = pass_limit(known, event(Kind.PASS_ENDED, number=3))
    assert made is not None
    assert made.kind is Kind.BLACKOUT_TOO_LONG
    assert made.values["problem"].values["predicted_ms"] == (200 if rate else "not known")
    told = record(known, event(made.kind, **made.values), Phase.MEMORY)
    assert pass_limit(told, event(Kind.PASS_ENDED, number=4)) is None
    assert [p.id for p in told.problems] == ["blackout.too_long"]


def _pass(number: int, at_s: float) -> Event:
    return Event(Kind.PASS_ENDED, int(at_s * 1e9), {"number": number})


@pytest.mark.rule("R8")
@pytest.mark.error("owner.unknown")
@pytest.mark.parametrize("answered", [True, False])
def test_a_cancel_for_a_long_blackout_that_is_not_carried_out_is_asked_for_again_and_has_an_end(answered: bool) -> None:
    told = ledger(plan=plan(pass_limit=3, cancel_if_blackout_exceeds_ms=100), passes=3)
    for ask in range(1 + MOST_UNHEEDED):
        at_s = 100.0 + ask * 10
        made = pass_limit(told, _pass(3, at_s))
        assert made is not None
        assert made.kind is Kind.BLACKOUT_TOO_LONG
        told = record(told, Event(made.kind, int(at_s * 1e9), made.values), Phase.MEMORY)
        told = record(told, event(Kind.CANCEL_ACCEPTED), Phase.MEMORY) if answered else told
        assert pass_limit(told, _pass(4, at_s + 9.9)) is None, "it has time to be carried out"
    made = pass_limit(told, _pass(9, 1000))
    assert made is not None
    assert made.kind is Kind.UNKNOWN
    ended = record(told, Event(made.kind, 1, made.values), Phase.MEMORY)
    assert [p.id for p in ended.problems] == ["blackout.too_long", "owner.unknown"]
    assert "after 4 requests" in ended.problems[-1].text
    assert Ledger.from_json(told.to_json()) == told
    again = record(told, event(Kind.LOOK_AGAIN), Phase.RECONCILE)
    assert (again.cancels_unheeded, again.cancel_asked_ns) == (0, None)


@pytest.mark.rule("R8")
@pytest.mark.parametrize("refusal", [Kind.CANCEL_TOO_LATE, Kind.CANCEL_UNSUPPORTED])
def test_a_cancel_for_a_long_blackout_that_is_refused_is_asked_for_at_the_next_pass(refusal: Kind) -> None:
    """Else the passes would have no end: neither cancelled nor switched."""
    told = ledger(plan=plan(pass_limit=3, cancel_if_blackout_exceeds_ms=100), passes=3)
    for number in (3, 4):
        made = pass_limit(told, event(Kind.PASS_ENDED, number=number))
        assert made is not None
        assert made.kind is Kind.BLACKOUT_TOO_LONG
        asked = record(told, event(made.kind, **made.values), Phase.MEMORY)
        told = record(asked, event(refusal, reason="no answer"), Phase.MEMORY)
    assert [p.id for p in told.problems] == ["blackout.too_long"]
    assert [w.id for w in told.warnings] == ["cancel.too_late"]
    cancelled = record(told, event(Kind.CANCEL_ACCEPTED), Phase.MEMORY)
    assert cancelled.warnings == ()


@pytest.mark.rule("R8")
def test_at_the_last_pass_a_blackout_that_is_short_enough_is_gone_for() -> None:
    asked = ledger(plan=plan(pass_limit=3, cancel_if_blackout_exceeds_ms=200), passes=3)
    known = record(asked, event(Kind.PASS_ENDED, number=3, remaining_bytes=200_000, bytes_s=1_000_000.0), Phase.MEMORY)
    made = pass_limit(known, event(Kind.PASS_ENDED, number=3))
    assert made is not None
    assert made.kind is Kind.PASS_LIMIT_REACHED


@pytest.mark.rule("R8")
@pytest.mark.rule("R18")
@pytest.mark.error("blackout.unexpected")
@pytest.mark.parametrize(("cancel_ms", "host_ms"), [(None, 100), (100, None), (100, 200), (200, 100)])
def test_a_long_blackout_is_a_warning_with_both_figures(cancel_ms: int | None, host_ms: int | None) -> None:
    limits = plan(cancel_if_blackout_exceeds_ms=cancel_ms, unexpected_blackout_ms=host_ms)
    moved = ledger(plan=limits, owner=Kind.DESTINATION_OWNS, stop_ns=0, resume_ns=150_000_000)
    made = closing(moved, event(Kind.CLEANED))
    assert made is not None
    assert made.kind is Kind.FINISHED_WITH_WARNINGS
    (warning,) = record(moved, event(made.kind, **made.values), Phase.CLEANUP).warnings
    assert (warning.values["blackout_ms"], warning.values["limit_ms"]) == (150.0, 100)


@pytest.mark.parametrize(("cancel_ms", "host_ms"), [(150, None), (None, 200), (None, None)])
def test_a_blackout_within_the_limits_is_no_warning(cancel_ms: int | None, host_ms: int | None) -> None:
    limits = plan(cancel_if_blackout_exceeds_ms=cancel_ms, unexpected_blackout_ms=host_ms)
    moved = ledger(plan=limits, owner=Kind.DESTINATION_OWNS, stop_ns=0, resume_ns=150_000_000)
    made = closing(moved, event(Kind.CLEANED))
    assert made is not None
    assert made.kind is Kind.FINISHED


def test_a_paused_vm_that_was_moved_is_at_the_destination_without_a_warning() -> None:
    paused = ledger(plan=plan(vm_state=VmState.PAUSED))
    told = record(paused, event(Kind.DESTINATION_OWNS, why="", state=VmState.PAUSED), Phase.RECONCILE)
    assert told.warnings == ()
    running = record(ledger(), event(Kind.DESTINATION_OWNS, why="", state=VmState.PAUSED), Phase.RECONCILE)
    assert [w.id for w in running.warnings] == ["vm.paused_there"]
