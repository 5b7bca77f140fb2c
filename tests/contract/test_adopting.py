"""ADOPT: what a controller finds that did not begin the transfer, its predecessor having been killed."""

from __future__ import annotations

import pytest

from refimpl.model.events import Kind
from refimpl.model.facts import VmState
from refimpl.model.request import CommandKind as C
from tests.contract.harness import OPERATION, Bench

ADOPTED = (Kind.ADOPTED_MEMORY, Kind.ADOPTED_SWITCH, Kind.CALL_RETURNED)


def test_with_no_job_the_call_counts_as_returned(bench: Bench) -> None:
    assert bench.ask(C.ADOPT, *ADOPTED).kind is Kind.CALL_RETURNED
    bench.barrier()
    assert bench.count(*ADOPTED) == 1


def test_after_the_end_the_call_counts_as_returned(bench: Bench) -> None:
    bench.move()
    bench.lose_backend()
    assert bench.ask(C.ADOPT, *ADOPTED).kind is Kind.CALL_RETURNED


def test_an_own_call_is_told_how_it_stands_and_returns_once(bench: Bench) -> None:
    bench.needs("adopts")
    bench.start_held()
    assert bench.ask(C.ADOPT, *ADOPTED).kind is Kind.ADOPTED_MEMORY
    bench.barrier()
    assert bench.count(Kind.ADOPTED_MEMORY) == 1
    bench.h.let_go()
    bench.carry_through()
    assert bench.count(Kind.CALL_RETURNED) == 1


def test_once_it_runs_there_an_own_call_is_only_waited_for(bench: Bench) -> None:
    bench.needs("strict")
    bench.move()
    assert bench.count(*ADOPTED) == 1
    bench.give(C.ADOPT)
    bench.barrier()
    assert bench.count(Kind.ADOPTED_MEMORY, Kind.ADOPTED_SWITCH) == 0


def test_once_it_runs_there_the_next_controller_waits_for_its_end(bench: Bench) -> None:
    bench.needs("strict")
    bench.start()
    bench.wait_for(Kind.DESTINATION_ARRIVED)
    bench.see_bound()
    bench.ask(C.ALLOW_RUN, Kind.DESTINATION_RAN)
    bench.lose_backend()
    bench.give(C.ADOPT)
    bench.wait_for(Kind.CALL_RETURNED)
    assert bench.count(Kind.ADOPTED_MEMORY, Kind.ADOPTED_SWITCH) == 0


def test_the_transfer_outlives_its_controller(bench: Bench) -> None:
    bench.start_held()
    bench.lose_backend()
    seen = bench.evidence()
    assert seen.source.job_open
    assert seen.source.operation == OPERATION


@pytest.mark.rule("R1")
def test_adopted_in_memory_it_goes_through(bench: Bench) -> None:
    bench.needs("adopts")
    bench.start_held()
    bench.lose_backend()
    assert bench.ask(C.ADOPT, *ADOPTED).kind is Kind.ADOPTED_MEMORY
    bench.h.let_go()
    bench.carry_through()
    assert bench.count(Kind.CALL_RETURNED) == 1
    assert bench.copies()[bench.h.destination] is VmState.RUNNING
    assert bench.copies().get(bench.h.source) in (None, VmState.OFF)


def test_adopted_in_memory_it_can_be_cancelled(bench: Bench) -> None:
    bench.needs("adopts")
    bench.needs("cancels")
    bench.start_held()
    bench.lose_backend()
    bench.ask(C.ADOPT, Kind.ADOPTED_MEMORY)
    assert bench.ask(C.REQUEST_CANCEL, Kind.CANCEL_ACCEPTED).kind is Kind.CANCEL_ACCEPTED
    bench.wait_for(Kind.CALL_RETURNED)
    assert bench.copies()[bench.h.source] is VmState.RUNNING


@pytest.mark.rule("R1")
def test_lost_after_the_arrival_the_next_controller_can_let_it_run(bench: Bench) -> None:
    bench.needs("adopts")
    bench.needs("strict")
    bench.start()
    bench.wait_for(Kind.DESTINATION_ARRIVED)
    bench.lose_backend()
    first = bench.ask(C.ADOPT, *ADOPTED)
    if first.kind is Kind.ADOPTED_SWITCH:
        bench.wait_for(Kind.DESTINATION_ARRIVED)
    bench.see_bound()
    bench.ask(C.ALLOW_RUN, Kind.DESTINATION_RAN)
    assert bench.copies()[bench.h.destination] is VmState.RUNNING


def test_a_job_that_cannot_be_followed_is_told_when_it_is_over(bench: Bench) -> None:
    if bench.h.backend.capabilities().adopts:
        pytest.skip(f"not applicable: {bench.h.name} can follow a job; for backends that cannot")
    bench.start()
    bench.lose_backend()
    assert bench.ask(C.ADOPT, *ADOPTED).kind is Kind.CALL_RETURNED
    assert not bench.evidence().source.job_open
