"""A source that has taken the VM back after all had arrived: its end makes no older copy the VM."""

from __future__ import annotations

import pytest

from refimpl.model.events import Kind
from refimpl.model.facts import CopySeen, VmState
from refimpl.model.learning import record
from refimpl.model.ledger import Ledger
from refimpl.model.ownership import OwnerRecord
from refimpl.model.phase import Phase
from refimpl.policy.reconciliation import bound, reconcile
from tests.builders import OPERATION, destination, event, evidence, ledger, source, vm

S = VmState
DEAD = source(S.OFF, bound=True)
ARRIVED = destination(S.PAUSED)


def owner(known: Ledger, here: CopySeen = DEAD) -> Kind:
    made = reconcile(known, evidence(here, ARRIVED))
    assert made is not None
    return made.kind


def after(*kinds_and_values: tuple[Kind, dict[str, object]]) -> Ledger:
    known = ledger()
    for kind, values in kinds_and_values:
        known = record(known, event(kind, **values), Phase.SWITCH)
    return known


SEEN_TO_RUN = (Kind.EVIDENCE_SEEN, {"evidence": evidence(source(), ARRIVED)["evidence"]})
DENIED = (Kind.BINDING_SEEN, {"bound": False, "reason": "confirm3_cancelled"})


@pytest.mark.rule("R1")
@pytest.mark.parametrize("seen", [SEEN_TO_RUN, DENIED], ids=["seen to run", "seen to take it back"])
def test_its_end_lets_nothing_run(seen: tuple[Kind, dict[str, object]]) -> None:
    known = after(seen)
    assert owner(known) is Kind.UNKNOWN
    assert bound(known, event(Kind.BINDING_SEEN, bound=True, reason="the source's process is gone")) is None


@pytest.mark.rule("R1")
def test_before_all_has_arrived_a_source_that_runs_says_nothing() -> None:
    running = evidence(source(job_open=True), destination(S.PLANNED))["evidence"]
    not_yet = (Kind.BINDING_SEEN, {"bound": None, "reason": "perform3_done"})
    known = after((Kind.EVIDENCE_SEEN, {"evidence": running}), not_yet)
    assert owner(known) is Kind.SOURCE_BOUND
    assert bound(known, event(Kind.BINDING_SEEN, bound=True, reason="confirm3")) is not None


def test_a_source_that_was_looked_at_before_all_had_arrived_has_not_run_on() -> None:
    """The hosts are not looked at in one moment."""
    before = (Kind.EVIDENCE_SEEN, {"evidence": evidence(source(job_open=True), ARRIVED)["evidence"]})
    assert owner(after(before), source(S.ABSENT, bound=True)) is Kind.SOURCE_BOUND


@pytest.mark.rule("R1")
def test_a_controller_that_was_not_there_cannot_know_how_the_source_ended() -> None:
    assert owner(ledger(interrupted=True)) is Kind.UNKNOWN
    assert owner(ledger(interrupted=True), source(S.ABSENT, bound=True)) is Kind.SOURCE_BOUND, "by the hand-over"
    confirmed = source(S.PAUSED, job_open=True, job_phase="confirm3", bound=True)
    assert owner(ledger(interrupted=True), confirmed) is Kind.SOURCE_BOUND


@pytest.mark.rule("R1")
def test_what_was_recorded_decides() -> None:
    pending = OwnerRecord(vm().id, "a").begun(OPERATION, "b")
    assert owner(ledger(interrupted=True, ownership=pending.decided(OPERATION, "b"))) is Kind.SOURCE_BOUND
    assert owner(ledger(ownership=pending.decided(OPERATION, "a"))) is Kind.UNKNOWN
    assert owner(ledger(ownership=pending)) is Kind.SOURCE_BOUND
