"""What the simulated backend puts back when a move is undone: no half-made VM stays there, no paused source here.

Each step is looked at by itself, as a clean-up that comes after it would hide what the step before has left.
"""

from __future__ import annotations

import pytest

from refimpl.backends.simulated import World
from refimpl.backends.simulated.world import BY_MIGRATION, RESUME_REFUSED
from refimpl.model.events import Kind
from refimpl.model.facts import VmState
from refimpl.model.request import CommandKind as C
from tests.contract.benches import SimulatedHarness
from tests.contract.harness import OPERATION, Bench

SETTLING = (Kind.SETTLED, Kind.CANNOT_SETTLE)
AS_BEFORE = {"a": (VmState.RUNNING, OPERATION)}


@pytest.fixture
def bench() -> Bench:
    return Bench(SimulatedHarness())


def world(bench: Bench) -> World:
    assert isinstance(bench.h, SimulatedHarness)
    return bench.h.world


def pause(bench: Bench, reason: str) -> None:
    """Leave the source as a move leaves it that ended while the VM stood still."""
    copy = world(bench).copy("a", "web")
    assert copy is not None
    world(bench).stop(copy, VmState.PAUSED, reason)


@pytest.mark.rule("R2")
def test_settling_alone_removes_the_half_made_vm(bench: Bench) -> None:
    bench.prepare()
    assert bench.copies()["b"] is VmState.PLANNED
    assert bench.ask(C.SETTLE_SOURCE, *SETTLING).kind is Kind.SETTLED
    assert bench.copies(marks=True) == AS_BEFORE
    assert world(bench).memory_used_mib("b") == 0


@pytest.mark.rule("R2")
@pytest.mark.parametrize("reason", [BY_MIGRATION, RESUME_REFUSED])
def test_settling_alone_resumes_a_source_that_the_move_paused(bench: Bench, reason: str) -> None:
    bench.prepare()
    pause(bench, reason)
    assert bench.ask(C.SETTLE_SOURCE, *SETTLING).kind is Kind.SETTLED
    assert bench.copies(marks=True) == AS_BEFORE


@pytest.mark.rule("R2")
def test_a_source_that_a_person_paused_stays_so(bench: Bench) -> None:
    bench.prepare()
    pause(bench, "by a person")
    assert bench.ask(C.SETTLE_SOURCE, *SETTLING).kind is Kind.SETTLED
    assert bench.copies() == {"a": VmState.PAUSED}


@pytest.mark.rule("R1")
def test_a_source_is_not_resumed_while_nothing_of_the_destination_can_be_seen(bench: Bench) -> None:
    bench.prepare()
    pause(bench, BY_MIGRATION)
    bench.h.host_down("b")
    assert bench.ask(C.SETTLE_SOURCE, *SETTLING).kind is Kind.CANNOT_SETTLE
    assert bench.copies()["a"] is VmState.PAUSED


@pytest.mark.rule("R2")
def test_cleaning_up_alone_removes_what_was_only_planned_and_takes_the_marks_off(bench: Bench) -> None:
    bench.prepare()
    assert bench.ask(C.CLEAN_UP, Kind.CLEANED, Kind.LEFT_BEHIND).kind is Kind.CLEANED
    assert bench.copies(marks=True) == {"a": (VmState.RUNNING, None)}


@pytest.mark.rule("R2")
@pytest.mark.parametrize("during", ["memory", "switch", "arrived"])
def test_a_transfer_that_breaks_off_puts_both_sides_back_by_itself(during: str) -> None:
    bench = Bench(SimulatedHarness(faults=[{"kind": "call-fails", "during": during}]))
    bench.start()
    assert bench.wait_for(Kind.CALL_RETURNED)["ok"] is False
    assert bench.copies(marks=True) == AS_BEFORE
    assert bench.count(Kind.SOURCE_RESUMED) == bench.count(Kind.SOURCE_STOPPED) == int(during != "memory")
