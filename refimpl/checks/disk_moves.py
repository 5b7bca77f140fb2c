"""Can the VM's disks go where they are wanted, and the plan of what moves (R17, semantics 1.6 and 2.8).

At the destination: does the directory exist, may it be used, does it take writes, is the name free, and is there room;
at the source: is the image whole, and is it still the one that was looked at first. Space is compared twice: what the
disks take now has to fit, what they may grow to is only a warning, as images grow by what the guest writes.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from functools import partial

from refimpl.checks.subject import Pair, Subject
from refimpl.model.errors import Problem, Value
from refimpl.model.facts import DiskFact, HostFacts, TargetFact, VmState
from refimpl.model.phase import Side
from refimpl.model.request import Plan
from refimpl.model.storage import DiskMove, SourceFile, StoragePlan, StorageWish, conflict

MIB = 1 << 20
COPIED = frozenset({"raw", "qcow2"})
"""Formats of disks that move: a mirror writes them, and their virtual size is told by the file itself."""


def check(s: Subject) -> Iterator[Problem]:
    """Yield what keeps disks from going where they are wanted."""
    wish = s.request.storage
    if wish is None:
        return
    wrong = conflict(wish)
    if wrong is not None:
        yield Problem("storage.options", {"vm": s.request.vm, "detail": wrong})
        return
    if s.pair is None:
        return
    if s.pair.vm.state is VmState.OFF:
        yield s.problem("storage.off", s.pair.source.name, vm=s.pair.vm.name)
    yield from _named(s, s.pair, wish)
    moving = _moving(s, s.pair)
    yield from _collisions(s, s.pair, moving)
    for disk, path in moving:
        yield from _source(s, s.pair, disk)
        yield from _target(s, s.pair, wish, disk, path)
    yield from _space(s, s.pair, moving)


def plan(s: Subject) -> StoragePlan | None:
    """Return what moves, None when nothing does. What `check` refuses must not be planned."""
    wish = s.request.storage
    if wish is None or s.pair is None:
        return None
    moves = tuple(_move(disk, path) for disk, path in _moving(s, s.pair))
    removed = () if wish.avoid_removing_vhds else tuple(_removed(s.pair, wish, moves))
    return StoragePlan(moves, removed, wish.allow_overwrite, keep_at_destination=wish.avoid_removing_vhds)


def changed(before: Plan | None, now: Plan) -> Problem | None:
    """Return the problem when a disk that moves is not what the first check saw: another file, or of another size."""
    if before is None or before.storage is None or now.storage is None:
        return None
    known = {disk.source: disk for disk in before.storage.disks}
    for disk in now.storage.disks:
        first = known.get(disk.source)
        if first is None or _image(first) != _image(disk):
            told = "it was not among the disks" if first is None else _told(first)
            values: dict[str, Value] = {"vm": now.vm, "path": disk.source, "before": told, "now": _told(disk)}
            return Problem("storage.changed", {"host": now.source, **values}, side=Side.SOURCE, host=now.source)
    return None


def _image(disk: DiskMove) -> tuple[str, int, tuple[str, ...]]:
    return disk.identity, disk.virtual_size_bytes, disk.chain


def _told(disk: DiskMove) -> str:
    based = f", based on {', '.join(disk.chain)}" if disk.chain else ""
    return f"file {disk.identity}, {disk.virtual_size_bytes} bytes{based}"


def _moving(s: Subject, pair: Pair) -> list[tuple[DiskFact, str]]:
    return [(disk, s.targets[disk.path]) for disk in pair.vm.disks if disk.path in s.targets]


def _named(s: Subject, pair: Pair, wish: StorageWish) -> Iterator[Problem]:
    """Yield disks that are named and are none, and names that would change (R17)."""
    known = [disk.path for disk in pair.vm.disks if disk.moves]
    for source, destination in wish.vhds:
        if source not in known:
            listed = ", ".join(known) or "none"
            yield s.problem("storage.not_a_disk", pair.source.name, vm=pair.vm.name, path=source, known=listed)
        elif posixpath.basename(source) != posixpath.basename(destination):
            yield s.problem("storage.name", pair.destination.name, vm=pair.vm.name, path=source, target=destination)


def _collisions(s: Subject, pair: Pair, moving: list[tuple[DiskFact, str]]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for disk, path in moving:
        other = first.setdefault(path, disk.path)
        if other != disk.path:
            found = {"vm": pair.vm.name, "path": disk.path, "other": other, "target": path}
            yield s.problem("storage.collision", pair.destination.name, **found)


def _source(s: Subject, pair: Pair, disk: DiskFact) -> Iterator[Problem]:
    found = partial(s.problem, vm=pair.vm.name, path=disk.path)
    here = pair.source.disks.get(disk.path, disk)
    if here.broken:
        yield found("storage.chain_broken", pair.source.name, detail=here.broken)
    elif disk.format not in COPIED or here.virtual_size_bytes is None or here.identity is None:
        yield found("storage.not_copied", pair.source.name, format=disk.format or "unknown")


def _target(s: Subject, pair: Pair, wish: StorageWish, disk: DiskFact, path: str) -> Iterator[Problem]:
    host = pair.destination
    there = host.targets.get(path, TargetFact(path, directory="was not looked at"))
    found = partial(s.problem, vm=pair.vm.name, target=path, directory=posixpath.dirname(path))
    user = next((vm.name for vm in host.vms if any(path == used.path for used in vm.disks)), None)
    if there.directory:
        yield found("storage.no_directory", host.name, detail=there.directory)
        return
    if (allowed := _outside(there, host)) is not None:
        yield found("storage.outside", host.name, real=there.real, allowed=allowed)
    if there.writable is False:
        yield found("storage.not_writable", host.name)
    if there.identity is None:
        return
    if there.identity == disk.identity or any(there.identity == _identity(pair.source, base) for base in disk.chain):
        yield found("storage.same_file", host.name, path=disk.path)
    elif user is not None:
        yield found("storage.target_used", host.name, user=user)
    elif not wish.allow_overwrite:
        yield found("storage.target_exists", host.name)


def _identity(host: HostFacts, path: str) -> str | None:
    seen = host.disks.get(path)
    return None if seen is None else seen.identity


def _outside(there: TargetFact, host: HostFacts) -> str | None:
    """Return what is allowed when a directory is not in it: the host's directories for disks, else what was said."""
    allowed = host.storage_directories or (posixpath.dirname(there.path),)
    if any(_within(there.real, posixpath.normpath(directory)) for directory in allowed):
        return None
    return ", ".join(allowed)


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _space(s: Subject, pair: Pair, moving: list[tuple[DiskFact, str]]) -> Iterator[Problem]:
    """Yield for each file system at the destination that what goes there does not fit, or might not one day."""
    places: dict[str, list[tuple[DiskFact, TargetFact]]] = {}
    for disk, path in moving:
        there = pair.destination.targets.get(path)
        if there is not None and there.free_bytes is not None:
            places.setdefault(there.file_system, []).append((disk, there))
    for going in places.values():
        free = min(there.free_bytes or 0 for _, there in going)
        now = sum(_now_bytes(pair.source, disk) for disk, _ in going)
        most = sum(_most_bytes(pair.source, disk) for disk, _ in going)
        figures: Mapping[str, Value] = {
            "count": len(going),
            "directory": posixpath.dirname(going[0][1].path),
            "free_mib": free // MIB,
            "now_mib": -(-now // MIB),
            "most_mib": -(-most // MIB),
        }
        if now > free:
            yield s.problem("storage.no_space", pair.destination.name, vm=pair.vm.name, **figures)
        elif most > free:
            yield s.problem("storage.tight", pair.destination.name, vm=pair.vm.name, **figures)


def _now_bytes(host: HostFacts, disk: DiskFact) -> int:
    """Return what a disk takes with all that it is based on; the destination's file holds all of it."""
    files = (host.disks.get(path) for path in (disk.path, *disk.chain))
    taken = sum(seen.allocated_bytes or 0 for seen in files if seen is not None)
    return min(taken, _most_bytes(host, disk))


def _most_bytes(host: HostFacts, disk: DiskFact) -> int:
    seen = host.disks.get(disk.path, disk)
    return seen.virtual_size_bytes or seen.size_bytes or 0


def _move(disk: DiskFact, path: str) -> DiskMove:
    assert disk.format is not None
    assert disk.virtual_size_bytes is not None
    assert disk.identity is not None
    return DiskMove(disk.path, path, disk.format, disk.virtual_size_bytes, disk.identity, disk.chain)


def _removed(pair: Pair, wish: StorageWish, moves: tuple[DiskMove, ...]) -> Iterator[SourceFile]:
    """Yield the files that go: those of the disks, and what they are based on only where that was asked for."""
    others = {disk.path for vm in pair.source.vms if vm.id != pair.vm.id for disk in vm.disks}
    staying = {disk.path for disk in pair.vm.disks} - {move.source for move in moves}
    seen: set[str] = set()
    for move in moves:
        bases = move.chain if wish.remove_source_unmanaged_vhds else ()
        for path in (move.source, *bases):
            identity = move.identity if path == move.source else _identity(pair.source, path)
            if identity is not None and path not in others | staying | seen:
                seen.add(path)
                yield SourceFile(path, identity)


def told(s: Subject) -> str | None:
    """Say what would move and how much of it; None when nothing does."""
    if s.request.storage is None or s.pair is None:
        return None
    moving = _moving(s, s.pair)
    mib = -(-sum(_most_bytes(s.pair.source, disk) for disk, _ in moving) // MIB)
    places = ", ".join(dict.fromkeys(posixpath.dirname(path) for _, path in moving))
    return f"{len(moving)} disk(s) of {mib} MiB to {places}" if moving else "no disk moves"
