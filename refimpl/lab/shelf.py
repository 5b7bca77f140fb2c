"""The labs of a machine: reserving a place for a new one, finding one, taking one away, and reaping broken ones.

A lab's directory is its place. Whoever builds or removes a lab holds the lock in it; the kernel frees the lock when
its holder dies, so a lab that is not finished and whose lock is free was left by a builder that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType

from refimpl.hosts import process
from refimpl.hosts.lock import locked
from refimpl.hosts.stops import stop_point
from refimpl.lab import layout
from refimpl.lab.errors import LabError
from refimpl.lab.features import ipv6
from refimpl.lab.layout import LabPaths
from refimpl.lab.reaper import Removal, Remover, directory_identity, recorded_processes
from refimpl.lab.registry import Content, Item, Kind, Registry
from refimpl.lab.requirements import requirements
from refimpl.lab.steps import OnStep, Steps, no_report
from refimpl.lab.wish import Wish

_TRIES = 100
_PROCESSES_PER_HOST = 3  # init, virtlockd, libvirtd


class LabState(StrEnum):
    """How a lab is, judged from its registry, its lock and its processes."""

    BUILDING = "building"
    UP = "up"
    DEGRADED = "degraded"
    OFF = "off"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class LabSummary:
    """One lab as the list shows it; a broken one was left half-made or half-removed, or by an earlier boot."""

    id: str
    name: str
    state: LabState
    complete: bool
    directory: Path


@dataclass(slots=True)
class Place:
    """A lab's directory, held by its lock until the end of the `with` block."""

    paths: LabPaths
    _descriptor: int = field(repr=False)

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


def random_id() -> str:
    """Return a new lab id; the place where it is used sees to it that it is not taken."""
    return secrets.token_hex(3)


def require(wish: Wish, root: Path) -> Wish:
    """Check everything that a lab needs, and return the wish as this machine can fulfil it.

    Without IPv6 in the kernel the networks that every lab has are both IPv4; nobody loses a network that was asked for.
    LabError `lab.requirements` names all that is missing at once.
    """
    missing = [f"{found.name} ({found.text})" for found in requirements(root) if not found.ok]
    with_ipv6 = ipv6()
    if wish.needs_ipv6 and not with_ipv6.ok:
        missing.append(f"{with_ipv6.name} ({with_ipv6.text})")
    if missing:
        raise LabError("lab.requirements", missing=", ".join(missing))
    return wish.with_networks(ipv6=with_ipv6.ok)


def reserve(wish: Wish, root: Path, new_id: Callable[[], str]) -> Place:
    """Make and lock the directory of a new lab. LabError when a lab of that name exists."""
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    with locked(root / ".lock"):
        taken = next((s for s in list_labs(root) if s.name == wish.name), None)
        if taken is not None:
            raise LabError("lab.exists", lab=wish.name, lab_id=taken.id, state=taken.state)
        paths = _make_directory(root, new_id)
        place = Place(paths, _lock(paths.lock))
        _register(paths, wish)
    return place


def find(name_or_id: str, root: Path | None = None) -> LabSummary:
    """Return the lab of that id, else of that name. LabError `lab.unknown`."""
    labs = list_labs(root)
    for summary in (*(s for s in labs if s.id == name_or_id), *(s for s in labs if s.name == name_or_id)):
        return summary
    known = ", ".join(s.name for s in labs) or "none"
    raise LabError("lab.unknown", lab=name_or_id, known=known)


def list_labs(root: Path | None = None) -> tuple[LabSummary, ...]:
    """Return all labs of the state directory, by id."""
    top = root or layout.state_root()
    found = sorted(p.name for p in top.iterdir()) if top.is_dir() else []
    return tuple(_summary(LabPaths(top, n)) for n in found if layout.is_lab_id(n) and (top / n).is_dir())


def remove(paths: LabPaths, on_step: OnStep = no_report) -> Removal:
    """Take one lab away. LabError `lab.busy` while another process builds or removes it."""
    steps = Steps(on_step)
    if not paths.directory.is_dir():
        return Removal(paths.id)
    with steps.step("removal"), Place(paths, _lock(paths.lock)):
        return remove_held(paths)


def remove_held(paths: LabPaths) -> Removal:
    """Take one lab away whose lock the caller holds."""
    return Remover(paths).run()


def reap(names_or_ids: tuple[str, ...] = (), root: Path | None = None) -> tuple[Removal, ...]:
    """Take away the labs named, or, when none is named, every broken one: nothing that somebody still uses."""
    top = root or layout.state_root()
    if not top.is_dir():
        return ()
    # Under this lock nobody is between making a lab's directory and locking it.
    with locked(top / ".lock"):
        labs = [find(n, top) for n in names_or_ids] or [s for s in list_labs(top) if s.state is LabState.BROKEN]
        return tuple(remove(LabPaths(top, s.id)) for s in labs)


def _make_directory(root: Path, new_id: Callable[[], str]) -> LabPaths:
    for _ in range(_TRIES):
        paths = LabPaths(root, new_id())
        if not layout.is_lab_id(paths.id):
            raise ValueError(f"not a lab id: {paths.id!r}")
        with contextlib.suppress(FileExistsError):
            paths.directory.mkdir(mode=0o755)
            return paths
    raise RuntimeError(f"{_TRIES} new lab ids in a row were taken")


def _register(paths: LabPaths, wish: Wish) -> None:
    registry, item = Registry(paths.registry), Item(Kind.DIRECTORY, str(paths.directory))
    stop_point("directory.made")
    registry.made({item: directory_identity(paths.directory)})
    _sync_directory(paths.directory)
    _sync_directory(paths.root)
    registry.note("lab", id=paths.id, label=wish.name, hosts=len(wish.hosts))
    registry.note("keepalive", interval_s=wish.keepalive.interval_s, count=wish.keepalive.count)
    if wish.remark:
        registry.note("remark", text=wish.remark)


def _summary(paths: LabPaths) -> LabSummary:
    content = Registry(paths.registry).read()
    name = str(content.notes.get("lab", {}).get("label", ""))
    complete = "complete" in content.notes and "removing" not in content.notes
    return LabSummary(paths.id, name, _state(paths, content, complete), complete, paths.directory)


def _state(paths: LabPaths, content: Content, complete: bool) -> LabState:
    if not complete:
        return LabState.BUILDING if _is_locked(paths.lock) else LabState.BROKEN
    recorded = recorded_processes(content)
    if all(p.boot_id != process.boot_id() for p in recorded):
        return LabState.BROKEN
    running = sum(process.alive(p) for p in recorded)
    if running == 0:
        return LabState.OFF
    return LabState.UP if running == _PROCESSES_PER_HOST * int(content.notes["lab"]["hosts"]) else LabState.DEGRADED


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise LabError("lab.busy", lab_id=path.parent.name) from error
    return descriptor


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
