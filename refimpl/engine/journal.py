"""The journal of one operation: what the engine knows and what it is about to do, durable before it does it (rule 6).

One SQLite file an operation (WAL, synchronous=FULL). Events are kept too, so that a finished operation stays readable;
they are written with the next intention or when the conductor is idle, never between STOP and RESUME.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from refimpl.model.errors import error
from refimpl.model.events import Event
from refimpl.model.ledger import Ledger
from refimpl.model.phase import Phase
from refimpl.model.request import Command

_TABLES = """
CREATE TABLE IF NOT EXISTS state (one INTEGER PRIMARY KEY CHECK (one = 1), phase TEXT, ledger TEXT, outcome TEXT);
CREATE TABLE IF NOT EXISTS intentions (step INTEGER PRIMARY KEY, phase TEXT, command TEXT);
CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, line TEXT);
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an operation stands by its journal. `outcome` is there once it has ended, `step` is the last one used."""

    phase: Phase
    ledger: Ledger
    outcome: dict[str, Any] | None
    step: int


class Journal(Protocol):
    """What the conductor needs of a journal."""

    def note(self, event: Event) -> None:
        """Remember an event; it becomes durable with the next `flush` or `intend`."""
        ...

    def intend(self, phase: Phase, ledger: Ledger, commands: Sequence[Command], *, durable: bool = True) -> None:
        """Keep where the operation stands and what is about to be done.

        Not durable: it outlives this process, and not for certain the machine; nobody waits for the disk.
        """
        ...

    def flush(self, phase: Phase, ledger: Ledger) -> None:
        """Make durable what was noted."""
        ...

    def end(self, phase: Phase, ledger: Ledger, outcome: dict[str, Any]) -> None:
        """Make the end durable."""
        ...


class NoJournal:
    """A journal that keeps nothing, for the simulated backend in its own process."""

    def note(self, event: Event) -> None:
        """Keep nothing."""

    def intend(self, phase: Phase, ledger: Ledger, commands: Sequence[Command], *, durable: bool = True) -> None:
        """Keep nothing."""

    def flush(self, phase: Phase, ledger: Ledger) -> None:
        """Keep nothing."""

    def end(self, phase: Phase, ledger: Ledger, outcome: dict[str, Any]) -> None:
        """Keep nothing."""


class FileJournal:
    """The journal in one SQLite file. A disk that is full or gone is `journal.failed`.

    `stop_point` is told of every entry when it is written, and before anything else is done: `entry:<phase>:<what>`,
    which is the commands, or the kind of the latest event, or `end`; from the second of a name on with `#<number>`.
    """

    def __init__(self, path: Path, stop_point: Callable[[str], None] = lambda _: None) -> None:
        self._path = path
        self._noted: list[str] = []
        self._latest = ""
        self._stop_point = stop_point
        self._entries: Counter[str] = Counter()
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10.0, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_TABLES)
        except sqlite3.Error as failure:
            raise error("journal.failed", path=str(path), detail=str(failure)) from failure

    def note(self, event: Event) -> None:
        """Remember an event."""
        self._noted.append(json.dumps(event.to_json(), ensure_ascii=False))
        self._latest = event.kind

    def intend(self, phase: Phase, ledger: Ledger, commands: Sequence[Command], *, durable: bool = True) -> None:
        """Write state, intentions and noted events in one transaction."""
        self._write(phase, ledger, None, commands, durable)

    def flush(self, phase: Phase, ledger: Ledger) -> None:
        """Write state and noted events, if there are any."""
        if self._noted:
            self._write(phase, ledger, None, ())

    def end(self, phase: Phase, ledger: Ledger, outcome: dict[str, Any]) -> None:
        """Write the end."""
        self._write(phase, ledger, outcome, ())

    def standing(self) -> Standing | None:
        """Return where the operation stands, None when nothing was ever written."""
        row = self._db.execute("SELECT phase, ledger, outcome FROM state").fetchone()
        if row is None:
            return None
        (step,) = self._db.execute("SELECT COALESCE(MAX(step), 0) FROM intentions").fetchone()
        outcome = json.loads(row[2]) if row[2] else None
        return Standing(Phase(row[0]), Ledger.from_json(json.loads(row[1])), outcome, step)

    def lines(self, after: int = 0) -> list[tuple[int, str]]:
        """Return events as (number, JSON line), those after a number."""
        return self._db.execute("SELECT seq, line FROM events WHERE seq > ? ORDER BY seq", (after,)).fetchall()

    def intentions(self) -> list[tuple[int, str, dict[str, Any]]]:
        """Return (step, phase, command) of everything the engine set out to do."""
        rows = self._db.execute("SELECT step, phase, command FROM intentions ORDER BY step").fetchall()
        return [(step, phase, json.loads(command)) for step, phase, command in rows]

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _write(
        self,
        phase: Phase,
        ledger: Ledger,
        outcome: dict[str, Any] | None,
        commands: Sequence[Command],
        durable: bool = True,
    ) -> None:
        noted = list(self._noted)
        try:
            self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "INSERT OR REPLACE INTO state VALUES (1, ?, ?, ?)",
                (phase, json.dumps(ledger.to_json(), ensure_ascii=False), json.dumps(outcome) if outcome else None),
            )
            rows = [(c.step, phase, json.dumps(c.to_json())) for c in commands]
            self._db.executemany("INSERT OR REPLACE INTO intentions VALUES (?, ?, ?)", rows)
            self._db.executemany("INSERT INTO events (line) VALUES (?)", [(line,) for line in noted])
            self._db.execute("COMMIT")
        except sqlite3.Error as failure:
            self._roll_back()
            raise error("journal.failed", path=str(self._path), detail=str(failure)) from failure
        del self._noted[: len(noted)]
        what = "+".join(command.kind for command in commands) or ("end" if outcome else self._latest)
        self._tell_stop_point(f"entry:{phase}:{what}")

    def _tell_stop_point(self, name: str) -> None:
        self._entries[name] += 1
        self._stop_point(name if self._entries[name] == 1 else f"{name}#{self._entries[name]}")

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            self._db.execute("ROLLBACK")
