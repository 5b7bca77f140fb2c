"""Taking a lab away: exactly what its registry and the lab id on the things themselves prove to be its own.

Nothing is chosen by the pattern of a name. What has the right name but another identity is reported and left alone.
Every step may be repeated, so a removal that was itself killed is simply begun again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from refimpl.hosts import process
from refimpl.hosts.namespace import enter_network
from refimpl.hosts.netns import NETNS_DIRECTORY
from refimpl.hosts.stops import stop_point
from refimpl.lab.errors import LabError
from refimpl.lab.faultbook import unmount_for_removal
from refimpl.lab.layout import LAB_VARIABLE, LabPaths
from refimpl.lab.network import netns_identity
from refimpl.lab.registry import Content, Entry, Kind, Registry
from refimpl.lab.tools import run_tool
from refimpl.model.group import ProcessRef

_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """Something that was not removed: what it is and why it was left."""

    kind: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Removal:
    """What the removal of one lab did: the things that it removed, and those that it left."""

    lab_id: str
    removed: tuple[str, ...] = ()
    left_behind: tuple[LeftBehind, ...] = ()


@dataclass(slots=True)
class Remover:
    """Removes one lab; the caller holds the lab's lock. Used once."""

    lab: LabPaths
    removed: list[str] = field(default_factory=list)
    left: list[LeftBehind] = field(default_factory=list)

    def run(self) -> Removal:
        """Remove everything that is provably the lab's, the registry last, and report."""
        registry = Registry(self.lab.registry)
        content = registry.read()
        if content.notes:
            registry.note("removing")
            self._end_processes(content)
            stop_point("removing.processes-ended")
            self._undo_mounts()
            self._remove_networks(content)
            stop_point("removing.networks-gone")
        self._remove_directory(content)
        return Removal(self.lab.id, tuple(self.removed), tuple(self.left))

    def _end_processes(self, content: Content) -> None:
        # The inits go first: with each the kernel ends all that lives in its pid namespace.
        for ref in [*recorded_processes(content), *recorded_processes(content, Kind.SERVICE)]:
            if process.alive(ref):
                self._kill(ref)
        for _ in range(_ROUNDS):
            found = [p for p in carriers(self.lab.id) if p not in own_line()]
            if not found:
                break
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    self._kill(process.here(pid))
        reason = "it could not be ended, or is the caller of this removal"
        self.left += [LeftBehind("process", str(p), reason) for p in carriers(self.lab.id)]

    def _undo_mounts(self) -> None:
        """Take away what a fault has mounted; what else faults did goes with processes and namespaces."""
        try:
            self.removed += [f"mount {point}" for point in unmount_for_removal(self.lab)]
        except (LabError, OSError) as failure:
            self.left.append(LeftBehind("mount", "of a fault", str(failure)))

    def _kill(self, ref: ProcessRef) -> None:
        if process.kill(ref):
            self.removed.append(f"process {ref.pid}")

    def _remove_networks(self, content: Content) -> None:
        for entry in content.of(Kind.NETNS):
            name = entry.item.name
            if not (NETNS_DIRECTORY / name).exists():
                continue
            reason = self._foreign_reason(entry)
            if reason:
                self.left.append(LeftBehind("network namespace", name, reason))
            else:
                self._remove_namespace(name, [e for e in content.of(Kind.LINK) if e.item.within == name])

    def _foreign_reason(self, entry: Entry) -> str:
        """Return why a network namespace of the announced name is not provably the lab's, or nothing."""
        name = entry.item.name
        if entry.identities:
            same = dict(netns_identity(name)) in [dict(i) for i in entry.identities]
            return "" if same else "its inode is not that of the namespace that the lab made"
        # Killed between making and writing down: only a namespace in which nothing happened yet is taken for that.
        return "" if _is_virgin(name) else "the lab announced this name, but did not record that it made it"

    def _remove_namespace(self, name: str, links: Iterable[Entry]) -> None:
        inode = netns_identity(name)["inode"]
        guests = [p for p in process.all_pids() if process.namespace_inode(p, "net") == inode]
        reason = f"it runs inside the network namespace {name} but does not carry the lab's id"
        self.left += [LeftBehind("process", str(p), reason) for p in guests if p not in own_line()]
        doomed = [e.item.name for e in links]
        doomed = sorted(set(doomed) & _link_names(name)) if doomed else []
        if doomed:
            lines = "".join(f"link delete dev {link}\n" for link in doomed)
            # A cable goes by itself when the namespace of its other end goes, even while we look at it.
            with contextlib.suppress(LabError):
                run_tool("ip", "-n", name, "-force", "-batch", "-", lab_id=self.lab.id, stdin=lines)
            self.removed += [f"link {link}" for link in doomed]
        run_tool("ip", "netns", "delete", name, lab_id=self.lab.id)
        self.removed.append(f"network namespace {name}")

    def _remove_directory(self, content: Content) -> None:
        directory = self.lab.directory
        if not directory.exists():
            return
        reason = self._directory_reason(content)
        if reason:
            self.left.append(LeftBehind("directory", str(directory), reason))
            return
        kept = {self.lab.registry.name, self.lab.lock.name}
        for path in sorted(directory.iterdir()):
            if path.name not in kept:
                _remove_path(path)
        if self.left:
            # What is left needs the registry: it says what was whose.
            return
        self.lab.registry.unlink(missing_ok=True)
        self.lab.lock.unlink(missing_ok=True)
        directory.rmdir()
        self.removed.append(f"directory {directory}")

    def _directory_reason(self, content: Content) -> str:
        directory = self.lab.directory
        if not content.notes:
            unknown = {p.name for p in directory.iterdir()} - {self.lab.registry.name, self.lab.lock.name}
            return "it has no registry that would say what it is" if unknown else ""
        found = directory_identity(directory)
        known = [dict(i) for e in content.of(Kind.DIRECTORY) for i in e.identities]
        if dict(found) not in known:
            return "it is not the directory that the lab made"
        mounts = mounts_below(directory, Path("/proc/self/mountinfo"))
        return f"something is mounted below it: {mounts[0]}" if mounts else ""


def directory_identity(path: Path) -> Mapping[str, int | str]:
    """Return what identifies a directory. OSError when it does not exist."""
    found = path.stat(follow_symlinks=False)
    return {"device": found.st_dev, "inode": found.st_ino}


def recorded_processes(content: Content, kind: Kind = Kind.PROCESS) -> list[ProcessRef]:
    """Return the processes of a registry, those of init first, in the order in which they were made."""
    entries = sorted(content.of(kind), key=lambda e: not e.item.name.startswith("init "))
    return [ProcessRef(int(i["pid"]), int(i["start_ticks"]), str(i["boot_id"])) for e in entries for i in e.identities]


def carriers(lab_id: str) -> list[int]:
    """Return the pids of all processes whose environment carries exactly this lab's id, zombies not among them."""
    return [p for p in process.all_pids() if process.environment_value(p, LAB_VARIABLE) == lab_id]


def own_line() -> frozenset[int]:
    """Return the pids of this process and of those that it descends from: a removal never ends its own caller."""
    me = psutil.Process()
    return frozenset([me.pid, *(p.pid for p in me.parents())])


def mounts_below(directory: Path, mountinfo: Path) -> list[str]:
    """Return the mount points at or below a directory, as one process's mount table shows them."""
    prefix = str(directory)
    points = [line.split()[4] for line in mountinfo.read_text(errors="replace").splitlines()]
    return [p for p in points if p == prefix or p.startswith(prefix + "/")]


def _is_virgin(netns: str) -> bool:
    found = os.stat(NETNS_DIRECTORY / netns)
    if found.st_dev != os.stat("/proc/self/ns/net").st_dev:
        # A plain file: whoever made it was killed before a namespace was mounted on it.
        return stat.S_ISREG(found.st_mode) and found.st_size == 0
    inhabited = any(process.namespace_inode(p, "net") == found.st_ino for p in process.all_pids())
    return not inhabited and _link_names(netns) == {"lo"}


def _link_names(netns: str) -> set[str]:
    shown = run_tool(*enter_network(netns), "ip", "-j", "link", "show")
    return {link["ifname"] for link in json.loads(shown or "[]")}


def _remove_path(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
