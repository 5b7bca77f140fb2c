"""Are the VM's disks and media the same on both hosts, and can QEMU move a VM that has them (R5, semantics 2.8).

A disk has to be one file that both hosts see: by its identity, by a file that a probe wrote beside it, by its size; and
the destination has to be able to write to it. A medium that is only read may be a copy of the source's: its content
counts.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterator
from functools import partial

from refimpl.checks import disk_moves
from refimpl.checks.subject import Pair, Subject
from refimpl.model.errors import Problem
from refimpl.model.facts import DiskFact, VmState

MEDIA = frozenset({"cdrom", "floppy"})
SAFE_CACHES = frozenset({"none", "directsync"})
"""Cache modes that keep nothing back from the destination, wherever the disk is (libvirt-qemu 6.2)."""

BLOCKED_FORMATS = {
    "vhdx": "vhdx",
    "vhd": "vpc",
    "vpc": "vpc",
    "vmdk": "vmdk",
    "vdi": "vdi",
    "qcow": "qcow",
    "parallels": "parallels",
}
"""Formats whose driver in QEMU forbids migration, and the driver's name for qemu-img."""


def check(s: Subject) -> Iterator[Problem]:
    """Yield what is wrong with the disks and media of a VM; of one that is off, only that they are not there."""
    if s.pair is not None:
        for disk in _staying(s, s.pair):
            yield from (_medium if disk.device in MEDIA else _disk)(s, s.pair, disk)
            yield from _bases(s, s.pair, disk)
    if s.vm is not None and s.source is not None and s.source.reachable and s.vm.state is not VmState.OFF:
        for disk in s.vm.disks:
            yield from _kind(s, disk, s.vm.name, s.source.name)
    yield from disk_moves.check(s)


def _staying(s: Subject, pair: Pair) -> list[DiskFact]:
    """Return the disks that do not go with the VM, and so have to be there already."""
    return [disk for disk in pair.vm.disks if disk.path not in s.targets]


def _disk(s: Subject, pair: Pair, disk: DiskFact) -> Iterator[Problem]:
    there = pair.destination.disks.get(disk.path)
    found = partial(s.problem, vm=pair.vm.name, path=disk.path)
    if there is None or there.identity is None:
        yield found("disk.missing", pair.destination.name)
    elif there.identity != disk.identity:
        yield found("disk.different", pair.destination.name, there=there.identity, here=str(disk.identity))
    elif there.writable is False and not disk.read_only:
        yield found("disk.read_only", pair.destination.name)
    elif there.probed is False:
        yield found("disk.unshared", pair.destination.name)
    elif _fixed_size(disk) and None not in (sizes := (disk.size_bytes, there.size_bytes)) and len(set(sizes)) > 1:
        yield found("disk.size", pair.destination.name, here_bytes=sizes[0], there_bytes=sizes[1])


def _fixed_size(disk: DiskFact) -> bool:
    """Whether the file keeps its size while the VM runs; both hosts look at it at different moments."""
    return disk.read_only or (disk.format, disk.content) == ("raw", "raw")


def _medium(s: Subject, pair: Pair, disk: DiskFact) -> Iterator[Problem]:
    there = pair.destination.disks.get(disk.path)
    found = partial(s.problem, vm=pair.vm.name, path=disk.path)
    if there is None or there.identity is None:
        yield found("media.missing", pair.destination.name)
    elif there.identity != disk.identity and (differ := _difference(disk, there)) is not None:
        yield found("media.different", pair.destination.name, here=differ[0], there=differ[1])


def _difference(here: DiskFact, there: DiskFact) -> tuple[str, str] | None:
    """Return in what two media differ; None when they do not, or when only a probe can tell."""
    if None not in (here.content_hash, there.content_hash):
        hashes = str(here.content_hash), str(there.content_hash)
        return None if hashes[0] == hashes[1] else hashes
    if here.size_bytes == there.size_bytes:
        return None
    return f"{here.size_bytes} bytes", f"{there.size_bytes} bytes"


def _bases(s: Subject, pair: Pair, disk: DiskFact) -> Iterator[Problem]:
    """Yield files on which a disk is based and which a host was seen not to have, or cannot read as such."""
    here, at = pair.source.disks.get(disk.path, disk), pair.destination.disks.get(disk.path)
    for host, seen in ((pair.source, here), (pair.destination, at)):
        if seen is not None and seen.broken:
            yield s.problem("disk.chain_broken", host.name, vm=pair.vm.name, path=disk.path, detail=seen.broken)
            return
    for path in disk.chain:
        there = pair.destination.disks.get(path)
        if there is not None and there.identity is None:
            yield s.problem("disk.missing", pair.destination.name, vm=pair.vm.name, path=path)


def _kind(s: Subject, disk: DiskFact, vm: str, host: str) -> Iterator[Problem]:
    found = partial(s.problem, vm=vm, path=disk.path)
    if disk.transient:
        yield found("disk.transient", host)
    name = next((f for f in (disk.content, disk.format) if f in BLOCKED_FORMATS), None)
    if name is not None:
        target = shlex.quote(posixpath.splitext(disk.path)[0] + ".qcow2")
        declared = f", though it is defined as {disk.format}" if disk.format not in (None, name) else ""
        driver, quoted = BLOCKED_FORMATS[name], shlex.quote(disk.path)
        yield found("disk.format", host, format=name, declared=declared, driver=driver, quoted=quoted, target=target)
    stays = disk.path not in s.targets and not disk.read_only
    kept_back = disk.cache is not None and disk.cache not in SAFE_CACHES and stays
    if kept_back and disk.shared_file_system is False and disk.device not in MEDIA:
        yield found("disk.cache", host, cache=disk.cache)


def told(s: Subject) -> str | None:
    """Say how many disks were compared and how surely; None when they were not seen from both hosts."""
    if s.pair is None:
        return None
    staying = _staying(s, s.pair)
    disks = [d for d in staying if d.device not in MEDIA]
    media = len(staying) - len(disks)
    theirs = [s.pair.destination.disks.get(d.path) for d in disks]
    surely = "probed by writing" if theirs and all(d and d.probed for d in theirs) else "by identity, not probed"
    text = f"{len(disks)} disk(s) the same from both hosts ({surely})" if disks else "no disks"
    text += f", {media} medium or media there" if media else ""
    moves = disk_moves.told(s)
    return text if moves is None else f"{moves}; {text if staying else 'no others'}"
