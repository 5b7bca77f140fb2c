"""A lease space that a host does not see: before a move, at its preparation, while it lasts, and in the switch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from refimpl.app.recovery import recover_one
from refimpl.model.events import Kind
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase, Side
from tests.lab.host_mounts import mounted_over
from tests.lab.moving import Moving, kinds, wait_for

pytestmark = pytest.mark.lab


@contextmanager
def unseen(moving: Moving, host: str, *, read_only: bool = False) -> Iterator[None]:
    """Let a host see an empty directory in place of the lease space, or the real one without writing."""
    space = Path(moving.group.lease_directory)
    other = space if read_only else moving.directory / "other"
    other.mkdir(exist_ok=True)
    with mounted_over(moving, host, space, other, read_only=read_only):
        yield


def ids(result: Outcome) -> list[str]:
    return [problem.id for problem in result.problems]


@pytest.mark.rule("R1", "R5")
@pytest.mark.parametrize(
    ("read_only", "problem"), [(False, "lease.unshared"), (True, "lease.unreachable")], ids=["another", "read-only"]
)
def test_before_a_move_it_is_refused(moving: Moving, read_only: bool, problem: str) -> None:
    source, destination = moving.place(), moving.other()
    with unseen(moving, destination, read_only=read_only):
        refused = moving.start().wait()
    assert (refused.end, ids(refused)) == (Phase.REFUSED, [problem])
    assert (refused.problems[0].side, refused.problems[0].host) == (Side.DESTINATION, destination)
    assert moving.place() == source


@pytest.mark.full
@pytest.mark.rule("R2")
@pytest.mark.error("lease.unreachable")
def test_at_the_preparation_nothing_is_touched(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    with moving.stop_at("intended:prepare") as stop:
        operation = moving.start()
        stop.reached()
        with unseen(moving, destination):
            stop.go()
            failed = operation.wait()
    assert (failed.end, ids(failed)) == (Phase.FAILED, ["lease.unreachable"])
    assert moving.place() == source


@pytest.mark.rule("R1", "R2")
@pytest.mark.error("lease.space_lost")
def test_while_memory_is_copied_the_move_is_broken_off(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    operation = moving.start(bandwidth_mib_s=3)
    wait_for(operation, Kind.MEMORY_SEEN)
    moving.hold_memory(source)
    with unseen(moving, destination):
        failed = operation.wait()
    assert (failed.end, ids(failed)) == (Phase.FAILED, ["lease.space_lost"])
    assert kinds(operation).count("lease-space-gone") == 1
    assert moving.place() == source


@pytest.mark.full
@pytest.mark.rule("R1")
@pytest.mark.error("run.refused", "owner.unknown")
def test_in_the_switch_the_vm_stands_still_until_it_is_there_again(moving: Moving) -> None:
    destination = moving.other()
    with moving.stop_at("intended:allow-run") as stop:
        operation = moving.start()
        stop.reached()
        with unseen(moving, destination):
            stop.go()
            waits = operation.wait()
    assert waits.end is Phase.INDETERMINATE, waits
    assert {"run.refused"} <= set(ids(waits))
    (item,) = moving.interrupted()
    done = recover_one(moving.home, moving.group, item).wait()
    assert done.completed
    assert moving.place() == destination
