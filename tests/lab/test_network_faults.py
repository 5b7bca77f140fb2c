"""The network fails while memory is being sent: for a moment, and for longer than a peer may be silent.

What was cut comes back at the end of each test at the latest. The lab's hosts bear three seconds of silence. A cut for
good is in the fault table (N1).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from refimpl.app.operations import Operation
from refimpl.lab import Link
from refimpl.model.outcome import Outcome
from refimpl.model.phase import ExitCode, Phase, Side
from tests.lab.moving import Moving, wait_for

pytestmark = pytest.mark.lab


@contextmanager
def sending(moving: Moving) -> Iterator[tuple[Operation, Link, Link]]:
    """Give a move that is held while it sends memory, and the destination's links for migration and for control."""
    source, destination = moving.place(), moving.other()
    with ExitStack() as restored:
        migration = restored.enter_context(moving.lab.link(destination, "migration").restored())
        management = restored.enter_context(moving.lab.link(destination, "management").restored())
        operation = moving.start(source=source, destination=destination, bandwidth_mib_s=3)
        wait_for(operation, "memory-seen")
        moving.hold_memory(source)
        yield operation, migration, management


def failed(moving: Moving, result: Outcome, source: str) -> None:
    """The move has failed and says where; the VM is where it was."""
    assert (result.end, result.exit_code) == (Phase.FAILED, ExitCode.FAILED), result
    problem = result.problems[0]
    assert problem.id == "transfer.failed"
    assert (problem.side, problem.host) == (Side.SOURCE, source)
    assert problem.native is not None
    assert problem.native.text
    assert moving.place() == source


def test_a_cut_of_a_second_is_survived(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    with sending(moving) as (operation, migration, management):
        migration.cut()
        management.cut_for(1)
        migration.mend()
        moving.release_memory(source)
        result = operation.wait()
    assert result.end is Phase.COMPLETED, result
    assert moving.place() == destination


@pytest.mark.rule("R2", "R19")
@pytest.mark.parametrize("also_management", [False, True], ids=["migration only", "management too"])
def test_a_cut_of_ten_seconds_fails_and_leaves_nothing(moving: Moving, also_management: bool) -> None:
    source = moving.place()
    with sending(moving) as (operation, migration, management):
        if also_management:
            management.cut()
        migration.cut_for(10)
        management.mend()
        failed(moving, operation.wait(), source)


@pytest.mark.rule("R2", "R19")
def test_a_cut_between_the_proof_of_the_network_and_the_transfer_fails_and_leaves_nothing(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    with moving.lab.link(destination, "migration").restored() as migration:
        with moving.stop_at("intended:start-transfer") as stop:
            operation = moving.start(source=source, destination=destination)
            stop.reached()
            migration.cut()
            stop.go()
            failed(moving, operation.wait(), source)
