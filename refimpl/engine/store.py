"""The group store: claims and host settings that all controllers of a group share (docs/adr/0007).

No two controllers move one VM, nor pass a host's limit together: a claim is judged and taken in one transaction.
Embedded as one SQLite file beside the lab. Whoever conducts an operation holds its lock file while it lives, so that
two recoveries of one operation exclude each other; whether a claim's controller lives is told by its process.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Protocol, TypeVar

from refimpl.model.errors import RefimplError, error
from refimpl.model.facts import Facts
from refimpl.model.group import ProcessRef
from refimpl.model.request import Plan
from refimpl.model.settings import HostSettings

BUSY_TIMEOUT_S = 10.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Claim:
    """Who moves a VM: operation, controller (its home directory), process, and the plan, for a lost journal."""

    operation: str
    controller: str
    process: ProcessRef
    plan: Plan


@dataclass(frozen=True, slots=True)
class LimitReached:
    """A host that takes part in as many migrations as it may (R7): the limit, and the operations that fill it."""

    host: str
    limit: int
    operations: tuple[str, ...]


class Store(Protocol):
    """What the conductor needs of a group store. `store.failed` when it does not answer."""

    def claim(self, wanted: Claim, *, bounded: bool = True) -> Claim | LimitReached | None:
        """Take the VM for an operation, or return what stands in the way. Own claims renew.

        `bounded` off leaves the hosts' limits out, for an operation that has begun already.
        """
        ...

    def settings(self) -> Mapping[str, HostSettings]:
        """Return the settings of every host that has some of its own."""
        ...

    def change_settings(self, host: str, change: Callable[[HostSettings], HostSettings]) -> HostSettings:
        """Change a host's settings in one transaction and return what they are now."""
        ...

    def release(self, vm_id: str, operation: str) -> None:
        """Give the VM back if this operation has it."""
        ...

    def claims(self) -> tuple[Claim, ...]:
        """Return all claims."""
        ...


def completed(facts: Facts, store: Store, operation: str) -> Facts:
    """Return facts with the group store's part in them; what the operation itself takes part in does not count."""
    try:
        settings, claims = store.settings(), store.claims()
    except RefimplError as failure:
        return replace(facts, store_problem=failure.problems[0])
    others = [c for c in claims if c.operation != operation]
    moving = {host: tuple(c.operation for c in others if host in _hosts(c)) for host in facts.hosts}
    return replace(facts, settings=settings, moving=moving)


class MemoryStore:
    """Claims and settings of one process, for the simulated backend."""

    def __init__(self, settings: Mapping[str, HostSettings] | None = None) -> None:
        self._claims: dict[str, Claim] = {}
        self._settings = dict(settings or {})

    def claim(self, wanted: Claim, *, bounded: bool = True) -> Claim | LimitReached | None:
        """Take the VM unless another operation has it or a host is at its limit."""
        refusal = _refusal(wanted, tuple(self._claims.values()), self._settings if bounded else None)
        if refusal is None:
            self._claims[wanted.plan.vm_id] = wanted
        return refusal

    def release(self, vm_id: str, operation: str) -> None:
        """Give the VM back."""
        standing = self._claims.get(vm_id)
        if standing is not None and standing.operation == operation:
            del self._claims[vm_id]

    def claims(self) -> tuple[Claim, ...]:
        """Return all claims."""
        return tuple(self._claims.values())

    def settings(self) -> Mapping[str, HostSettings]:
        """Return all settings."""
        return dict(self._settings)

    def change_settings(self, host: str, change: Callable[[HostSettings], HostSettings]) -> HostSettings:
        """Change a host's settings."""
        self._settings[host] = change(self._settings.get(host, HostSettings()))
        return self._settings[host]


class GroupStore:
    """Claims in an SQLite file that all controllers of the group can reach. sqlite3.Error becomes `store.failed`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[str, IO[str]] = {}
        with self._open() as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("CREATE TABLE IF NOT EXISTS claims (vm_id TEXT PRIMARY KEY, operation TEXT, body TEXT)")
            db.execute("CREATE TABLE IF NOT EXISTS settings (host TEXT PRIMARY KEY, body TEXT)")

    def claim(self, wanted: Claim, *, bounded: bool = True) -> Claim | LimitReached | None:
        """Take the VM, lock first: a claim without a lock would look like a dead controller's."""
        held = wanted.operation in self._held
        if not self._lock(wanted.operation):
            return next((c for c in self.claims() if c.operation == wanted.operation), wanted)
        try:
            return self._claim_locked(wanted, bounded)
        except RefimplError:
            if not held:
                self._unlock(wanted.operation)
            raise

    def _claim_locked(self, wanted: Claim, bounded: bool) -> Claim | LimitReached | None:
        with self._writing() as db:
            refusal = _refusal(wanted, _all_claims(db), _all_settings(db) if bounded else None)
            if refusal is None:
                body = json.dumps(_body(wanted), sort_keys=True)
                values = (wanted.plan.vm_id, wanted.operation, body)
                db.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", values)
        if refusal is not None:
            self._unlock(wanted.operation)
        return refusal

    def release(self, vm_id: str, operation: str) -> None:
        """Give the VM back and drop the lock."""
        with self._open() as db:
            db.execute("DELETE FROM claims WHERE vm_id = ? AND operation = ?", (vm_id, operation))
        self._unlock(operation)

    def claims(self) -> tuple[Claim, ...]:
        """Return all claims."""
        with self._open() as db:
            return _all_claims(db)

    def settings(self) -> Mapping[str, HostSettings]:
        """Return the settings of every host that has some of its own."""
        with self._open() as db:
            return _all_settings(db)

    def change_settings(self, host: str, change: Callable[[HostSettings], HostSettings]) -> HostSettings:
        """Change a host's settings in one transaction."""
        with self._writing() as db:
            changed = change(_all_settings(db).get(host, HostSettings()))
            body = json.dumps(changed.to_json(), sort_keys=True)
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (host, body))
        return changed

    def _lock_path(self, operation: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{operation}.lock")

    def _lock(self, operation: str) -> bool:
        try:
            return operation in self._held or self._lock_anew(operation, self._lock_path(operation))
        except OSError as failure:
            raise self._failed(failure) from failure

    def _lock_anew(self, operation: str, path: Path) -> bool:
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
            with file:
                try:
                    self._lock_path(operation).unlink(missing_ok=True)
                except OSError as failure:
                    raise self._failed(failure) from failure

    def _failed(self, failure: Exception) -> RefimplError:
        return error("store.failed", path=str(self._path), detail=str(failure))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Give a connection in a transaction that others wait for; undone when what is inside fails."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as db:
                db.execute("PRAGMA synchronous=FULL")
                yield db
        except sqlite3.Error as failure:
            raise self._failed(failure) from failure


def _refusal(
    wanted: Claim, claims: Sequence[Claim], settings: Mapping[str, HostSettings] | None
) -> Claim | LimitReached | None:
    """Return what stands in the way of a claim, the VM's own claim before the hosts' limits."""
    others = [c for c in claims if c.operation != wanted.operation]
    standing = next((c for c in others if c.plan.vm_id == wanted.plan.vm_id), None)
    if standing is not None or settings is None:
        return standing
    for host in _hosts(wanted):
        limit = settings.get(host, HostSettings()).maximum_migrations
        moving = tuple(c.operation for c in others if host in _hosts(c))
        if len(moving) >= limit:
            return LimitReached(host, limit, moving)
    return None


def _hosts(claim: Claim) -> tuple[str, str]:
    return claim.plan.source, claim.plan.destination


def _all_claims(db: sqlite3.Connection) -> tuple[Claim, ...]:
    rows = db.execute("SELECT body FROM claims ORDER BY operation")
    return tuple(_read(_claim, body) for (body,) in rows)


def _all_settings(db: sqlite3.Connection) -> Mapping[str, HostSettings]:
    rows = db.execute("SELECT host, body FROM settings ORDER BY host")
    return {host: _read(lambda text: HostSettings.from_json(json.loads(text)), body) for host, body in rows}


def _read(read: Callable[[str], T], body: str) -> T:
    """Read a row. One that another version has written, or nobody, is a fault of the store like any other."""
    try:
        return read(body)
    except (ValueError, KeyError, TypeError, AttributeError) as failure:
        raise sqlite3.DataError(f"a row cannot be read ({type(failure).__name__}: {failure})") from failure


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
