"""Where a controller keeps its operations: one directory each, below its home directory."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refimpl.engine.journal import FileJournal, Standing
from refimpl.hosts.command import replace_file
from refimpl.model.errors import error
from refimpl.model.group import ProcessRef


def default_home() -> Path:
    """Return REFIMPL_HOME, or refimpl's directory below XDG_STATE_HOME (~/.local/state)."""
    chosen = os.environ.get("REFIMPL_HOME")
    if chosen:
        return Path(chosen).absolute()
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "refimpl"


def new_operation_id() -> str:
    """Return a fresh operation id: eight hexadecimal digits."""
    return secrets.token_hex(4)


@dataclass(frozen=True, slots=True)
class OperationFiles:
    """The files of one operation."""

    directory: Path

    @property
    def id(self) -> str:
        """The operation's id, which is the directory's name."""
        return self.directory.name

    @property
    def spec(self) -> Path:
        """What the conductor process is started with."""
        return self.directory / "spec.json"

    @property
    def journal(self) -> Path:
        """The operation's journal."""
        return self.directory / "journal.db"

    @property
    def socket(self) -> Path:
        """The socket by which a living conductor is reached."""
        return self.directory / "socket"

    @property
    def log(self) -> Path:
        """What the conductor process printed."""
        return self.directory / "conductor.log"

    @property
    def process(self) -> Path:
        """Which process the conductor is."""
        return self.directory / "process.json"

    @property
    def lock(self) -> Path:
        """Locked by the conductor as long as it lives: there is one at a time."""
        return self.directory / "lock"

    def read_spec(self) -> dict[str, Any]:
        """Return the spec; an unreadable one is an error with the file's name."""
        try:
            data: dict[str, Any] = json.loads(self.spec.read_text("utf-8"))
        except (OSError, ValueError) as failure:
            raise error("operation.unreadable", operation=self.id, detail=str(failure)) from failure
        return data

    def conductor(self) -> ProcessRef | None:
        """Return which process conducts it, or did last; None when that was never said."""
        try:
            return ProcessRef.from_json(json.loads(self.process.read_text("utf-8")))
        except (OSError, ValueError):
            return None

    def standing(self) -> Standing | None:
        """Return where the operation stands by its journal, None when it has none or an empty one."""
        with self.reading() as journal:
            return journal.standing() if journal else None

    def lines(self, after: int = 0) -> list[tuple[int, str]]:
        """Return the event lines in the journal after a number."""
        with self.reading() as journal:
            return journal.lines(after) if journal else []

    @contextmanager
    def reading(self) -> Iterator[FileJournal | None]:
        """Give the journal to read from, None when it is not there or not made yet; it is neither made nor written."""
        if not self.journal.exists():
            yield None
            return
        try:
            with closing(_ReadJournal(self.journal)) as journal:
                yield journal if journal.made() else None
        except sqlite3.Error as failure:
            raise error("journal.failed", path=str(self.journal), detail=str(failure)) from failure


class _ReadJournal(FileJournal):
    """A journal, perhaps of a conductor that runs now, on a connection that makes no file and takes no writing.

    Not SQLite's `mode=ro`: reading needs files beside the journal, and that mode may not take them away again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._noted = []
        self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=10.0)
        self._db.execute("PRAGMA query_only=ON")

    def made(self) -> bool:
        """Whether its last table is there: a conductor that has just been started makes them one by one."""
        return bool(self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchall())


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a file, its owner's only, so that a reader sees all of it or what was there before."""
    replace_file(path, json.dumps(data, indent=1, ensure_ascii=False).encode(), 0o600)


@dataclass(frozen=True, slots=True)
class Home:
    """A controller's home directory."""

    path: Path

    @property
    def operations(self) -> Path:
        """The directory of all operations."""
        return self.path / "operations"

    def create(self, operation: str) -> OperationFiles:
        """Make the directory of an operation, readable by its owner only."""
        files = OperationFiles(self.operations / operation)
        try:
            files.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as failure:
            raise error("home.unusable", path=str(self.path), detail=str(failure)) from failure
        return files

    def all(self) -> Iterator[OperationFiles]:
        """Yield every operation, the oldest first."""
        if self.operations.is_dir():
            found = [p for p in self.operations.iterdir() if (p / "spec.json").exists()]
            for path in sorted(found, key=lambda p: (p / "spec.json").stat().st_mtime_ns):
                yield OperationFiles(path)

    def find(self, operation: str) -> OperationFiles:
        """Return an operation by its id or an unambiguous beginning of it."""
        ids = {files.id: files for files in self.all()}
        matching = [id for id in ids if id == operation] or [id for id in ids if id.startswith(operation)]
        if len(matching) != 1 or not operation:
            raise error("operation.unknown", operation=operation, known=", ".join(ids) or "none")
        return ids[matching[0]]
