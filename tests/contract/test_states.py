"""VMs that are paused or off, and what changes while a transfer runs: bandwidth, and figures with the end of a pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from refimpl.model.events import Kind
from refimpl.model.facts import VmState
from refimpl.model.request import CommandKind as C
from refimpl.model.request import Steer
from tests.contract.harness import Bench

SETTLING = (Kind.SETTLED, Kind.CANNOT_SETTLE)
CLEANING = (Kind.CLEANED, Kind.LEFT_BEHIND)
STEERING = (Kind.STEERED, Kind.NOT_STEERABLE)


@pytest.mark.rule("R1")
def test_a_paused_vm_arrives_paused_and_is_left_so(bench: Bench) -> None:
    bench.be(VmState.PAUSED)
    returned = bench.move()
    bench.barrier()
    assert returned["ok"] is not False, returned.to_json()
    assert bench.count(Kind.LEFT_PAUSED) == 1
    assert bench.count(Kind.DESTINATION_RAN, Kind.SOURCE_STOPPED) == 0
    assert bench.ask(C.SETTLE_DESTINATION, *SETTLING).kind is Kind.SETTLED
    assert bench.ask(C.CLEAN_UP, *CLEANING).kind is Kind.CLEANED
    assert bench.copies(marks=True) == {bench.h.destination: (VmState.PAUSED, None)}


@pytest.mark.rule("R2")
def test_a_paused_vm_stays_paused_when_its_move_is_cancelled(bench: Bench) -> None:
    bench.needs("cancels")
    bench.be(VmState.PAUSED)
    bench.start_held()
    bench.ask(C.REQUEST_CANCEL, Kind.CANCEL_ACCEPTED)
    bench.wait_for(Kind.CALL_RETURNED)
    assert bench.ask(C.SETTLE_SOURCE, *SETTLING).kind is Kind.SETTLED
    assert bench.ask(C.CLEAN_UP, *CLEANING).kind is Kind.CLEANED
    assert bench.copies(marks=True) == {bench.h.source: (VmState.PAUSED, None)}


def test_a_vm_that_is_off_is_moved_without_a_network_and_without_memory(bench: Bench) -> None:
    bench.be(VmState.OFF)
    plan = replace(bench.bad_network(), vm_state=VmState.OFF)
    assert bench.ask(C.PREPARE, Kind.PREPARED, Kind.NETWORK_FAILED, plan=plan).kind is Kind.PREPARED
    bench.give(C.START_TRANSFER, plan=plan)
    assert bench.wait_for(Kind.CALL_RETURNED)["ok"] is not False
    assert bench.count(Kind.MEMORY_SEEN, Kind.SWITCH_SEEN, Kind.DESTINATION_ARRIVED) == 0
    assert bench.ask(C.SETTLE_DESTINATION, *SETTLING).kind is Kind.SETTLED
    assert bench.ask(C.CLEAN_UP, *CLEANING).kind is Kind.CLEANED
    assert bench.copies(marks=True) == {bench.h.destination: (VmState.OFF, None)}


def test_a_bandwidth_is_taken_before_a_transfer_and_while_it_runs(bench: Bench) -> None:
    bench.needs("steers_switch")
    assert bench.ask(C.STEER_BANDWIDTH, *STEERING)["what"] == Steer.BANDWIDTH
    bench.start_held()
    plan = replace(bench.h.plan(), bandwidth_mib_s=20)
    steered = bench.ask(C.STEER_BANDWIDTH, *STEERING, plan=plan)
    assert (steered.kind, steered["what"]) == (Kind.STEERED, Steer.BANDWIDTH)
    bench.ask(C.REQUEST_CANCEL, Kind.CANCEL_ACCEPTED)
    bench.wait_for(Kind.CALL_RETURNED)
    assert bench.ask(C.STEER_BANDWIDTH, *STEERING, plan=plan).kind is Kind.NOT_STEERABLE


@pytest.mark.rule("R8")
def test_with_a_limit_for_the_blackout_a_pass_ends_with_what_is_left(bench: Bench) -> None:
    bench.needs("shows_passes")
    bench.needs("hold_memory")
    bench.h.hold_memory()
    plan = replace(bench.h.plan(), cancel_if_blackout_exceeds_ms=1)
    assert bench.ask(C.PREPARE, Kind.PREPARED, Kind.PREPARE_FAILED, plan=plan).kind is Kind.PREPARED
    bench.give(C.START_TRANSFER, plan=plan)
    for _ in range(2):
        ended = bench.wait_for(Kind.PASS_ENDED)
        assert ended["remaining_bytes"] > 0
        assert ended["bytes_s"] > 0
