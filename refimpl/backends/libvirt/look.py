"""Looking at a host: one helper process per look answers everything that is not libvirt's to tell.

The questions are `hostside`'s functions. What the host cannot tell is None; only a host that is down is an OSError.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from refimpl.hosts.channel import HostChannel
from refimpl.model.facts import ClockFact, DiskFact, TargetFact

ASK_TIMEOUT_S = 10.0
_SHARED = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "gfs2", "ocfs2", "afs", "lustre", "gpfs", "fuse.glusterfs"}
)
"""File systems that libvirt takes for shared by hosts, whatever its settings say."""
_SETTING = re.compile(r"^\s*shared_filesystems\s*=\s*\[([^\]]*)\]", re.MULTILINE)
_TEXT = re.compile(r'"([^"]*)"')


@cache
def program() -> str:
    """Return the text of the program that runs on the host."""
    return files("refimpl.backends.libvirt").joinpath("hostside.py").read_text("utf-8")


class Look:
    """One look at a host; the helper starts with it and ends with `close`."""

    def __init__(self, channel: HostChannel) -> None:
        """Start the helper without waiting for it. OSError when the host is down."""
        self.channel = channel
        self._talk = channel.talk(program())

    def close(self) -> None:
        """End the look, and whatever it has left on the host."""
        self._talk.close()

    def ask(self, do: str, timeout_s: float = ASK_TIMEOUT_S, **values: Any) -> Any:
        """Return the answer to one question. OSError when the host is down, does not answer or says no."""
        told = self._talk.ask({"do": do, **values}, timeout_s)
        if "why" in told:
            raise OSError(told["why"])
        return told["answer"]

    def clock(self) -> tuple[ClockFact, float]:
        """Return the host's clock, and the caller's in the middle between question and answer."""
        self.ask("modes", paths=[])  # the helper has to be there, or its start would count
        before, started = time.time(), time.monotonic()
        now_s = self.ask("clock")
        half_s = (time.monotonic() - started) / 2
        return ClockFact(now_s, half_s), before + half_s

    def modes(self, paths: Sequence[str]) -> Mapping[str, int]:
        """Return the permission bits of files that are there."""
        return {path: bits for path, bits in self.ask("modes", paths=list(paths)).items() if isinstance(bits, int)}

    def place(self, path: str) -> tuple[int, int] | None:
        """Return device and inode of a file, None when it is not there."""
        found = self.ask("places", paths=[path]).get(path)
        return (found[0], found[1]) if isinstance(found, list) else None

    def disks(self, defined: Mapping[str, DiskFact]) -> dict[str, Seen]:
        """Return how the host sees files, by path; what it does not see has no identity."""
        if not defined:
            return {}
        answer = self.ask("files", paths=list(defined), formats={path: disk.format for path, disk in defined.items()})
        shared = _shared_directories(self.channel)
        return {path: Seen(disk, answer.get(path) or {}, shared) for path, disk in defined.items()}

    def targets(self, paths: Sequence[str]) -> dict[str, TargetFact]:
        """Return how the places look to which disks would go; of one that could not be looked at only that."""
        if not paths:
            return {}
        answer = self.ask("targets", paths=list(paths))
        return {path: _target(path, answer.get(path) or {"why": "it does not answer in time"}) for path in paths}


def _target(path: str, told: Mapping[str, Any]) -> TargetFact:
    return TargetFact(path, directory=told["why"]) if "why" in told else TargetFact(path, **told)


class Seen:
    """A disk as a definition has it and as a host sees its file."""

    def __init__(self, disk: DiskFact, told: Mapping[str, Any], shared: Sequence[str]) -> None:
        """Put both together; `shared`: directories that the host's settings call shared."""
        there = "identity" in told
        self.modified_ns: int = told.get("modified", 0)
        self.fact = replace(
            disk,
            identity=told.get("identity"),
            size_bytes=told.get("size"),
            content=told.get("content"),
            chain=tuple(told.get("chain") or ()),
            shared_file_system=_is_shared(disk.path, told["file_system"], shared) if there else None,
            writable=told.get("writable"),
            virtual_size_bytes=told.get("virtual"),
            allocated_bytes=told.get("allocated"),
            broken=told.get("broken") or "",
        )


def _is_shared(path: str, file_system: str, shared: Sequence[str]) -> bool:
    return file_system in _SHARED or any(path.startswith(f"{directory.rstrip('/')}/") for directory in shared)


def _shared_directories(channel: HostChannel) -> list[str]:
    try:
        text = channel.read("/etc/libvirt/qemu.conf").decode(errors="replace")
    except FileNotFoundError:
        return []
    found = _SETTING.search(text)
    return _TEXT.findall(found[1]) if found else []
