"""Who owns the VM: one test a row of the fault tables (libvirt-qemu 3.3, handover 1.1 and 1.2)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from refimpl.model.events import Kind
from refimpl.model.facts import CopySeen, VmState
from refimpl.model.learning import record
from refimpl.model.phase import Phase
from refimpl.model.request import HandOver
from refimpl.policy.reconciliation import MOST_RUN_REFUSALS, MOST_SILENT_LOOKS, bound, reconcile
from tests.builders import destination, event, evidence, ledger, source

S = VmState


def owner(here: CopySeen, there: CopySeen, **changes: object) -> Kind:
    made = reconcile(ledger(**changes), evidence(here, there))
    assert made is not None
    assert made.values["why"]
    return made.kind


ABSENT = source(S.ABSENT, bound=True)
CONFIRM3 = source(S.PAUSED, job_open=True, job_phase="confirm3", bound=True)


@pytest.mark.parametrize(
    ("here", "there", "verdict"),
    [
        pytest.param(source(), destination(), Kind.SOURCE_OWNS, id="K1 K2 K3 A1: running, nothing there"),
        pytest.param(source(), destination(S.PAUSED), Kind.SOURCE_OWNS, id="S6: running, paused copy there"),
        pytest.param(source(), destination(S.OFF), Kind.SOURCE_OWNS, id="running, definition left there"),
        pytest.param(source(S.PAUSED), destination(S.PAUSED), Kind.SOURCE_OWNS, id="both paused, source not bound"),
        pytest.param(source(S.PAUSED), destination(S.RUNNING), Kind.DESTINATION_OWNS, id="S3 K5: paused, runs there"),
        pytest.param(ABSENT, destination(S.RUNNING), Kind.DESTINATION_OWNS, id="moved"),
        pytest.param(CONFIRM3, destination(S.RUNNING), Kind.DESTINATION_OWNS, id="moved, source is being ended"),
        pytest.param(source(), destination(S.RUNNING), Kind.BOTH_RAN, id="S2 S4: both run"),
        pytest.param(
            replace(source(), job_open=True, job_phase="perform3"),
            destination(S.RUNNING),
            Kind.JOB_STILL_RUNS,
            id="seen running before the switch, the destination after it",
        ),
        pytest.param(ABSENT, destination(S.PAUSED), Kind.SOURCE_BOUND, id="arrived, source gone"),
        pytest.param(CONFIRM3, destination(S.PAUSED), Kind.SOURCE_BOUND, id="arrived, source bound"),
        pytest.param(
            CONFIRM3,
            destination(S.PAUSED, job_open=True, job_phase="finish3"),
            Kind.JOB_STILL_RUNS,
            id="never while the destination is in finish3",
        ),
        pytest.param(
            source(S.PAUSED, job_open=True, job_phase="perform3_done"),
            destination(S.PAUSED),
            Kind.JOB_STILL_RUNS,
            id="arrived, source not bound yet",
        ),
        pytest.param(
            source(job_open=True, job_phase="perform3"),
            destination(S.PLANNED, job_open=True, job_phase="prepare"),
            Kind.JOB_STILL_RUNS,
            id="transfer under way",
        ),
        pytest.param(
            source(S.PAUSED, job_open=True, job_phase="perform3_done"),
            destination(S.RUNNING),
            Kind.JOB_STILL_RUNS,
            id="runs there, source may still resume",
        ),
        pytest.param(source(S.ABSENT), destination(), Kind.MEMORY_GONE, id="K4: gone on both"),
        pytest.param(source(S.OFF), destination(S.OFF), Kind.MEMORY_GONE, id="off on both, not by the guest"),
        pytest.param(source(S.OFF, ended_by_guest=True), destination(), Kind.GUEST_ENDED, id="guest switched off"),
        pytest.param(source(S.UNKNOWN), destination(), Kind.UNKNOWN, id="state not known"),
        pytest.param(source(S.OFF), destination(S.PAUSED), Kind.UNKNOWN, id="off, arrived there, not bound"),
        pytest.param(source(S.OFF), destination(S.PLANNED), Kind.MEMORY_GONE, id="off, only planned there"),
        pytest.param(source(S.OFF, ended_by_guest=True), destination(S.PLANNED), Kind.GUEST_ENDED, id="planned there"),
        pytest.param(source(S.ABSENT), destination(S.PLANNED), Kind.UNKNOWN, id="the only definition is planned"),
    ],
)
@pytest.mark.rule("R1", "R2")
def test_rows(here: CopySeen, there: CopySeen, verdict: Kind) -> None:
    assert owner(here, there) is verdict


@pytest.mark.rule("R1")
def test_delegated_never_lets_a_paused_destination_run() -> None:
    assert owner(ABSENT, destination(S.PAUSED), hand_over=HandOver.DELEGATED) is Kind.UNKNOWN


@pytest.mark.rule("R1")
def test_a_silent_host() -> None:
    silent_there = CopySeen("b", False)
    silent_here = CopySeen("a", False)
    assert owner(source(), silent_there) is Kind.SOURCE_OWNS
    assert owner(source(lease_held=False), silent_there) is Kind.HOST_SILENT
    assert owner(source(S.PAUSED), silent_there) is Kind.HOST_SILENT
    assert owner(source(job_open=True), silent_there) is Kind.HOST_SILENT
    assert owner(silent_here, destination(S.RUNNING)) is Kind.DESTINATION_OWNS
    assert owner(silent_here, destination(S.RUNNING), hand_over=HandOver.DELEGATED) is Kind.HOST_SILENT
    assert owner(silent_here, destination(S.PAUSED)) is Kind.HOST_SILENT
    assert owner(silent_here, silent_there) is Kind.HOST_SILENT


def test_a_host_that_stays_silent_is_left_to_a_person() -> None:
    silent = CopySeen("a", False)
    assert owner(silent, destination(), silent_looks=MOST_SILENT_LOOKS - 1) is Kind.HOST_SILENT
    assert owner(silent, destination(), silent_looks=MOST_SILENT_LOOKS) is Kind.UNKNOWN


@pytest.mark.rule("R1")
def test_a_source_seen_bound_by_its_file_need_not_answer() -> None:
    bound_by_file = CopySeen("a", False, bound=True)
    assert owner(bound_by_file, destination(S.PAUSED)) is Kind.SOURCE_BOUND
    assert owner(bound_by_file, CopySeen("b", False, S.PAUSED, arrived=True)) is Kind.HOST_SILENT


def test_a_copy_that_stopped_again_after_it_ran_is_not_let_run_again() -> None:
    stopped = destination(S.PAUSED, arrived=False, reason="ioerror")
    made = reconcile(ledger(), evidence(ABSENT, stopped))
    assert made is not None
    assert (made.kind, made.values["state"]) == (Kind.DESTINATION_OWNS, S.PAUSED)
    by_a_person = destination(S.PAUSED, reason="user")
    assert owner(ABSENT, by_a_person) is Kind.SOURCE_BOUND
    assert owner(ABSENT, by_a_person, resume_ns=5) is Kind.DESTINATION_OWNS


def test_a_guest_that_switched_itself_off_after_the_move_was_moved() -> None:
    gone = source(S.ABSENT, bound=True)
    off = destination(S.OFF, ended_by_guest=True)
    made = reconcile(ledger(), evidence(gone, off))
    assert made is not None
    assert (made.kind, made.values["state"]) == (Kind.DESTINATION_OWNS, S.OFF)
    assert owner(gone, destination(S.OFF)) is Kind.MEMORY_GONE


@pytest.mark.rule("R1")
@pytest.mark.error("owner.lost")
@pytest.mark.parametrize("here", [source(), source(S.PAUSED, reason="migration"), source(lease_held=False)])
@pytest.mark.parametrize(("there", "left_on"), [(destination(S.OFF, reason="crashed"), "b"), (destination(), "a")])
def test_a_source_is_not_the_vm_any_more_once_it_ran_at_the_destination(
    here: CopySeen, there: CopySeen, left_on: str
) -> None:
    """Delegated: the destination has ended right after it ran, and libvirt takes the move for failed."""
    ran = ledger(hand_over=HandOver.DELEGATED, resume_ns=5)
    made = reconcile(ran, evidence(here, there))
    assert made is not None
    assert (made.kind, made.values["host"], made.values["older"]) == (Kind.MEMORY_GONE, left_on, True)
    told = record(ran, event(made.kind, **made.values), Phase.RECONCILE)
    assert (told.left_on, told.source_older) == (left_on, True)
    assert "is older" in told.problems[-1].text
    assert not record(told, event(Kind.TIDY_AGAIN), Phase.LOST).source_older, "it may have been started since"
    assert not record(told, event(Kind.LOOK_AGAIN), Phase.RECONCILE).source_older
    before = record(ledger(), event(Kind.MEMORY_GONE, why="gone", host="a"), Phase.RECONCILE)
    assert not before.source_older


@pytest.mark.rule("R1")
def test_nor_is_it_while_the_destination_is_silent_or_stands_there() -> None:
    assert owner(source(), CopySeen("b", False), resume_ns=5) is Kind.HOST_SILENT
    assert owner(source(), destination(S.PAUSED), resume_ns=5) is Kind.UNKNOWN
    assert owner(source(), destination(S.RUNNING), resume_ns=5) is Kind.BOTH_RAN


@pytest.mark.rule("R1")
@pytest.mark.rule("R1")
def test_two_copies_that_ran_stay_the_verdict() -> None:
    assert owner(ABSENT, destination(S.RUNNING), both_ran=True) is Kind.BOTH_RAN


def test_a_destination_that_refuses_to_run_is_not_asked_for_ever() -> None:
    assert owner(ABSENT, destination(S.PAUSED), run_refusals=MOST_RUN_REFUSALS - 1) is Kind.SOURCE_BOUND
    assert owner(ABSENT, destination(S.PAUSED), run_refusals=MOST_RUN_REFUSALS) is Kind.UNKNOWN


@pytest.mark.rule("R1")
def test_bound_only_when_seen_bound() -> None:
    seen = bound(ledger(), event(Kind.BINDING_SEEN, bound=True, reason="confirm3"))
    assert seen is not None
    assert seen.kind is Kind.SOURCE_BOUND
    assert bound(ledger(), event(Kind.BINDING_SEEN, bound=False, reason="perform3_done")) is None


def test_verdicts_do_not_depend_on_what_the_call_returned() -> None:
    before = ledger()
    after = replace(before, sent_bytes=1, cancel_accepted=True)
    assert reconcile(before, evidence(source(), destination())) == reconcile(after, evidence(source(), destination()))


def test_how_the_source_ended_is_told_with_a_loss() -> None:
    gone = source(S.OFF, bound=True)
    for here, told in ((gone, ""), (replace(gone, reason="its QEMU ended by SIGABRT"), "; its QEMU ended by SIGABRT")):
        made = reconcile(ledger(), evidence(here, destination()))
        assert made is not None
        assert made.values["why"] == f"source off, destination absent{told}"


@pytest.mark.rule("R1")
@pytest.mark.error("hand_over.may_have_run")
def test_a_delegated_destination_with_a_definition_may_have_run_and_is_told_so() -> None:
    def told(there: CopySeen, **changes: object) -> list[str]:
        known = ledger(**changes)
        made = reconcile(known, evidence(source(), there))
        assert made is not None
        assert made.kind is Kind.SOURCE_OWNS
        after = record(known, event(made.kind, **made.values), Phase.RECONCILE)
        return [warning.id for warning in record(after, event(made.kind, **made.values), Phase.RECONCILE).warnings]

    assert told(destination(S.OFF), hand_over=HandOver.DELEGATED) == ["hand_over.may_have_run"]
    assert told(destination(S.OFF)) == []
    for there in (S.ABSENT, S.PAUSED):
        assert told(destination(there), hand_over=HandOver.DELEGATED) == []
    paused = replace(ledger().plan, vm_state=S.PAUSED)  # type: ignore[type-var]
    assert told(destination(S.OFF), hand_over=HandOver.DELEGATED, plan=paused) == []
    silent = CopySeen("b", False)
    assert told(silent, hand_over=HandOver.DELEGATED) == []
    for known in ({"switched": True}, {"interrupted": True}):
        assert told(silent, hand_over=HandOver.DELEGATED, **known) == ["hand_over.may_have_run"]
        assert told(silent, **known) == []
