"""A disk that is full: for the journal before and during a move, and for the group store. Nothing is lost or left.

And one that meets an error in the middle of a move and takes no writes any more, not even of what is open already.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from refimpl.engine.journal import FileJournal
from refimpl.engine.store import Claim, GroupStore, LimitReached
from refimpl.model.errors import RefimplError
from refimpl.model.events import Event, Kind
from refimpl.model.phase import Phase
from tests.contract.benches import VM_ID, world
from tests.lab import host_mounts
from tests.moves import OPERATION, Rig

pytestmark = pytest.mark.lab


class SmallDisk:
    """A file system of its own that can be filled to the last byte."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def fill(self) -> None:
        """Leave no room for anything."""
        with (self.directory / "ballast").open("ab", buffering=0) as ballast:
            for size in (4096, 1):
                try:
                    while True:
                        ballast.write(b"x" * size)
                except OSError:
                    continue

    def empty(self) -> None:
        """Make room again."""
        (self.directory / "ballast").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(directory)], check=True)
    try:
        yield SmallDisk(directory)
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.error("journal.failed")
def test_without_room_for_the_journal_nothing_is_touched(disk: SmallDisk) -> None:
    rig = Rig(world())
    with closing(FileJournal(disk.directory / "journal.db")) as journal:
        disk.fill()
        rig.journal = journal  # type: ignore[assignment]
        with pytest.raises(RefimplError) as caught:
            rig.start()
    assert caught.value.problems[0].id == "journal.failed"
    assert rig.store.claims() == ()
    assert rig.marks() == []
    assert rig.copies() == {"a": "running"}


@pytest.mark.error("journal.failed")
def test_a_journal_that_runs_out_of_room_on_the_way_is_a_warning_and_the_move_goes_through(disk: SmallDisk) -> None:
    rig = Rig(world())

    class Filling(FileJournal):
        """Its disk fills up as soon as memory is copied."""

        def note(self, event: Event) -> None:
            if event.kind is Kind.MEMORY_SEEN:
                disk.fill()
            super().note(event)

    with closing(Filling(disk.directory / "journal.db")) as journal:
        rig.journal = journal  # type: ignore[assignment]
        outcome = rig.start()
    assert outcome is not None
    assert outcome.end is Phase.COMPLETED_WITH_WARNINGS
    assert [w.id for w in outcome.warnings] == ["journal.failed"]
    assert rig.copies() == {"b": "running"}
    assert rig.store.claims() == ()


@pytest.mark.error("store.failed")
def test_without_room_in_the_group_store_the_move_is_refused(disk: SmallDisk) -> None:
    store = GroupStore(disk.directory / "group.db")
    rig = Rig(world(), store=store)  # type: ignore[arg-type]
    disk.fill()
    outcome = rig.start()
    assert outcome is not None
    assert (outcome.end, [p.id for p in outcome.problems]) == (Phase.REFUSED, ["store.failed"])
    assert rig.marks() == []
    assert rig.copies() == {"a": "running"}
    disk.empty()
    assert store.claims() == ()
    again = rig.start()
    assert again is not None
    assert again.completed
    assert [path.name for path in disk.directory.iterdir() if path.suffix == ".lock"] == []


@pytest.mark.error("store.failed")
def test_a_claim_that_cannot_be_given_back_is_a_warning(disk: SmallDisk) -> None:
    store = GroupStore(disk.directory / "group.db")

    rig = Rig(world(), store=store)  # type: ignore[arg-type]
    genuine = store.claim

    def claim(wanted: Claim) -> Claim | LimitReached | None:
        taken = genuine(wanted)
        disk.fill()
        return taken

    store.claim = claim  # type: ignore[method-assign,assignment]
    outcome = rig.start()
    assert outcome is not None
    assert (outcome.end, [p.id for p in outcome.problems]) == (Phase.REFUSED, ["store.failed"])
    assert [w.id for w in outcome.warnings] == ["store.failed"]
    assert (rig.copies(), rig.marks()) == ({"a": "running"}, [])
    disk.empty()
    assert [c.operation for c in store.claims()] == [OPERATION]
    store.release(VM_ID, OPERATION)
    assert store.claims() == ()


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[host_mounts.SmallDisk]:
    directory = tmp_path / "failing"
    directory.mkdir()
    with host_mounts.small_disk(_run, tmp_path / "image", str(directory), 4) as disk:
        yield disk


def _run(*command: str) -> object:
    return subprocess.run(command, check=True, capture_output=True)


@pytest.mark.rule("R1", "R2")
@pytest.mark.error("store.failed")
@pytest.mark.parametrize("fault", host_mounts.SMALL_DISK_FAULTS)
@pytest.mark.parametrize(
    ("when", "ends"),
    [
        (Phase.MEMORY, Phase.COMPLETED),
        (Kind.SOURCE_BOUND, Phase.COMPLETED),
        (Phase.CLEANUP, Phase.COMPLETED),
        (Kind.FINISHED, Phase.COMPLETED),
        (Phase.MEMORY, Phase.FAILED),
        (Phase.UNDOING, Phase.FAILED),
    ],
)
def test_what_a_group_store_did_not_take_is_made_good_by_recovery(
    failing: host_mounts.SmallDisk, when: Kind | Phase, ends: Phase, fault: str
) -> None:
    path = Path(failing.at) / "group.db"
    with closing_store(path) as store:
        faults = [{"kind": "call-fails", "during": "memory"}] if ends is Phase.FAILED else []
        rig, struck = Rig(world(faults=faults), store=store), []  # type: ignore[arg-type]

        def strike(_: Rig) -> None:
            if not struck:
                struck.append(fault)
                host_mounts.SMALL_DISK_FAULTS[fault].does(failing)

        outcome = rig.start(happens=(when, strike))
    assert outcome is not None
    place = "b" if outcome.completed else "a"
    assert (outcome.completed, rig.copies()) == (ends is Phase.COMPLETED, {place: "running"})
    assert {warning.id for warning in outcome.warnings} <= {"store.failed"}
    assert struck
    assert outcome.warnings or fault == "full", "where there was room still, nothing is to be told"
    host_mounts.SMALL_DISK_FAULTS[fault].undo(failing)
    with closing_store(path) as again:
        rig.store = again  # type: ignore[assignment]
        for claim in again.claims():
            assert again.claim(claim, bounded=False) is None
            assert rig.recover().end is outcome.end
        (record,) = again.owners()
        assert (record.owner, record.pending, again.claims(), rig.marks()) == (place, None, (), [])
        rig.store = None  # type: ignore[assignment]


@contextmanager
def closing_store(path: Path) -> Iterator[GroupStore]:
    """A group store that keeps nothing open afterwards."""
    store = GroupStore(path)
    try:
        yield store
    finally:
        store._drop_kept()
