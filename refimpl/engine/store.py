"""The group store: claims, owner records and host settings that all controllers of a group share (docs/adr/0007).

No two controllers move one VM, nor pass a host's limit together: a claim is judged and taken in one transaction.
Embedded as one SQLite file beside the lab. Whoever conducts an operation holds its lock file while it lives, so that
two recoveries of one operation exclude each other; whether a claim's controller lives is told by its process.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, NamedTuple, Protocol, Self, TypeVar

from refimpl.model.errors import RefimplError, error
from refimpl.model.facts import Facts
from refimpl.model.group import ProcessRef
from refimpl.model.ownership import OwnerRecord
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
    """A host that takes part in as many migrations as it may (R7): the limit, and the operations that fill it.

    `storage`: it is the limit of those that take disks along.
    """

    host: str
    limit: int
    operations: tuple[str, ...]
    storage: bool = False


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

    def owner(self, vm_id: str, *, wait_s: float = BUSY_TIMEOUT_S) -> OwnerRecord | None:
        """Return the owner record of a VM, None when it has none. `wait_s`: how long to wait for a locked store."""
        ...

    def owners(self) -> tuple[OwnerRecord, ...]:
        """Return all owner records."""
        ...

    def swap_owner(self, before: OwnerRecord | None, after: OwnerRecord, *, wait_s: float = BUSY_TIMEOUT_S) -> bool:
        """Replace the record `before` (None: there is none) by `after`; False, and nothing done, when it is another."""
        ...

    def forget_owner(self, vm_id: str) -> None:
        """Drop the record of a VM that is no more."""
        ...

    def release(self, vm_id: str, operation: str) -> None:
        """Give the VM back if this operation has it."""
        ...

    def abandon(self, operation: str) -> None:
        """Leave a claim as a dead controller leaves it, for whoever recovers."""
        ...

    def claims(self) -> tuple[Claim, ...]:
        """Return all claims."""
        ...


def completed(facts: Facts, store: Store, operation: str) -> Facts:
    """Return facts with the group store's part in them; what the operation itself takes part in does not count."""
    try:
        settings, claims, owners = store.settings(), store.claims(), store.owners()
    except RefimplError as failure:
        return replace(facts, store_problem=failure.problems[0])
    others = [c for c in claims if c.operation != operation]
    moving = {host: tuple(c.operation for c in others if host in _hosts(c)) for host in facts.hosts}
    return replace(facts, settings=settings, moving=moving, owners={record.vm_id: record for record in owners})


class MemoryStore:
    """Claims and settings of one process, for the simulated backend."""

    def __init__(self, settings: Mapping[str, HostSettings] | None = None) -> None:
        self._claims: dict[str, Claim] = {}
        self._owners: dict[str, OwnerRecord] = {}
        self._settings = dict(settings or {})

    def claim(self, wanted: Claim, *, bounded: bool = True) -> Claim | LimitReached | None:
        """Take the VM unless another operation has it or a host is at its limit."""
        refusal = _refusal(wanted, tuple(self._claims.values()), self._settings if bounded else None)
        if refusal is None:
            self._claims[wanted.plan.vm_id] = wanted
        return refusal

    def owner(self, vm_id: str, *, wait_s: float = BUSY_TIMEOUT_S) -> OwnerRecord | None:
        """Return a VM's owner record."""
        return self._owners.get(vm_id)

    def owners(self) -> tuple[OwnerRecord, ...]:
        """Return all owner records."""
        return tuple(self._owners.values())

    def swap_owner(self, before: OwnerRecord | None, after: OwnerRecord, *, wait_s: float = BUSY_TIMEOUT_S) -> bool:
        """Replace a VM's owner record."""
        if self._owners.get(after.vm_id) != before:
            return False
        self._owners[after.vm_id] = after
        return True

    def forget_owner(self, vm_id: str) -> None:
        """Drop a record."""
        self._owners.pop(vm_id, None)

    def release(self, vm_id: str, operation: str) -> None:
        """Give the VM back."""
        standing = self._claims.get(vm_id)
        if standing is not None and standing.operation == operation:
            del self._claims[vm_id]

    def abandon(self, operation: str) -> None:
        """Leave a claim: nothing tells here who is alive."""

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
        """Open a store, and make it where there is none: for whoever makes the group."""
        self._path = path.absolute()
        self._held: dict[str, IO[str]] = {}
        self._kept: _Kept | None = None
        with self._open(make=True) as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("CREATE TABLE IF NOT EXISTS claims (vm_id TEXT PRIMARY KEY, operation TEXT, body TEXT)")
            db.execute("CREATE TABLE IF NOT EXISTS settings (host TEXT PRIMARY KEY, body TEXT)")
            db.execute("CREATE TABLE IF NOT EXISTS owners (vm_id TEXT PRIMARY KEY, body TEXT)")

    @classmethod
    def standing(cls, path: Path) -> Self:
        """Open the store of a group that is there already; `store.missing` when it is not.

        An empty one in the place of one that is only not mounted would let two controllers have one VM.
        """
        if not path.is_file():
            raise error("store.missing", path=str(path))
        return cls(path)

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

    def owner(self, vm_id: str, *, wait_s: float = BUSY_TIMEOUT_S) -> OwnerRecord | None:
        """Return a VM's owner record."""
        with self._swift(wait_s) as db:
            row = db.execute("SELECT body FROM owners WHERE vm_id = ?", (vm_id,)).fetchone()
            return None if row is None else _read(_owner, row[0])

    def owners(self) -> tuple[OwnerRecord, ...]:
        """Return all owner records."""
        with self._open() as db:
            return tuple(_read(_owner, body) for (body,) in db.execute("SELECT body FROM owners ORDER BY vm_id"))

    def swap_owner(self, before: OwnerRecord | None, after: OwnerRecord, *, wait_s: float = BUSY_TIMEOUT_S) -> bool:
        """Replace a VM's owner record in one statement, durable when it returns."""
        body = _owner_body(after)
        with self._swift(wait_s) as db:
            if before is None:
                done = db.execute("INSERT OR IGNORE INTO owners VALUES (?, ?)", (after.vm_id, body))
            else:
                values = (body, before.vm_id, _owner_body(before))
                done = db.execute("UPDATE owners SET body = ? WHERE vm_id = ? AND body = ?", values)
            return done.rowcount == 1

    def forget_owner(self, vm_id: str) -> None:
        """Drop a record."""
        with self._open() as db:
            db.execute("DELETE FROM owners WHERE vm_id = ?", (vm_id,))

    def release(self, vm_id: str, operation: str) -> None:
        """Give the VM back and drop the lock, also when the store fails: what stays is then as a dead controller's."""
        try:
            with self._open() as db:
                db.execute("DELETE FROM claims WHERE vm_id = ? AND operation = ?", (vm_id, operation))
        finally:
            self.abandon(operation)

    def abandon(self, operation: str) -> None:
        """Drop the lock alone."""
        self._unlock(operation)
        if not self._held:
            self._drop_kept()

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
    def _swift(self, wait_s: float) -> Iterator[sqlite3.Connection]:
        """Give the connection that is kept open: closing the last one would flush the whole file, in mid-switch."""
        try:
            db = self._keep_open()
            db.execute(f"PRAGMA busy_timeout = {int(wait_s * 1000)}")
            yield db
        except (sqlite3.Error, OSError) as failure:
            self._drop_kept()
            raise self._failed(failure) from failure

    def _keep_open(self) -> sqlite3.Connection:
        """Return the kept connection, a new one when the file is another than the one that it has open."""
        if self._kept is not None and self._kept.file != _identity(self._path):
            self._drop_kept()
        if self._kept is None:
            file = _identity(self._path)
            db = sqlite3.connect(self._uri(), uri=True, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA synchronous=FULL")
            self._kept = _Kept(db, file)
        return self._kept.db

    def _drop_kept(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            with suppress(sqlite3.Error):
                kept.db.close()

    def _uri(self, *, make: bool = False) -> str:
        """Return how the file is opened: one that is gone is not made anew, as it would be empty."""
        return f"{self._path.as_uri()}?mode={'rwc' if make else 'rw'}"

    @contextmanager
    def _open(self, *, make: bool = False) -> Iterator[sqlite3.Connection]:
        uri = self._uri(make=make)
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as db:
                db.execute("PRAGMA synchronous=FULL")
                yield db
        except sqlite3.Error as failure:
            raise self._failed(failure) from failure


class _Kept(NamedTuple):
    """A connection that stays open, and which file it has open."""

    db: sqlite3.Connection
    file: tuple[int, int]


def _identity(path: Path) -> tuple[int, int]:
    seen = path.stat()
    return seen.st_dev, seen.st_ino


def _owner(text: str) -> OwnerRecord:
    return OwnerRecord.from_json(json.loads(text))


def _owner_body(record: OwnerRecord) -> str:
    return json.dumps(record.to_json(), sort_keys=True)


def _refusal(
    wanted: Claim, claims: Sequence[Claim], settings: Mapping[str, HostSettings] | None
) -> Claim | LimitReached | None:
    """Return what stands in the way of a claim, the VM's own claim before the hosts' limits."""
    others = [c for c in claims if c.operation != wanted.operation]
    standing = next((c for c in others if c.plan.vm_id == wanted.plan.vm_id), None)
    if standing is not None or settings is None:
        return standing
    for host in _hosts(wanted):
        its, there = settings.get(host, HostSettings()), [c for c in others if host in _hosts(c)]
        if len(there) >= its.maximum_migrations:
            return LimitReached(host, its.maximum_migrations, tuple(c.operation for c in there))
        with_disks = tuple(c.operation for c in there if _takes_disks(c))
        if _takes_disks(wanted) and len(with_disks) >= its.maximum_storage_migrations:
            return LimitReached(host, its.maximum_storage_migrations, with_disks, storage=True)
    return None


def _takes_disks(claim: Claim) -> bool:
    return claim.plan.storage is not None and bool(claim.plan.storage.disks)


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
