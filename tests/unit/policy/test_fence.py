"""A silent host is cut off by force only, not at the first look, and what is proved of it decides as anything else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from refimpl.model.decision import Decision
from refimpl.model.events import Event, Kind
from refimpl.model.facts import CopySeen, VmState
from refimpl.model.learning import record
from refimpl.model.ledger import Ledger
from refimpl.model.ownership import OwnerRecord
from refimpl.model.phase import Phase, Side
from refimpl.model.request import HandOver
from refimpl.policy.reconciliation import LOOKS_BEFORE_FENCE, found_running, reconcile
from tests.builders import OPERATION, destination, event, evidence, ledger, source, vm

S = VmState
ARRIVED = destination(S.PAUSED)
HERE = CopySeen("a", reachable=False)
THERE = CopySeen("b", reachable=False)


def verdict(here: CopySeen, there: CopySeen, **changes: object) -> Decision:
    known = {"forced": True, "silent_looks": LOOKS_BEFORE_FENCE, "interrupted": True}
    made = reconcile(ledger(**{**known, **changes}), evidence(here, there))
    assert made is not None
    return made


@pytest.mark.rule("R1")
@pytest.mark.parametrize(("here", "there", "host"), [(HERE, ARRIVED, "a"), (source(S.PAUSED), THERE, "b")])
def test_the_host_that_does_not_answer_is_cut_off(here: CopySeen, there: CopySeen, host: str) -> None:
    made = verdict(here, there)
    assert (made.kind, made.values["host"]) == (Kind.FENCE_DUE, host)
    assert verdict(here, there, silent_looks=LOOKS_BEFORE_FENCE - 1).kind is Kind.HOST_SILENT
    assert verdict(here, there, forced=False).kind is Kind.HOST_SILENT


@pytest.mark.rule("R1")
def test_not_where_it_decides_nothing() -> None:
    assert verdict(source(), THERE).kind is Kind.SOURCE_OWNS, "runs with its lease"
    assert verdict(HERE, THERE).kind is Kind.HOST_SILENT, "nobody is left"
    assert verdict(source(), ARRIVED).kind is Kind.SOURCE_OWNS, "both answer"


@pytest.mark.rule("R1")
@pytest.mark.parametrize(
    ("there", "stood", "kind"),
    [
        (ARRIVED, True, Kind.SOURCE_BOUND),
        (ARRIVED, False, Kind.MEMORY_GONE),
        (ARRIVED, None, Kind.UNKNOWN),
        (destination(S.RUNNING), None, Kind.DESTINATION_OWNS),
        (destination(S.ABSENT), None, Kind.MEMORY_GONE),
        (destination(S.PLANNED, job_open=True, job_phase="prepare"), None, Kind.JOB_STILL_RUNS),
    ],
)
def test_a_source_that_was_cut_off(there: CopySeen, stood: bool | None, kind: Kind) -> None:
    made = verdict(HERE, there, fenced=("a",), stood=stood)
    assert made.kind is kind
    assert kind is not Kind.MEMORY_GONE or made.values["host"] == "b", "started where somebody answers"


@pytest.mark.rule("R1")
def test_a_destination_that_was_cut_off() -> None:
    fenced = {"fenced": ("b",)}
    assert verdict(source(S.PAUSED), THERE, **fenced).kind is Kind.SOURCE_OWNS
    assert verdict(source(), THERE, **fenced).kind is Kind.SOURCE_OWNS
    gone = verdict(source(S.ABSENT, bound=True), THERE, **fenced)
    assert (gone.kind, gone.values["host"]) == (Kind.MEMORY_GONE, "a")
    committed = OwnerRecord(vm().id, "a").begun(OPERATION, "b").decided(OPERATION, "b")
    for may_have_run in ({"hand_over": HandOver.DELEGATED}, {"ownership": committed}, {"resume_ns": 1}):
        assert verdict(source(S.PAUSED), THERE, **fenced, **may_have_run).kind is Kind.UNKNOWN, may_have_run


@pytest.mark.rule("R1")
def test_one_that_answers_again_is_believed_and_no_proof() -> None:
    assert verdict(source(), ARRIVED, fenced=("a",)).kind is Kind.SOURCE_OWNS


def after(known: Ledger, *events: Event) -> Ledger:
    for one in events:
        known = record(known, one, Phase.RECONCILE)
    return known


@pytest.mark.error("fence.done")
def test_what_is_proved_is_told_and_forgotten_by_the_next_recovery() -> None:
    cut = replace(event(Kind.FENCED, proof="it is off", stood=True), side=Side.SOURCE, host="a")
    known = after(ledger(), event(Kind.RECOVER_WISHED, force=True), cut)
    assert (known.forced, known.fenced, known.stood) == (True, ("a",), True)
    assert "it is off" in next(w.text for w in known.warnings if w.id == "fence.done")
    again = after(known, event(Kind.RECOVER_WISHED))
    assert (again.forced, again.fenced, again.stood) == (False, (), True)
    assert Ledger.from_json(known.to_json()) == known


@pytest.mark.rule("R1")
def test_a_source_found_running_beside_the_vm_is_a_second_copy_that_ran() -> None:
    assert found_running(ledger(), event(Kind.SOURCE_FOUND_RUNNING)).kind is Kind.BOTH_RAN
