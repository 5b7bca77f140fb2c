"""Shared-nothing: which disks a VM takes with it, where they go, and what becomes of the files at the source.

What a user wishes (`StorageWish`, after Hyper-V's parameters of Move-VM and migration settings, semantics 2.8) and
what the checks make of it (`StoragePlan`): a list with nothing left open, so that whoever carries it out, or recovers
it, touches the files that it names and no others.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class StorageWish:
    """What to do with the VM's disks. One of `include` (all of them) and `vhds` (source path, destination path).

    `destination_path`: the directory that all go to; None: the destination's own directory for disks, or, where it
    names none, the same as at the source. Hyper-V's names: IncludeStorage, DestinationStoragePath, VHDs,
    RetainVhdCopiesOnSource, RemoveSourceUnmanagedVhds, AvoidRemovingVHDs, AllowOverwriteExistingFile.
    """

    include: bool = False
    destination_path: str | None = None
    vhds: tuple[tuple[str, str], ...] = ()
    retain_vhd_copies_on_source: bool = False
    remove_source_unmanaged_vhds: bool = False
    avoid_removing_vhds: bool = False
    allow_overwrite: bool = False

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StorageWish:
        """Build a wish from the dictionary of its values."""
        return cls(**{**data, "vhds": tuple((source, destination) for source, destination in data["vhds"])})


@dataclass(frozen=True, slots=True)
class DiskMove:
    """One disk that moves. `source`, `destination`: its file at either host; the file name is the same (R17).

    `identity`: of the source's file, as `DiskFact` has it. `virtual_size_bytes`: what the guest sees, as reported.
    `chain`: files that the source's is based on; the destination's is based on none.
    """

    source: str
    destination: str
    format: str
    virtual_size_bytes: int
    identity: str
    chain: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of the source that goes once the VM was seen to run at the destination, if it still is that file (R3)."""

    path: str
    identity: str


@dataclass(frozen=True, slots=True)
class StoragePlan:
    """What moves, in the order of the VM's disks, and what is removed at the source afterwards.

    `keep_at_destination`: what was copied stays there after a failure too (AvoidRemovingVHDs).
    """

    disks: tuple[DiskMove, ...]
    removed: tuple[SourceFile, ...] = ()
    allow_overwrite: bool = False
    keep_at_destination: bool = False

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StoragePlan:
        """Build a plan from the dictionary of its values."""
        disks = tuple(DiskMove(**{**disk, "chain": tuple(disk["chain"])}) for disk in data["disks"])
        return cls(**{**data, "disks": disks, "removed": tuple(SourceFile(**file) for file in data["removed"])})


def targets(wish: StorageWish, disks: Iterable[str], default_directory: str = "") -> dict[str, str]:
    """Return where disks go, by their paths at the source; those that stay where they are have no entry.

    `default_directory`: the destination's own for disks, empty when it names none.
    """
    if not wish.include:
        named = dict(wish.vhds)
        return {path: named[path] for path in disks if path in named}
    directory = wish.destination_path or default_directory
    return {path: posixpath.join(directory or posixpath.dirname(path), posixpath.basename(path)) for path in disks}


def wish_of(plan: StoragePlan) -> StorageWish:
    """Return a wish that asks for the same, as far as a plan tells."""
    bases = {path for disk in plan.disks for path in disk.chain}
    return StorageWish(
        vhds=tuple((disk.source, disk.destination) for disk in plan.disks),
        remove_source_unmanaged_vhds=any(file.path in bases for file in plan.removed),
        avoid_removing_vhds=plan.keep_at_destination,
        allow_overwrite=plan.allow_overwrite,
    )


def conflict(wish: StorageWish) -> str | None:
    """Return what is wrong with a wish in itself, None when it can be meant."""
    paths = [path for pair in wish.vhds for path in pair]
    paths += [] if wish.destination_path is None else [wish.destination_path]
    if wish.include and wish.vhds:
        return "all disks to one directory, and disks one by one, exclude each other"
    if wish.destination_path is not None and not wish.include:
        return "a directory for the disks is given, but not that they are to move (--include-storage)"
    if not wish.include and not wish.vhds:
        return "it is said what to do with files of disks, but no disk is to move (--include-storage or --vhd)"
    if wish.retain_vhd_copies_on_source and wish.remove_source_unmanaged_vhds:
        return "parents cannot both be kept and be removed at the source"
    if wish.avoid_removing_vhds and wish.remove_source_unmanaged_vhds:
        return "nothing is to be removed, and parents are to be removed at the source"
    relative = next((path for path in paths if path != posixpath.normpath(path) or not path.startswith("/")), None)
    if relative is not None:
        return f"{relative!r} is not a plain absolute path"
    sources = [source for source, _ in wish.vhds]
    if len(set(sources)) < len(sources):
        return "a disk is named twice"
    return None
