"""REQUEST_CANCEL: a wish on which the system below rules. Whatever it says, the VM ends in exactly one place."""

from __future__ import annotations

import pytest

from refimpl.model.events import Kind
from refimpl.model.facts import VmState
from refimpl.model.request import CommandKind as C
from tests.contract.harness import Bench

ANSWERS = (Kind.CANCEL_ACCEPTED, Kind.CANCEL_TOO_LATE, Kind.CANCEL_UNSUPPORTED)


def runs_on(bench: Bench) -> list[str]:
    return [host for host, state in bench.copies().items() if state is VmState.RUNNING]


def test_cancelled_before_preparing(bench: Bench) -> None:
    if bench.ask(C.REQUEST_CANCEL, *ANSWERS).kind is not Kind.CANCEL_ACCEPTED:
        pytest.skip(f"not applicable: {bench.h.name} takes no cancel; it would run if it did")
    assert bench.ask(C.PREPARE, Kind.PREPARED, Kind.PREPARE_FAILED).kind is Kind.PREPARE_FAILED
    assert runs_on(bench) == [bench.h.source]


@pytest.mark.rule("R4")
def test_cancelled_before_the_transfer_there_is_none(bench: Bench) -> None:
    bench.prepare()
    if bench.ask(C.REQUEST_CANCEL, *ANSWERS).kind is not Kind.CANCEL_ACCEPTED:
        pytest.skip(f"not applicable: {bench.h.name} takes no cancel; it would run if it did")
    returned = bench.ask(C.START_TRANSFER, Kind.CALL_RETURNED)
    assert returned["ok"] is False
    assert Kind.TRANSFER_STARTED not in bench.kinds()
    assert runs_on(bench) == [bench.h.source]


@pytest.mark.rule("R4")
@pytest.mark.rule("R2")
def test_cancelled_in_memory_the_vm_runs_at_the_source(bench: Bench) -> None:
    bench.needs("cancels")
    bench.start_held()
    assert bench.ask(C.REQUEST_CANCEL, *ANSWERS).kind is Kind.CANCEL_ACCEPTED
    returned = bench.wait_for(Kind.CALL_RETURNED)
    assert returned["ok"] is False
    seen = bench.evidence()
    assert (seen.source.state, seen.source.job_open) == (VmState.RUNNING, False)
    assert seen.destination.state in (VmState.ABSENT, VmState.PLANNED, VmState.OFF)


def test_cancelled_twice_is_cancelled_once(bench: Bench) -> None:
    bench.needs("cancels")
    bench.start_held()
    bench.give(C.REQUEST_CANCEL)
    bench.give(C.REQUEST_CANCEL)
    bench.wait_for(Kind.CALL_RETURNED)
    bench.barrier()
    assert bench.count(*ANSWERS) == 2
    assert bench.count(Kind.CALL_RETURNED) == 1
    assert runs_on(bench) == [bench.h.source]


@pytest.mark.rule("R4")
def test_a_cancel_at_any_time_leaves_one_running_copy(bench: Bench) -> None:
    """Opaque jobs may accept and complete all the same: what counts is one copy, and that the call returns."""
    bench.start()
    bench.give(C.REQUEST_CANCEL)
    bench.carry_through()
    bench.barrier()
    assert bench.count(*ANSWERS) == 1
    assert len(runs_on(bench)) == 1


@pytest.mark.rule("R4")
def test_from_the_switch_on_it_is_too_late(bench: Bench) -> None:
    bench.needs("shows_phases")
    bench.start()
    bench.wait_for(Kind.SWITCH_SEEN)
    bench.give(C.REQUEST_CANCEL)
    bench.carry_through()
    bench.barrier()
    answer = next(event for event in bench.events if event.kind in ANSWERS)
    assert answer.kind in (Kind.CANCEL_TOO_LATE, Kind.CANCEL_UNSUPPORTED)
    assert runs_on(bench) == [bench.h.destination]


def test_after_the_end_it_is_too_late(bench: Bench) -> None:
    bench.move()
    answer = bench.ask(C.REQUEST_CANCEL, *ANSWERS)
    assert answer.kind in (Kind.CANCEL_TOO_LATE, Kind.CANCEL_UNSUPPORTED)
    assert answer["reason"]
    assert runs_on(bench) == [bench.h.destination]
