"""SIGKILL of the conductor in each phase: recovery finds the one owner by evidence, with the journal and without."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from pathlib import Path

import pytest

from refimpl.app.recovery import recover_one
from refimpl.model.errors import RefimplError
from refimpl.model.phase import Phase
from tests.lab.moving import Moving, kinds, until

pytestmark = pytest.mark.lab

P = Phase
MOVED, STAYED = P.COMPLETED, P.FAILED


@pytest.mark.rule("R1", "R2")
@pytest.mark.parametrize("journal", [True, False], ids=["with journal", "without journal"])
@pytest.mark.parametrize(
    ("stop", "end"),
    [
        ("intended:prepare", STAYED),
        ("intended:start-transfer", STAYED),
        ("memory", MOVED),
        ("switch", MOVED),
        ("committed", MOVED),
        ("given:allow-run", MOVED),
        ("reconcile", MOVED),
        ("cleanup", MOVED),
        ("given:clean-up-moved", MOVED),
    ],
)
def test_killed(moving: Moving, stop: str, end: Phase, journal: bool) -> None:
    source, destination = moving.place(), moving.other()
    operation = moving.kill_at(stop)
    (item,) = moving.interrupted(marks=False)
    assert item.operation == operation.id
    if not journal:
        moving.forget_journal(operation)
        (item,) = moving.interrupted(marks=False)
        assert (item.operation, item.found_by) == (operation.id, "claim")
    result = moving.recover()
    assert result.end is end, result
    assert result.recovered
    assert moving.place() == (destination if end is MOVED else source)
    assert moving.interrupted() == ()


def test_killed_in_check_nothing_was_touched(moving: Moving) -> None:
    source = moving.place()
    operation = moving.kill_at("check")
    result = moving.recover()
    assert (result.operation, result.end) == (operation.id, P.FAILED)
    assert [p.id for p in result.problems] == ["operation.interrupted"]
    assert moving.place() == source


def test_without_journal_and_claim_the_mark_on_the_vm_is_enough(moving: Moving) -> None:
    destination = moving.other()
    operation = moving.kill_at("switch")
    moving.forget_journal(operation)
    lose_claims(moving)
    assert moving.interrupted(marks=False) == ()
    (item,) = until(moving.interrupted, "the mark on the VM")
    assert (item.operation, item.found_by) == (operation.id, "mark")
    assert moving.recover().end is P.COMPLETED
    assert moving.place() == destination


def test_the_transfer_outlives_its_conductor_and_is_adopted_with_its_bound(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    moving.kill_at("memory", bandwidth_mib_s=3)
    moving.hold_memory(source)
    (item,) = moving.interrupted()
    with moving.stop_at("memory") as stop:
        recovery = recover_one(moving.home, moving.group, item)
        stop.reached()
        moving.release_memory(source)
    assert recovery.wait().end is P.COMPLETED
    assert "adopted-memory" in kinds(recovery)
    assert moving.place() == destination


@pytest.mark.error("operation.no_end")
def test_recovery_killed_too_and_twice_is_the_same_as_once(moving: Moving) -> None:
    destination = moving.other()
    moving.kill_at("switch")
    for stop in ("committed", "cleanup"):
        (item,) = moving.interrupted()
        with moving.stop_at(stop) as point:
            again = recover_one(moving.home, moving.group, item)
            pid = point.reached()
            os.kill(pid, signal.SIGKILL)
            until(lambda again=again: not again.alive(), "the end of the recovery")
        with pytest.raises(RefimplError, match=r"operation\.no_end"):
            again.outcome()
    assert moving.recover().end is P.COMPLETED
    assert moving.place() == destination


def lose_claims(moving: Moving) -> None:
    """Lose the group store's claims, as if another store had been put in its place."""
    store = Path(moving.group.store_path)
    with sqlite3.connect(store) as db:
        db.execute("DELETE FROM claims")
    for lock in store.parent.glob(f"{store.name}.*.lock"):
        lock.unlink()


def test_only_the_journal_file_is_gone(moving: Moving) -> None:
    destination = moving.other()
    operation = moving.kill_at("switch")
    for file in (moving.home.operations / operation.id).glob("journal.db*"):
        file.unlink()
    (item,) = moving.interrupted()
    assert item.found_by == "claim"
    assert moving.recover().end is P.COMPLETED
    assert moving.place() == destination


def test_two_recoveries_at_once_are_one(moving: Moving) -> None:
    destination = moving.other()
    moving.kill_at("switch")
    (item,) = moving.interrupted()
    results: list[str] = []

    def recover() -> None:
        try:
            results.append(recover_one(moving.home, moving.group, item).wait().end)
        except RefimplError as failure:
            results.append(failure.problems[0].id)

    both = [threading.Thread(target=recover) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    # One that comes when the other has begun is refused; neither says anything that is not so.
    assert P.COMPLETED in results
    assert set(results) <= {P.COMPLETED, "operation.alive"}
    assert moving.place() == destination
