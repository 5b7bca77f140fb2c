"""SETTLE_SOURCE, SETTLE_DESTINATION, CLEAN_UP: one copy is kept, the rest of this operation goes, and nothing else."""

from __future__ import annotations

import pytest

from refimpl.model.events import Kind
from refimpl.model.facts import Scope, VmState
from refimpl.model.request import CommandKind as C
from tests.contract.harness import OPERATION, OTHER_OPERATION, Bench

SETTLING = (Kind.SETTLED, Kind.CANNOT_SETTLE)
CLEANING = (Kind.CLEANED, Kind.LEFT_BEHIND)


def marks(bench: Bench) -> list[str]:
    """Every mark on any VM of any host."""
    hosts = bench.h.backend.observe(Scope()).hosts.values()
    return [vm.operation for host in hosts for vm in host.vms if vm.operation is not None]


def test_settling_for_the_source_before_anything_changes_nothing(bench: Bench) -> None:
    before = bench.copies(marks=True)
    assert bench.ask(C.SETTLE_SOURCE, *SETTLING).kind is Kind.SETTLED
    assert bench.copies(marks=True) == before


@pytest.mark.rule("R2")
def test_settling_for_the_source_removes_what_was_prepared(bench: Bench) -> None:
    bench.prepare()
    assert bench.ask(C.SETTLE_SOURCE, *SETTLING).kind is Kind.SETTLED
    assert bench.ask(C.CLEAN_UP, *CLEANING).kind is Kind.CLEANED
    assert bench.copies(marks=True) == {bench.h.source: (VmState.RUNNING, None)}
    hosts = bench.h.backend.observe(Scope()).hosts
    assert hosts[bench.h.destination].memory_used_mib == 0


@pytest.mark.rule("R2")
def test_settling_for_the_source_after_a_cancel(bench: Bench) -> None:
    bench.needs("cancels")
    bench.start_held()
    bench.ask(C.REQUEST_CANCEL, Kind.CANCEL_ACCEPTED)
    bench.wait_for(Kind.CALL_RETURNED)
    for _ in range(2):
        assert bench.ask(C.SETTLE_SOURCE, *SETTLING).kind is Kind.SETTLED
        assert bench.ask(C.CLEAN_UP, *CLEANING).kind is Kind.CLEANED
    assert bench.copies(marks=True) == {bench.h.source: (VmState.RUNNING, None)}


def test_settling_for_the_destination_after_a_move(bench: Bench) -> None:
    bench.move()
    for _ in range(2):
        assert bench.ask(C.SETTLE_DESTINATION, *SETTLING).kind is Kind.SETTLED
        assert bench.ask(C.CLEAN_UP, *CLEANING).kind is Kind.CLEANED
    assert bench.copies(marks=True) == {bench.h.destination: (VmState.RUNNING, None)}


@pytest.mark.rule("R1")
def test_settling_for_a_destination_that_does_not_run_keeps_the_source(bench: Bench) -> None:
    bench.prepare()
    refused = bench.ask(C.SETTLE_DESTINATION, *SETTLING)
    assert refused.kind is Kind.CANNOT_SETTLE
    assert refused["problem"] is not None
    assert bench.copies()[bench.h.source] is VmState.RUNNING


@pytest.mark.rule("R1")
def test_settling_for_the_source_never_ends_the_only_running_copy(bench: Bench) -> None:
    bench.move()
    bench.ask(C.SETTLE_SOURCE, *SETTLING)
    assert bench.copies()[bench.h.destination] is VmState.RUNNING


@pytest.mark.rule("R2")
def test_settling_for_a_source_that_runs_needs_no_destination(bench: Bench) -> None:
    bench.needs("host_down")
    bench.prepare()
    bench.h.host_down(bench.h.destination)
    assert bench.ask(C.SETTLE_SOURCE, *SETTLING).kind is Kind.SETTLED
    assert bench.copies()[bench.h.source] is VmState.RUNNING


def test_settling_for_a_destination_that_runs_needs_no_source(bench: Bench) -> None:
    """By the next controller, which has not seen the source bound: what it sees is the lease at the destination."""
    bench.needs("host_down")
    bench.move()
    bench.lose_backend()
    bench.h.host_down(bench.h.source)
    assert bench.ask(C.SETTLE_DESTINATION, *SETTLING).kind is Kind.SETTLED
    left = bench.ask(C.CLEAN_UP, *CLEANING)
    assert left.kind is Kind.LEFT_BEHIND
    assert any(bench.h.source in item for item in left["items"])
    assert bench.copies() == {bench.h.destination: VmState.RUNNING}
    assert marks(bench) == []


@pytest.mark.rule("R1")
def test_settling_for_a_destination_that_was_not_let_run_is_refused(bench: Bench) -> None:
    bench.needs("strict")
    bench.needs("host_down")
    bench.start()
    bench.wait_for(Kind.DESTINATION_ARRIVED)
    bench.h.host_down(bench.h.source)
    assert bench.ask(C.SETTLE_DESTINATION, *SETTLING).kind is Kind.CANNOT_SETTLE


def test_settling_answers_once(bench: Bench) -> None:
    bench.prepare()
    bench.ask(C.SETTLE_SOURCE, *SETTLING)
    bench.barrier()
    assert bench.count(*SETTLING) == 1


def test_cleaning_up_takes_off_the_marks_of_this_operation(bench: Bench) -> None:
    bench.move()
    assert OPERATION in marks(bench)
    bench.ask(C.CLEAN_UP, *CLEANING)
    bench.barrier()
    assert bench.count(*CLEANING) == 1
    assert marks(bench) == []


def test_cleaning_up_leaves_what_another_operation_made(bench: Bench) -> None:
    bench.prepare()
    before = bench.copies(marks=True)
    assert bench.ask(C.CLEAN_UP, *CLEANING, operation=OTHER_OPERATION).kind is Kind.CLEANED
    assert bench.copies(marks=True) == before


def test_cleaning_up_where_a_host_is_down_names_what_is_left(bench: Bench) -> None:
    bench.needs("host_down")
    bench.prepare()
    bench.h.host_down(bench.h.destination)
    left = bench.ask(C.CLEAN_UP, *CLEANING)
    assert left.kind is Kind.LEFT_BEHIND
    assert any(bench.h.destination in item for item in left["items"])
    assert marks(bench) == []
