"""The group store: claims that all controllers of a group share, so that no two of them move one VM (design 5).

Embedded as one SQLite file beside the lab. Whoever conducts an operation holds its lock file while it lives, so that
two recoveries of one operation exclude each other; whether a claim's controller lives is told by its process.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from refimpl.model.errors import error
from refimpl.model.group import ProcessRef
from refimpl.model.request import Plan

BUSY_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Claim:
    """Who moves a VM: operation, controller (its home directory), process, and the plan, for a lost journal."""

    operation: str
    controller: str
    process: ProcessRef
    plan: Plan


class Store(Protocol):
    """What the conductor needs of a group store."""

    def claim(self, wanted: Claim) -> Claim | None:
        """Take the VM for an operation; the claim that stands in the way is returned instead. Own claims renew."""
        ...

    def release(self, vm_id: str, operation: str) -> None:
        """Give the VM back if this operation has it."""
        ...

    def claims(self) -> tuple[Claim, ...]:
        """Return all claims."""
        ...


class MemoryStore:
    """Claims of one process, for the simulated backend."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}

    def claim(self, wanted: Claim) -> Claim | None:
        """Take the VM unless another operation has it."""
        standing = self._claims.setdefault(wanted.plan.vm_id, wanted)
        return None if standing.operation == wanted.operation else standing

    def release(self, vm_id: str, operation: str) -> None:
        """Give the VM back."""
        standing = self._claims.get(vm_id)
        if standing is not None and standing.operation == operation:
            del self._claims[vm_id]

    def claims(self) -> tuple[Claim, ...]:
        """Return all claims."""
        return tuple(self._claims.values())


class GroupStore:
    """Claims in an SQLite file that all controllers of the group can reach. sqlite3.Error becomes `store.failed`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[str, IO[str]] = {}
        with self._open() as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("CREATE TABLE IF NOT EXISTS claims (vm_id TEXT PRIMARY KEY, operation TEXT, body TEXT)")

    def claim(self, wanted: Claim) -> Claim | None:
        """Take the VM, lock first: a claim without a lock would look like a dead controller's."""
        if not self._lock(wanted.operation):
            return next((c for c in self.claims() if c.operation == wanted.operation), wanted)
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            row = db.execute("SELECT body FROM claims WHERE vm_id = ?", (wanted.plan.vm_id,)).fetchone()
            standing = _claim(row[0]) if row else None
            if standing is None or standing.operation == wanted.operation:
                body = json.dumps(_body(wanted), sort_keys=True)
                values = (wanted.plan.vm_id, wanted.operation, body)
                db.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", values)
                standing = None
            db.execute("COMMIT")
        if standing is not None:
            self._unlock(wanted.operation)
        return standing

    def release(self, vm_id: str, operation: str) -> None:
        """Give the VM back and drop the lock."""
        with self._open() as db:
            db.execute("DELETE FROM claims WHERE vm_id = ? AND operation = ?", (vm_id, operation))
        self._unlock(operation)

    def claims(self) -> tuple[Claim, ...]:
        """Return all claims."""
        with self._open() as db:
            return tuple(_claim(row[0]) for row in db.execute("SELECT body FROM claims ORDER BY operation"))

    def _lock_path(self, operation: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{operation}.lock")

    def _lock(self, operation: str) -> bool:
        if operation in self._held:
            return True
        path = self._lock_path(operation)
        while True:
            file = path.open("a+")
            if not _locks(file):
                file.close()
                return False
            if _is_still(file, path):
                self._held[operation] = file
                return True
            # Whoever held it has taken the name away meanwhile: a lock on what is left of it excludes nobody.
            file.close()

    def _unlock(self, operation: str) -> None:
        file = self._held.pop(operation, None)
        if file is not None:
            self._lock_path(operation).unlink(missing_ok=True)
            file.close()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as db:
                db.execute("PRAGMA synchronous=FULL")
                yield db
        except sqlite3.Error as failure:
            raise error("store.failed", path=str(self._path), detail=str(failure)) from failure


def _locks(file: IO[str]) -> bool:
    # Imported here: a simulated migration runs where there is no fcntl, and needs this module for its claims in memory.
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _body(claim: Claim) -> dict[str, object]:
    return {
        "operation": claim.operation,
        "controller": claim.controller,
        "process": claim.process.to_json(),
        "plan": claim.plan.to_json(),
    }


def _claim(text: str) -> Claim:
    body = json.loads(text)
    process = ProcessRef.from_json(body["process"])
    return Claim(body["operation"], body["controller"], process, Plan.from_json(body["plan"]))
