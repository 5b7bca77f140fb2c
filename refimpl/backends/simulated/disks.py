"""Disks that lie on one simulated host alone: which files exist where, whose they are, and what they hold.

A file is `whole` when it holds every write that the VM's guest was told is done. Two files are whole as long as a
mirror keeps them the same; when one copy of the VM runs without the mirror, the other file falls behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from refimpl.backends.simulated.worldfile import VmSpec
from refimpl.model.errors import Problem
from refimpl.model.facts import TargetFact
from refimpl.model.phase import Side
from refimpl.model.storage import DiskMove

if TYPE_CHECKING:
    from refimpl.backends.simulated.world import World
    from refimpl.model.request import Plan

MIB = 1 << 20


@dataclass
class File:
    """A file. `vm`: whose disk it holds, None of a stranger's; `operation`: of the move that made it, until it ends."""

    number: int
    size_bytes: int
    vm: str | None = None
    whole: bool = True
    operation: str | None = None
    aside: File | None = None


class Disks:
    """The files of all hosts, by host and path. Disks on shared storage are none of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._made = 0
        self.files: dict[tuple[str, str], File] = {}
        for name, host in world.spec.hosts.items():
            for path in host.files:
                self.files[name, path] = self._file(MIB)
        for vm in world.spec.vms:
            for disk in vm.disks:
                if disk.local:
                    self.files[vm.host, disk.path] = self._file(disk.size_mib * MIB, vm.name)

    def identity(self, host: str, path: str) -> str | None:
        """Return what tells a file from any other, None when there is none."""
        file = self.files.get((host, path))
        return None if file is None else f"{host}:{path}:{file.number}"

    def target(self, host: str, path: str) -> TargetFact:
        """Return how a place looks to which a disk would go."""
        folder = path.rpartition("/")[0]
        spec = self._world.spec.hosts[host].directories.get(folder)
        if spec is None:
            return TargetFact(path, directory="there is no such directory")
        used = sum(f.size_bytes for (h, p), f in self.files.items() if h == host and p.rpartition("/")[0] == folder)
        free = max(0, spec.mib * MIB - used)
        real = spec.real or folder
        return TargetFact(path, self.identity(host, path), "", real, spec.writable, free, f"{host}:{folder}")

    def make(self, operation: str, plan: Plan) -> Problem | None:
        """Make the files of a plan at the destination; return why it cannot be done, and then none is made."""
        if plan.storage is None:
            return None
        refused = next((why for disk in plan.storage.disks if (why := self._refused(operation, plan, disk))), None)
        if refused is not None:
            return refused
        for disk in plan.storage.disks:
            place = plan.destination, disk.destination
            there = self.files.get(place)
            if there is None or there.operation != operation:
                made = self._file(disk.virtual_size_bytes, plan.vm)
                made.whole, made.operation, made.aside = False, operation, there
                self.files[place] = made
        return None

    def mirrored(self, plan: Plan, whole: bool) -> None:
        """Note that the destination's files are kept the same as the source's, or are not any more."""
        for disk in plan.storage.disks if plan.storage else ():
            file = self.files.get((plan.destination, disk.destination))
            if file is not None:
                file.whole = whole

    def written(self, host: str, vm: VmSpec) -> None:
        """The VM runs on a host without a mirror: every file of it but those in use falls behind."""
        used = {(host, disk.path) for disk in vm.disks if disk.local}
        if used:
            for place, file in self.files.items():
                if file.vm == vm.name and place not in used:
                    file.whole = False

    def undo(self, operation: str, plan: Plan) -> list[str]:
        """Remove what an operation has made at the destination, or keep it if the plan says so; return what is kept."""
        kept: list[str] = []
        for place, file in self._of(operation, plan):
            if plan.storage is not None and plan.storage.keep_at_destination:
                file.operation, file.aside = None, None
                kept.append(f"{place[1]} on host {place[0]}")
            elif file.aside is not None:
                self.files[place] = file.aside
            else:
                del self.files[place]
        return kept

    def adopt(self, operation: str, plan: Plan) -> None:
        """The VM has moved: what was made at the destination is its own now."""
        for _, file in self._of(operation, plan):
            file.operation, file.aside = None, None

    def retire(self, plan: Plan) -> None:
        """The VM has moved: what the plan names is removed at the source."""
        if self._world.copy(plan.destination, plan.vm) is None:
            return
        for gone in plan.storage.removed if plan.storage else ():
            if self.identity(plan.source, gone.path) == gone.identity and not self._used(plan.source, gone.path):
                del self.files[plan.source, gone.path]

    def made_by(self, operation: str, plan: Plan) -> list[str]:
        """Return what an operation has made and what is not decided yet."""
        return [f"copied disk {path} on host {host}" for (host, path), _ in self._of(operation, plan)]

    def _of(self, operation: str, plan: Plan) -> list[tuple[tuple[str, str], File]]:
        return [(p, f) for p, f in self.files.items() if p[0] == plan.destination and f.operation == operation]

    def _used(self, host: str, path: str) -> bool:
        copies = (copy for (h, _), copy in self._world.copies.items() if h == host)
        return any(disk.local and disk.path == path for copy in copies for disk in copy.vm.disks)

    def _refused(self, operation: str, plan: Plan, disk: DiskMove) -> Problem | None:
        here = self._seen(plan.source, disk.source)
        if here != disk.identity:
            now = {"before": f"file {disk.identity}", "now": f"file {here}" if here else "gone"}
            values = {"vm": plan.vm, "host": plan.source, "path": disk.source, **now}
            return Problem("storage.changed", values, side=Side.SOURCE, host=plan.source)
        there = self.files.get((plan.destination, disk.destination))
        allowed = plan.storage is not None and plan.storage.allow_overwrite
        if there is not None and there.operation != operation and not allowed:
            values = {"vm": plan.vm, "host": plan.destination, "target": disk.destination}
            return Problem("storage.target_exists", values, side=Side.DESTINATION, host=plan.destination)
        return None

    def _seen(self, host: str, path: str) -> str | None:
        """Return the identity of a source's file; of one on shared storage its path is all there is."""
        return self.identity(host, path) or (f"shared:{path}" if path in self._shared() else None)

    def _shared(self) -> Iterator[str]:
        return (disk.path for vm in self._world.spec.vms for disk in vm.disks if not disk.local)

    def _file(self, size_bytes: int, vm: str | None = None) -> File:
        self._made += 1
        return File(self._made, size_bytes, vm)


def moved(vm: VmSpec, plan: Plan) -> VmSpec:
    """Return a VM as it is at the destination: with the disks where the plan puts them."""
    if plan.storage is None:
        return vm
    going = {disk.source: disk.destination for disk in plan.storage.disks}
    disks = tuple(
        disk.model_copy(update={"path": going[disk.path], "local": True, "chain": ()}) if disk.path in going else disk
        for disk in vm.disks
    )
    return vm.model_copy(update={"disks": disks})
