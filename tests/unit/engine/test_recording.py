"""The owner record: begun, decided, swapped only against what was known, and never against a later decision."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from refimpl.engine import recording
from refimpl.engine.store import GroupStore, MemoryStore, Store
from refimpl.model.errors import RefimplError
from refimpl.model.ownership import OwnerRecord
from tests.builders import plan

OPERATION, OTHER = "0a1b2c3d", "ffffffff"
PLAN = plan(vm_id="vm-1", source="a", destination="b")


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return GroupStore(tmp_path / "group.db") if request.param == "file" else MemoryStore()


@pytest.mark.rule("R1")
def test_a_move_raises_the_epoch_when_it_begins_and_when_it_is_decided(store: Store) -> None:
    pending = recording.begin(store, PLAN, OPERATION)
    assert pending == OwnerRecord("vm-1", "a", 1, "b", OPERATION) == store.owner("vm-1")
    assert recording.begin(store, PLAN, OPERATION) == pending, "given twice"
    committed = recording.decide(store, PLAN, OPERATION, "b", pending)
    assert committed == OwnerRecord("vm-1", "b", 2, None, OPERATION) == store.owner("vm-1")
    assert recording.decide(store, PLAN, OPERATION, "b", committed) == committed, "given twice"
    back = recording.begin(store, plan(vm_id="vm-1", source="b", destination="a"), OTHER)
    assert (back.owner, back.epoch, back.pending) == ("b", 3, "a")
    assert store.owners() == (back,)
    store.forget_owner("vm-1")
    assert store.owner("vm-1") is None


@pytest.mark.rule("R2")
def test_a_roll_back_makes_the_source_the_owner_again_by_a_later_epoch(store: Store) -> None:
    pending = recording.begin(store, PLAN, OPERATION)
    undone = recording.decide(store, PLAN, OPERATION, "a", pending)
    assert (undone.owner, undone.epoch, undone.pending) == ("a", 2, None)


def test_an_epoch_that_a_copy_has_seen_is_passed_though_the_store_is_new(store: Store) -> None:
    assert recording.begin(store, plan(vm_id="vm-1", epoch=7), OPERATION).epoch == 8


@pytest.mark.rule("R1")
@pytest.mark.error("owner.superseded")
@pytest.mark.parametrize("owner", ["a", "b"])
def test_who_was_overtaken_decides_nothing(store: Store, owner: str) -> None:
    pending = recording.begin(store, PLAN, OPERATION)
    taken = OwnerRecord("vm-1", "c", 9, None, OTHER)
    assert store.swap_owner(pending, taken)
    with pytest.raises(RefimplError, match=r"owner\.superseded"):
        recording.decide(store, PLAN, OPERATION, owner, pending)
    assert store.owner("vm-1") == taken


@pytest.mark.rule("R1")
@pytest.mark.error("owner.superseded")
def test_nor_does_one_that_has_only_its_plan_when_a_later_move_has_decided(store: Store) -> None:
    """Its mark was found on a copy that stayed behind, and the VM went on from where this one had brought it."""
    first = recording.decide(store, PLAN, OPERATION, "b", recording.begin(store, PLAN, OPERATION))
    onward = plan(vm_id="vm-1", source="b", destination="c", epoch=first.epoch)
    moved = recording.decide(store, onward, OTHER, "c", recording.begin(store, onward, OTHER))
    with pytest.raises(RefimplError, match=r"owner\.superseded"):
        recording.decide(store, PLAN, OPERATION, "a", None)
    assert store.owner("vm-1") == moved
    assert recording.superseding(store, PLAN, OPERATION, None) is not None
    assert recording.superseding(store, onward, OTHER, None) is None


def test_what_was_decided_before_the_plan_was_made_is_no_later_decision(store: Store) -> None:
    decided = recording.decide(store, PLAN, OTHER, "b", recording.begin(store, PLAN, OTHER))
    begun_next = plan(vm_id="vm-1", source="b", destination="a", epoch=decided.epoch)
    assert recording.superseding(store, begun_next, OPERATION, None) is None
    assert recording.decide(store, begun_next, OPERATION, "b", None).operation == OPERATION


class Overtaken(MemoryStore):
    """A store in which somebody is quicker every time."""

    def swap_owner(self, before: OwnerRecord | None, after: OwnerRecord, *, wait_s: float = 0) -> bool:
        return False


def test_who_is_overtaken_while_it_begins_touches_nothing() -> None:
    with pytest.raises(RefimplError, match=r"owner\.superseded"):
        recording.begin(Overtaken(), PLAN, OPERATION)


def test_a_recovery_without_its_journal_goes_by_what_stands(store: Store) -> None:
    recording.begin(store, PLAN, OPERATION)
    assert recording.decide(store, PLAN, OPERATION, "b", None).epoch == 2


def test_a_record_that_was_not_written_before_is_written_with_the_next_decision(store: Store) -> None:
    pending = recording.begin(store, PLAN, OPERATION)
    never_written = recording.unsaved(PLAN, OPERATION, "b", pending)
    assert recording.decide(store, PLAN, OPERATION, "b", never_written) == never_written == store.owner("vm-1")


def test_only_the_record_that_is_known_is_replaced(store: Store) -> None:
    first = OwnerRecord("vm-1", "a")
    assert store.swap_owner(None, first)
    assert not store.swap_owner(None, OwnerRecord("vm-1", "b", 5))
    assert not store.swap_owner(OwnerRecord("vm-1", "a", 4), OwnerRecord("vm-1", "b", 5))
    assert store.owner("vm-1") == first


@pytest.mark.error("store.failed")
def test_a_locked_store_is_waited_for_only_so_long(tmp_path: Path) -> None:
    store = GroupStore(tmp_path / "group.db")
    pending = recording.begin(store, PLAN, OPERATION)
    other = sqlite3.connect(tmp_path / "group.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RefimplError, match="locked"):
        recording.decide(store, PLAN, OPERATION, "b", pending, wait_s=0.01)
    other.execute("ROLLBACK")
    other.close()
    assert recording.decide(store, PLAN, OPERATION, "b", pending, wait_s=0.01).owner == "b"


def test_what_is_written_is_never_written_into_a_file_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "group.db"
    store = GroupStore(path)
    pending = recording.begin(store, PLAN, OPERATION)
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(RefimplError, match=r"store\.failed"):
        recording.decide(store, PLAN, OPERATION, "b", pending)


def test_a_record_that_nobody_can_read_is_a_fault_of_the_store(tmp_path: Path) -> None:
    store = GroupStore(tmp_path / "group.db")
    with sqlite3.connect(tmp_path / "group.db") as db:
        db.execute('INSERT INTO owners VALUES (\'vm-1\', \'{"vm_id": "vm-1", "owner": "a", "epoch": "x"}\')')
    with pytest.raises(RefimplError, match=r"store\.failed"):
        store.owner("vm-1")
