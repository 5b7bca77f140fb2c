"""Disks that a VM takes along: made by PREPARE, copied before memory, and removed by the clean-up that fits the end."""

from __future__ import annotations

import pytest

from refimpl.model.events import Kind
from refimpl.model.facts import VmState
from refimpl.model.request import CommandKind as C
from tests.contract.harness import Bench

SETTLING = (Kind.SETTLED, Kind.CANNOT_SETTLE)
CLEANING = (Kind.CLEANED, Kind.LEFT_BEHIND)


def places(bench: Bench, source: str, target: str) -> tuple[bool, bool]:
    """Whether the disk's file is at the source, and at the destination."""
    return bench.h.has_file(bench.h.source, source), bench.h.has_file(bench.h.destination, target)


@pytest.mark.rule("R2")
def test_what_was_made_goes_when_the_source_is_the_vm(bench: Bench) -> None:
    disk = bench.take_disks()
    bench.prepare()
    assert places(bench, disk.source, disk.destination) == (True, True)
    for _ in range(2):
        assert bench.ask(C.SETTLE_SOURCE, *SETTLING).kind is Kind.SETTLED
        assert bench.ask(C.CLEAN_UP_UNDONE, *CLEANING).kind is Kind.CLEANED
    assert places(bench, disk.source, disk.destination) == (True, False)
    assert bench.copies(marks=True) == {bench.h.source: (VmState.RUNNING, None)}


def test_prepared_twice_it_is_made_once(bench: Bench) -> None:
    disk = bench.take_disks()
    bench.prepare()
    bench.prepare()
    assert bench.ask(C.SETTLE_SOURCE, *SETTLING).kind is Kind.SETTLED
    assert bench.ask(C.CLEAN_UP_UNDONE, *CLEANING).kind is Kind.CLEANED
    assert places(bench, disk.source, disk.destination) == (True, False)


@pytest.mark.rule("R3")
def test_as_long_as_nobody_knows_whose_copy_is_the_vm_no_file_goes(bench: Bench) -> None:
    disk = bench.take_disks()
    bench.prepare()
    assert bench.ask(C.SETTLE_SOURCE, *SETTLING).kind is Kind.SETTLED
    left = bench.ask(C.CLEAN_UP, *CLEANING)
    assert left.kind is Kind.LEFT_BEHIND
    assert any(disk.destination in item for item in left["items"])
    assert places(bench, disk.source, disk.destination) == (True, True)
    assert bench.ask(C.CLEAN_UP_UNDONE, *CLEANING).kind is Kind.CLEANED


@pytest.mark.rule("R17")
def test_a_file_that_is_there_is_refused_and_stays(bench: Bench) -> None:
    disk = bench.take_disks()
    bench.h.put_file(bench.h.destination, disk.destination)
    assert bench.ask(C.PREPARE, Kind.PREPARED, Kind.PREPARE_FAILED)["problem"].id == "storage.target_exists"
    assert bench.ask(C.SETTLE_SOURCE, *SETTLING).kind is Kind.SETTLED
    assert bench.ask(C.CLEAN_UP_UNDONE, *CLEANING).kind is Kind.CLEANED
    assert places(bench, disk.source, disk.destination) == (True, True)


@pytest.mark.rule("R3")
def test_disks_are_copied_before_memory_and_go_at_the_source_at_the_very_end(bench: Bench) -> None:
    disk = bench.take_disks()
    bench.move()
    told = [kind for kind in bench.kinds() if kind in (Kind.TRANSFER_STARTED, Kind.STORAGE_SEEN, Kind.MEMORY_SEEN)]
    assert told == [Kind.TRANSFER_STARTED, Kind.STORAGE_SEEN, Kind.MEMORY_SEEN]
    assert bench.events[-1]["disks_sent_bytes"] is None or bench.events[-1]["disks_sent_bytes"] > 0
    assert bench.ask(C.SETTLE_DESTINATION, *SETTLING).kind is Kind.SETTLED
    assert places(bench, disk.source, disk.destination) == (True, True)
    for _ in range(2):
        assert bench.ask(C.CLEAN_UP_MOVED, *CLEANING).kind is Kind.CLEANED
    assert places(bench, disk.source, disk.destination)[1]
    assert not bench.h.has_file(bench.h.source, disk.source)
    assert bench.copies(marks=True) == {bench.h.destination: (VmState.RUNNING, None)}


@pytest.mark.rule("R2")
def test_cancelled_before_it_began_what_was_made_goes(bench: Bench) -> None:
    bench.needs("cancels")
    disk = bench.take_disks()
    bench.prepare()
    assert bench.ask(C.REQUEST_CANCEL, Kind.CANCEL_ACCEPTED, Kind.CANCEL_TOO_LATE).kind is Kind.CANCEL_ACCEPTED
    assert bench.ask(C.START_TRANSFER, Kind.CALL_RETURNED)["ok"] is False
    assert bench.ask(C.SETTLE_SOURCE, *SETTLING).kind is Kind.SETTLED
    assert bench.ask(C.CLEAN_UP_UNDONE, *CLEANING).kind is Kind.CLEANED
    assert places(bench, disk.source, disk.destination) == (True, False)
