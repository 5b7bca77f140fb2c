"""When the copy of a silent source is to be ended: all has arrived, it stands still, and it was silent long enough."""

from __future__ import annotations

from dataclasses import replace

import pytest

from refimpl.model.events import Kind
from refimpl.model.facts import CopySeen, VmState
from refimpl.model.learning import record
from refimpl.model.ledger import Ledger
from refimpl.model.phase import Phase
from refimpl.model.request import HandOver
from refimpl.policy.reconciliation import MOST_SILENT_LOOKS, SILENT_MS, bound, reconcile
from tests.builders import destination, event, evidence, ledger, source

S = VmState
ARRIVED = destination(S.PAUSED)
SILENT = replace(source(S.PAUSED, job_open=True, job_phase="perform3_done"), reachable=False, endable=True)


def seen(silent_ms: int | None) -> Kind | None:
    made = bound(ledger(), event(Kind.BINDING_SEEN, bound=None, reason="perform3_done", silent_ms=silent_ms))
    return made.kind if made else None


@pytest.mark.rule("R1")
def test_it_takes_a_second_of_silence() -> None:
    assert [seen(ms) for ms in (None, 0, 250, SILENT_MS - 1)] == [None] * 4
    assert seen(SILENT_MS) is Kind.SOURCE_SILENT


@pytest.mark.rule("R1")
@pytest.mark.parametrize("known", [ledger(source_ran_on=True), ledger(ends_source=True)], ids=["ran on", "asked for"])
def test_not_of_one_that_took_the_vm_back_nor_twice(known: Ledger) -> None:
    told = event(Kind.BINDING_SEEN, bound=None, reason="perform3_done", silent_ms=8000)
    assert bound(known, told) is None


def verdict(here: CopySeen, there: CopySeen = ARRIVED, **changes: object) -> Kind:
    made = reconcile(ledger(**{"silent_looks": 1, **changes}), evidence(here, there))
    assert made is not None
    return made.kind


@pytest.mark.rule("R1")
def test_evidence_of_a_silent_source_ends_it_at_the_second_look() -> None:
    assert verdict(SILENT, silent_looks=0) is Kind.HOST_SILENT
    assert verdict(SILENT) is Kind.SOURCE_SILENT
    assert verdict(SILENT, silent_looks=MOST_SILENT_LOOKS) is Kind.UNKNOWN


@pytest.mark.rule("R1")
@pytest.mark.parametrize(
    ("here", "there", "changes"),
    [
        pytest.param(replace(SILENT, endable=False), ARRIVED, {}, id="not held"),
        pytest.param(replace(SILENT, state=S.RUNNING), ARRIVED, {}, id="it runs"),
        pytest.param(replace(SILENT, state=S.UNKNOWN), ARRIVED, {}, id="nothing is seen of it"),
        pytest.param(SILENT, replace(ARRIVED, job_open=True), {}, id="the destination's job is open"),
        pytest.param(SILENT, destination(S.PLANNED), {}, id="not arrived"),
        pytest.param(SILENT, replace(ARRIVED, reachable=False), {}, id="both are silent"),
        pytest.param(SILENT, ARRIVED, {"interrupted": True}, id="the controller was not there all the time"),
        pytest.param(SILENT, ARRIVED, {"source_ran_on": True}, id="it took the VM back"),
        pytest.param(SILENT, ARRIVED, {"hand_over": HandOver.DELEGATED}, id="libvirt lets the copy run"),
        pytest.param(SILENT, ARRIVED, {"resume_ns": 1}, id="the destination was let run before"),
    ],
)
def test_otherwise_it_is_waited_for(here: CopySeen, there: CopySeen, changes: dict[str, object]) -> None:
    assert verdict(here, there, **changes) is Kind.HOST_SILENT


@pytest.mark.rule("R1")
def test_while_it_is_being_ended_nothing_else_is_decided() -> None:
    """Else the destination's copy could be removed, as the source stands there paused, and the source be ended then."""
    known = record(ledger(), event(Kind.SOURCE_SILENT, why="silent"), Phase.RECONCILE)
    back = reconcile(known, evidence(source(S.PAUSED), ARRIVED))
    assert back is not None
    assert back.kind is Kind.HOST_SILENT
    given_up = reconcile(replace(known, silent_looks=MOST_SILENT_LOOKS), evidence(source(S.PAUSED), ARRIVED))
    assert given_up is not None
    assert given_up.kind is Kind.UNKNOWN
    not_ended = record(known, event(Kind.SOURCE_NOT_ENDED, reason="taken back"), Phase.RECONCILE)
    owner = reconcile(not_ended, evidence(source(S.PAUSED), ARRIVED))
    assert owner is not None
    assert owner.kind is Kind.SOURCE_OWNS


@pytest.mark.error("source.ended")
def test_whoever_looks_after_the_host_is_told() -> None:
    known = record(ledger(), replace(event(Kind.SOURCE_ENDED), host="a"), Phase.SWITCH)
    (warning,) = known.warnings
    assert warning.id == "source.ended"
    assert "'a' did not answer" in warning.text
    assert f"refimpl recover {known.operation}" in warning.mend
    assert record(known, replace(event(Kind.SOURCE_ENDED), host="a"), Phase.SWITCH).warnings == (warning,)
