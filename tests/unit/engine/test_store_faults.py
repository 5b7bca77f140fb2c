"""A group store that fails: at the start, on the way, at the commit, at the end, whichever way it fails.

Whole moves in a simulated world with a real store in a file. Nothing begins without a store; once the VM is claimed the
move goes its way with a warning; the VM is in one place, and afterwards nothing is left that is not found again.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from refimpl.engine import recording
from refimpl.engine import store as store_module
from refimpl.engine.store import GroupStore
from refimpl.model.errors import RefimplError
from refimpl.model.events import Kind
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from tests.contract.benches import world
from tests.moves import OPERATION, Rig

MOVED = {"b": "running"}
STAYED = {"a": "running"}


class Hasty(GroupStore):
    """A store that is waited for no longer than a test likes to."""

    most_s = 0.02

    def _swift(self, wait_s: float) -> AbstractContextManager[sqlite3.Connection]:
        return super()._swift(min(wait_s, self.most_s))


class Faulty:
    """A store in a file of which something can be wrong, and be right again."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "store" / "group.db"
        self.path.parent.mkdir()
        self.store = Hasty(self.path)
        self._locked: sqlite3.Connection | None = None
        self.undo: Callable[[], None] = lambda: None

    def lock(self) -> None:
        """Somebody else is writing, and does not come to an end."""
        self._locked = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self._locked.execute("BEGIN IMMEDIATE")
        self.undo = self._unlock

    def _unlock(self) -> None:
        assert self._locked is not None
        self._locked.execute("ROLLBACK")
        self._locked.close()

    def corrupt(self) -> None:
        """Its bytes are nonsense; what it was comes back by a copy that somebody had."""
        kept = self._copied()
        for file in self._files():
            file.write_bytes(b"no database at all " * 1000)
        self.undo = lambda: self._restore(kept)

    def delete(self) -> None:
        """Its files are gone, and their directory is there."""
        kept = self._copied()
        for file in self._files():
            file.unlink()
        self.undo = lambda: self._restore(kept)

    def unmount(self) -> None:
        """Its directory is gone, and another one has its name: as below a mount point."""
        away = self.path.parent.with_name("away")
        self.path.parent.rename(away)
        self.path.parent.mkdir()

        def undo() -> None:
            assert list(self.path.parent.iterdir()) == [], "nothing was made where it was"
            self.path.parent.rmdir()
            away.rename(self.path.parent)

        self.undo = undo

    def _files(self) -> list[Path]:
        return [file for file in self.path.parent.iterdir() if file.suffix != ".lock"]

    def _copied(self) -> Path:
        kept = self.path.parent.with_name("kept")
        kept.mkdir()
        with closing(sqlite3.connect(self.path)) as db, closing(sqlite3.connect(kept / "group.db")) as copy:
            db.backup(copy)
        return kept

    def _restore(self, kept: Path) -> None:
        for file in self._files():
            file.unlink()
        shutil.copy(kept / "group.db", self.path)


FAULTS = ("lock", "corrupt", "delete", "unmount")


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faulty:
    monkeypatch.setattr(store_module, "BUSY_TIMEOUT_S", Hasty.most_s)
    return Faulty(tmp_path)


@contextmanager
def struck(rig: Rig, faulty: Faulty, fault: str, when: Kind | Phase) -> Iterator[Callable[[Rig], None]]:
    """Give what strikes when it is told of that moment, and undo it afterwards."""
    hit: list[str] = []

    def strike(_: Rig) -> None:
        if not hit:
            hit.append(fault)
            getattr(faulty, fault)()

    yield strike
    assert hit, f"{when} never came"
    faulty.undo()


def moved(faulty: Faulty, fault: str, when: Kind | Phase) -> tuple[Rig, Outcome]:
    """Move a VM while the store fails at a moment; afterwards the store is there again, and what is left recovered."""
    rig = Rig(world(), store=faulty.store)  # type: ignore[arg-type]
    with struck(rig, faulty, fault, when) as strike:
        outcome = rig.start(happens=(when, strike))
    assert outcome is not None
    return rig, outcome


def found_again(rig: Rig, faulty: Faulty, outcome: Outcome) -> Outcome:
    """Recover what a claim still leads to, as another process would; nothing is left then."""
    rig.store = Hasty.standing(faulty.path)  # type: ignore[assignment]
    for claim in rig.store.claims():
        # As a process that recovers does: first the claim is its own.
        assert claim.operation == OPERATION
        assert rig.store.claim(claim, bounded=False) is None
        outcome = rig.recover()
        assert outcome.end is not Phase.INDETERMINATE
    assert (rig.store.claims(), rig.marks()) == ((), [])
    assert not list(faulty.path.parent.glob("*.lock"))
    return outcome


def named(outcome: Outcome) -> set[str]:
    return {problem.id for problem in (*outcome.problems, *outcome.warnings)}


@pytest.mark.rule("R5")
@pytest.mark.error("store.failed")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("when", [Kind.STARTED, Phase.CHECK, Phase.SETUP, Kind.CLAIMED])
def test_without_a_store_nothing_begins(faulty: Faulty, fault: str, when: Kind | Phase) -> None:
    rig, outcome = moved(faulty, fault, when)
    assert outcome.end is Phase.REFUSED, outcome
    assert named(outcome) == {"store.failed"}
    assert (rig.copies(), rig.marks()) == (STAYED, [])
    assert found_again(rig, faulty, outcome).end in (Phase.REFUSED, Phase.FAILED)
    assert rig.copies() == STAYED


@pytest.mark.rule("R1")
@pytest.mark.error("store.failed")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "when",
    [
        Kind.PENDING_RECORDED,
        Kind.PREPARED,
        Phase.MEMORY,
        Kind.SOURCE_BOUND,
        Kind.COMMIT_RECORDED,
        Kind.DESTINATION_RAN,
        Phase.CLEANUP,
        Kind.FINISHED,
    ],
)
def test_once_it_has_begun_it_goes_through_with_a_warning(faulty: Faulty, fault: str, when: Kind | Phase) -> None:
    rig, outcome = moved(faulty, fault, when)
    assert outcome.completed, outcome
    # When only the claim could not be given back, the end had been told already.
    assert named(outcome) <= {"store.failed"}
    assert rig.copies() == MOVED
    again = found_again(rig, faulty, outcome)
    assert again.completed
    assert rig.copies() == MOVED
    (record,) = rig.store.owners()
    if fault != "delete" or when is not Kind.FINISHED:
        assert (record.owner, record.pending) == ("b", None)


@pytest.mark.rule("R2")
@pytest.mark.error("store.failed")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_move_that_fails_is_rolled_back_without_a_store(faulty: Faulty, fault: str) -> None:
    rig = Rig(world(faults=[{"kind": "call-fails", "during": "memory"}]), store=faulty.store)  # type: ignore[arg-type]
    with struck(rig, faulty, fault, Phase.MEMORY) as strike:
        outcome = rig.start(happens=(Phase.MEMORY, strike))
    assert outcome is not None
    assert (outcome.end, rig.copies()) == (Phase.FAILED, STAYED)
    assert "store.failed" in named(outcome)
    assert found_again(rig, faulty, outcome).end is Phase.FAILED
    (record,) = rig.store.owners()
    assert (record.owner, record.pending) == ("a", None)


@pytest.mark.rule("R1")
@pytest.mark.parametrize("when", [Phase.SETUP, Kind.CLAIMED, Kind.SOURCE_BOUND, Kind.FINISHED])
def test_a_store_that_is_locked_for_a_moment_is_waited_for(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch, when: Kind | Phase
) -> None:
    """The other one lets go while it is waited for: then nobody is told of it."""
    monkeypatch.setattr(store_module, "BUSY_TIMEOUT_S", 30.0)
    monkeypatch.setattr(recording, "COMMIT_WAIT_S", 30.0)
    faulty.store.most_s = 30.0
    rig = Rig(world(), store=faulty.store)  # type: ignore[arg-type]
    release = threading.Timer(0.05, faulty._unlock)

    def lock(_: Rig) -> None:
        if not release.is_alive() and faulty._locked is None:
            faulty.lock()
            release.start()

    outcome = rig.start(happens=(when, lock))
    release.join()
    assert outcome is not None
    assert (outcome.end, named(outcome), rig.copies()) == (Phase.COMPLETED, set(), MOVED)
    (record,) = faulty.store.owners()
    assert (record.owner, record.pending, faulty.store.claims()) == ("b", None, ())


@pytest.mark.error("store.missing")
@pytest.mark.parametrize("what", ["no file", "no directory", "a directory"])
def test_a_store_that_is_not_there_is_not_made_anew(tmp_path: Path, what: str) -> None:
    path = tmp_path / "store" / "group.db"
    if what != "no directory":
        (path if what == "a directory" else path.parent).mkdir(parents=True)
    with pytest.raises(RefimplError) as missing:
        GroupStore.standing(path)
    (problem,) = missing.value.problems
    assert (problem.id, str(path) in problem.mend) == ("store.missing", True)
    assert what == "a directory" or not path.exists()


def test_one_that_is_lost_for_good_is_made_by_hand(tmp_path: Path) -> None:
    (tmp_path / "group.db").touch()
    assert GroupStore.standing(tmp_path / "group.db").claims() == ()


@pytest.mark.rule("R1")
def test_a_store_that_is_gone_is_found_gone_and_no_empty_one_takes_its_place(faulty: Faulty) -> None:
    faulty.unmount()
    for ask in (faulty.store.claims, faulty.store.settings, faulty.store.owners, lambda: faulty.store.owner("x")):
        with pytest.raises(RefimplError, match=r"store\.failed"):
            ask()
    assert os.listdir(faulty.path.parent) == []
    faulty.undo()
    assert faulty.store.claims() == ()
