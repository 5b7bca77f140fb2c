"""A simulated VM while it is being moved: it runs on at the source, and it is marked as being moved."""

from __future__ import annotations

import pytest

from refimpl.model.events import Kind
from refimpl.model.facts import VmState
from refimpl.model.request import CommandKind as C
from tests.contract.benches import SimulatedHarness
from tests.contract.harness import OPERATION, OTHER_OPERATION, Bench


@pytest.mark.rule("R10")
def test_the_vm_runs_on_and_is_marked_until_the_switch() -> None:
    bench = Bench(SimulatedHarness())
    bench.start_held()
    seen = []
    for _ in range(3):
        bench.wait_for(Kind.PASS_ENDED)
        seen.append(bench.copies(marks=True))
    assert seen == [{"a": (VmState.RUNNING, OPERATION), "b": (VmState.PLANNED, OPERATION)}] * 3
    assert bench.count(Kind.SOURCE_STOPPED) == 0


@pytest.mark.rule("R10")
def test_a_second_move_of_a_marked_vm_is_not_prepared() -> None:
    bench = Bench(SimulatedHarness())
    bench.prepare()
    before = bench.copies(marks=True)
    second = bench.ask(C.PREPARE, Kind.PREPARED, Kind.PREPARE_FAILED, operation=OTHER_OPERATION)
    assert second.kind is Kind.PREPARE_FAILED
    assert OPERATION in second["problem"].text
    assert bench.copies(marks=True) == before
