"""Which hand-over can be had, and that the delegated one is never had without a lease."""

from __future__ import annotations

from dataclasses import replace

import pytest

from refimpl.app.check import compare
from refimpl.checks.judge import judge
from refimpl.checks.report import compared
from refimpl.engine.backend import Capabilities
from refimpl.engine.store import MemoryStore
from refimpl.engine.timeline import VirtualTimeline
from refimpl.model.events import Kind
from refimpl.model.facts import Facts, LeaseFact, VmFacts, VmState
from refimpl.model.request import HandOver, MigrationRequest
from tests.builders import SETTINGS, event, facts, ledger, request, vm
from tests.judging import asked, found, judged, seen
from tests.scripted import Run, ScriptedBackend

STRICT, DELEGATED, OPAQUE = HandOver.STRICT, HandOver.DELEGATED, HandOver.OPAQUE
BOTH = (STRICT, DELEGATED)


def offering(shown: Facts, *offered: HandOver) -> Facts:
    return replace(shown, hand_overs=offered)


@pytest.mark.error("hand_over.unavailable")
@pytest.mark.parametrize(("offered", "chosen"), [((STRICT,), DELEGATED), (BOTH, OPAQUE), ((), STRICT)])
def test_what_is_not_offered_cannot_be_chosen(offered: tuple[HandOver, ...], chosen: HandOver) -> None:
    problems = found(offering(facts(), *offered), request(hand_over=chosen))
    assert set(problems) == {"hand_over.unavailable"}
    assert problems["hand_over.unavailable"].values["hand_over"] == chosen


@pytest.mark.parametrize(("chosen", "origin"), [(None, "default"), (STRICT, "request"), (DELEGATED, "request")])
def test_the_plan_has_the_one_that_was_chosen_and_by_whom(chosen: HandOver | None, origin: str) -> None:
    wish = request(hand_over=chosen)
    made = ledger(
        plan=None, request=wish, hand_over=Capabilities(STRICT, *[True] * 6, others=(DELEGATED,)).chosen(wish)
    )
    decided = judge(made, event(Kind.FACTS_SEEN, facts=offering(facts(), *BOTH)))
    assert decided.values["plan"].hand_over is (chosen or STRICT)
    assert decided.values["plan"].origins["hand_over"] == origin


@pytest.mark.parametrize(("chosen", "text"), [(None, "strict, as nothing else is asked for"), (DELEGATED, "delegated")])
def test_a_report_says_which_it_would_be(chosen: HandOver | None, text: str) -> None:
    made = compared(asked(offering(facts(), *BOTH), request(hand_over=chosen)))
    assert {c.family: c.text for c in made.checked}["hand-over"] == text


@pytest.mark.rule("R1")
@pytest.mark.parametrize(
    ("moved", "there", "problem"),
    [
        (vm(lease=None), {}, "lease.absent"),
        (vm(lease=None, state=VmState.PAUSED), {}, "lease.absent"),
        (vm(lease=LeaseFact("/l", None)), {}, "lease.unseen"),
        (vm(lease=LeaseFact("/l", False)), {}, "lease.not_held"),
        (vm(), {"lock_daemon_alive": False}, "lock_daemon.down"),
        (vm(state=VmState.PAUSED), {"lock_daemon_alive": False}, "lock_daemon.down"),
    ],
)
def test_delegated_never_without_a_lease(moved: VmFacts, there: dict[str, bool], problem: str) -> None:
    shown = offering(seen(moved, **there), *BOTH)
    assert set(found(shown, request(hand_over=DELEGATED))) == {problem}
    assert judged(offering(seen(), *BOTH), request(hand_over=DELEGATED)).kind is Kind.CHECKS_PASSED


def test_a_move_and_a_comparison_know_what_their_backend_offers() -> None:
    wish = request(hand_over=DELEGATED)
    run = Run(options={"ledger": ledger(plan=None, request=wish)})
    assert [p.id for p in run.conductor.start().problems] == ["hand_over.unavailable"]
    report = compare(ScriptedBackend(VirtualTimeline()), MemoryStore(SETTINGS), "lab", wish)
    assert [p.id for p in report.incompatibilities] == ["hand_over.unavailable"]


@pytest.mark.parametrize("chosen", [None, *HandOver])
def test_a_request_keeps_it(chosen: HandOver | None) -> None:
    made = request(hand_over=chosen)
    assert MigrationRequest.from_json(made.to_json()) == made
    older = {name: value for name, value in made.to_json().items() if name != "hand_over"}
    assert MigrationRequest.from_json(older).hand_over is None
