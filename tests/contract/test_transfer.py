"""PREPARE, START_TRANSFER, STEER_SWITCH, LOOK_FOR_BINDING and ALLOW_RUN: what is answered, how often, in what order."""

from __future__ import annotations

from itertools import pairwise

import pytest

from refimpl.model.events import Kind
from refimpl.model.facts import Scope, VmState
from refimpl.model.request import CommandKind as C
from tests.contract.harness import NOWHERE, OPERATION, Bench

ORDER = (
    (Kind.TRANSFER_STARTED, Kind.MEMORY_SEEN),
    (Kind.MEMORY_SEEN, Kind.SWITCH_SEEN),
    (Kind.MEMORY_SEEN, Kind.PASS_ENDED),
    (Kind.TRANSFER_STARTED, Kind.SWITCH_SEEN),
    (Kind.SWITCH_SEEN, Kind.DESTINATION_ARRIVED),
    (Kind.SOURCE_STOPPED, Kind.DESTINATION_ARRIVED),
    (Kind.DESTINATION_ARRIVED, Kind.DESTINATION_RAN),
    (Kind.SOURCE_STOPPED, Kind.DESTINATION_RAN),
)
"""(earlier, later), of those that were shown at all."""


def test_prepare_answers_once_and_marks_the_source(bench: Bench) -> None:
    prepared = bench.ask(C.PREPARE, Kind.PREPARED)
    bench.barrier()
    assert bench.count(Kind.PREPARED, Kind.PREPARE_FAILED, Kind.NETWORK_FAILED, Kind.NATIVE_REFUSAL) == 1
    assert prepared["address"] == bench.h.plan().address
    vm = bench.h.backend.observe(Scope()).hosts[bench.h.source].vm(bench.h.plan().vm)
    assert vm is not None
    assert (vm.operation, vm.plan, vm.state) == (OPERATION, bench.h.plan(), VmState.RUNNING)


def test_prepare_twice_finds_things_done(bench: Bench) -> None:
    bench.prepare()
    before = bench.copies(marks=True)
    bench.prepare()
    assert bench.copies(marks=True) == before


@pytest.mark.rule("R13")
def test_prepare_says_which_network_does_not_connect(bench: Bench) -> None:
    before = bench.copies()
    failed = bench.ask(C.PREPARE, Kind.NETWORK_FAILED, Kind.PREPARED, plan=bench.bad_network())
    assert failed.kind is Kind.NETWORK_FAILED
    assert failed["address"] == NOWHERE
    assert failed["problem"] is not None
    assert bench.copies() == before


def test_prepare_with_a_dead_destination_fails(bench: Bench) -> None:
    bench.needs("host_down")
    bench.h.host_down(bench.h.destination)
    failed = bench.ask(C.PREPARE, Kind.PREPARE_FAILED, Kind.NETWORK_FAILED, Kind.NATIVE_REFUSAL, Kind.PREPARED)
    assert failed.kind in (Kind.PREPARE_FAILED, Kind.NETWORK_FAILED)
    assert failed["problem"] is not None


@pytest.mark.rule("R1")
def test_a_move_ends_with_one_copy_at_the_destination(bench: Bench) -> None:
    returned = bench.move()
    assert returned["ok"] is not False, returned.to_json()
    running = [host for host, state in bench.copies().items() if state is VmState.RUNNING]
    assert running == [bench.h.destination]
    assert bench.copies().get(bench.h.source) in (None, VmState.OFF)


def test_the_call_returns_once_and_nothing_of_the_transfer_follows(bench: Bench) -> None:
    bench.move()
    bench.barrier()
    kinds = bench.kinds()
    after = kinds[kinds.index(Kind.CALL_RETURNED) + 1 :]
    transfer = {Kind.TRANSFER_STARTED, Kind.MEMORY_SEEN, Kind.PASS_ENDED, Kind.PROGRESS, Kind.SWITCH_SEEN}
    assert not transfer & set(after)
    assert Kind.CALL_RETURNED not in after


def test_what_is_shown_comes_in_order(bench: Bench) -> None:
    bench.move()
    kinds = bench.kinds()
    for earlier, later in ORDER:
        if earlier in kinds and later in kinds:
            assert kinds.index(earlier) < kinds.index(later), (earlier, later, kinds)


def test_a_source_that_the_hand_over_ends_is_not_gone_by_itself(bench: Bench) -> None:
    bench.move()
    bench.barrier()
    assert bench.count(Kind.SOURCE_GONE, Kind.SOURCE_RESUMED) == 0


def test_phases_are_shown(bench: Bench) -> None:
    bench.needs("shows_phases")
    bench.move()
    assert {Kind.TRANSFER_STARTED, Kind.MEMORY_SEEN, Kind.SWITCH_SEEN} <= set(bench.kinds())
    assert bench.count(Kind.TRANSFER_STARTED) == 1


def test_passes_are_counted_from_one(bench: Bench) -> None:
    bench.needs("shows_passes")
    bench.start_held()
    for _ in range(3):
        bench.wait_for(Kind.PASS_ENDED)
    numbers = [event["number"] for event in bench.events if event.kind is Kind.PASS_ENDED]
    assert numbers == sorted(set(numbers))
    assert numbers[0] >= 1


def test_progress_adds_up(bench: Bench) -> None:
    bench.needs("shows_passes")
    bench.start_held()
    bench.wait_for(Kind.PROGRESS)
    bench.wait_for(Kind.PROGRESS)
    shown = [event for event in bench.events if event.kind is Kind.PROGRESS]
    sent = [event["sent_bytes"] for event in shown]
    assert sent == sorted(sent)
    assert all(event["total_bytes"] > 0 and event["remaining_bytes"] >= 0 for event in shown)


@pytest.mark.rule("R18")
def test_the_blackout_can_be_told(bench: Bench) -> None:
    bench.needs("shows_blackout")
    bench.move()
    bench.barrier()
    assert (bench.count(Kind.SOURCE_STOPPED), bench.count(Kind.DESTINATION_RAN)) == (1, 1)
    stop, run = (next(e for e in bench.events if e.kind is k) for k in (Kind.SOURCE_STOPPED, Kind.DESTINATION_RAN))
    assert stop.at_ns < run.at_ns
    assert (stop.host, run.host) == (bench.h.source, bench.h.destination)


def test_a_transfer_given_twice_is_one_transfer(bench: Bench) -> None:
    bench.start()
    bench.give(C.START_TRANSFER)
    bench.carry_through()
    bench.barrier()
    assert bench.count(Kind.TRANSFER_STARTED) <= 1
    assert [s for s in bench.copies().values() if s is VmState.RUNNING] == [VmState.RUNNING]


def test_a_transfer_that_is_over_is_not_begun_again(bench: Bench) -> None:
    bench.move()
    before = bench.copies(marks=True)
    bench.ask(C.START_TRANSFER, Kind.CALL_RETURNED)
    assert bench.copies(marks=True) == before


@pytest.mark.rule("R8")
def test_steering_ends_a_pre_copy_that_does_not_converge(bench: Bench) -> None:
    bench.needs("steers_switch")
    bench.start_held()
    bench.ask(C.STEER_SWITCH, Kind.STEERED)
    bench.carry_through()
    assert bench.copies()[bench.h.destination] is VmState.RUNNING


def test_steering_twice_is_answered_twice(bench: Bench) -> None:
    bench.needs("steers_switch")
    bench.start_held()
    bench.give(C.STEER_SWITCH)
    bench.give(C.STEER_SWITCH)
    answers = [bench.wait_for(Kind.STEERED, Kind.NOT_STEERABLE).kind for _ in range(2)]
    assert answers[0] is Kind.STEERED


def test_there_is_nothing_to_steer_without_a_transfer(bench: Bench) -> None:
    refused = bench.ask(C.STEER_SWITCH, Kind.NOT_STEERABLE, Kind.STEERED)
    assert refused.kind is Kind.NOT_STEERABLE
    assert refused["reason"]


@pytest.mark.rule("R1")
def test_the_destination_waits_until_it_is_allowed_to_run(bench: Bench) -> None:
    bench.needs("strict")
    bench.start()
    bench.wait_for(Kind.DESTINATION_ARRIVED)
    bench.see_bound()
    bench.wait_for(Kind.CALL_RETURNED)
    bench.barrier()
    assert Kind.DESTINATION_RAN not in bench.kinds()
    seen = bench.evidence()
    assert (seen.destination.state, seen.destination.job_open) == (VmState.PAUSED, False)
    assert seen.source.bound
    bench.ask(C.ALLOW_RUN, Kind.DESTINATION_RAN)
    assert bench.copies()[bench.h.destination] is VmState.RUNNING


def test_a_binding_that_does_not_change_is_told_once(bench: Bench) -> None:
    bench.needs("strict")
    bench.start()
    bench.wait_for(Kind.DESTINATION_ARRIVED)
    bench.give(C.LOOK_FOR_BINDING)
    bench.wait_for(Kind.CALL_RETURNED)
    bench.barrier()
    told = [(e["bound"], e["reason"]) for e in bench.events if e.kind is Kind.BINDING_SEEN]
    assert [bound for bound, _ in told].count(True) == 1
    assert told[-1][0] is True
    assert all(one != two for one, two in pairwise(told))


def test_allowed_twice_runs_once(bench: Bench) -> None:
    bench.needs("strict")
    bench.move()
    bench.give(C.ALLOW_RUN)
    bench.barrier()
    assert bench.count(Kind.DESTINATION_RAN) == 1
    assert bench.count(Kind.RUN_REFUSED) == 0


def test_allowed_by_the_next_controller_it_is_told_again(bench: Bench) -> None:
    bench.needs("strict")
    bench.move()
    bench.lose_backend()
    assert bench.ask(C.ALLOW_RUN, Kind.DESTINATION_RAN, Kind.RUN_REFUSED).kind is Kind.DESTINATION_RAN
    assert bench.copies()[bench.h.destination] is VmState.RUNNING


def test_nothing_can_be_let_run_where_nothing_arrived(bench: Bench) -> None:
    bench.needs("strict")
    refused = bench.ask(C.ALLOW_RUN, Kind.RUN_REFUSED, Kind.DESTINATION_RAN)
    assert refused.kind is Kind.RUN_REFUSED
    assert refused["problem"] is not None


def test_closing_a_backend_does_not_end_its_transfer(bench: Bench) -> None:
    """A transfer that is being ended shows an open job for a while: what counts is that it goes through."""
    bench.needs("adopts")
    bench.start_held()
    bench.h.backend.close()
    bench.lose_backend()
    assert bench.ask(C.ADOPT, Kind.ADOPTED_MEMORY, Kind.ADOPTED_SWITCH, Kind.CALL_RETURNED).kind is Kind.ADOPTED_MEMORY
    bench.h.let_go()
    bench.carry_through()
    assert bench.copies()[bench.h.destination] is VmState.RUNNING
