"""What faults have been done to a lab and how each is undone, written down durably before it is done.

One JSON file per fault that stands, in the lab's own directory. Whoever did it takes its file away when it has undone
it; the file of one that was killed stays, and anybody can undo the fault by it (`refimpl.lab.undoing`). What is taken
away with the lab anyway needs no undoing then; mounts that the machine itself sees do, see `unmount_for_removal`.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from refimpl.hosts import process
from refimpl.hosts.command import replace_file
from refimpl.lab.errors import LabError
from refimpl.lab.layout import LabPaths
from refimpl.lab.tools import run_tool
from refimpl.model.group import ProcessRef

SCHEMA_VERSION = 1
_OCTAL = re.compile(r"\\([0-7]{3})")


class UndoKind(StrEnum):
    """How a thing is undone; each may be done twice, and does nothing where nothing was done."""

    THAW = "thaw"
    LINK = "link"
    ONE_WAY = "one-way"
    LIBVIRTD = "libvirtd"
    VIRTLOCKD = "virtlockd"
    UNMOUNT = "unmount"


@dataclass(frozen=True, slots=True)
class Undo:
    """One thing to undo: its kind, and what `refimpl.lab.undoing` needs for it as plain JSON values."""

    kind: UndoKind
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FaultRecord:
    """One fault that stands or is about to: its name, what it strikes, who does it, how it is undone, in this order."""

    id: str
    fault: str
    target: str
    by: ProcessRef
    undo: tuple[Undo, ...]

    @property
    def abandoned(self) -> bool:
        """Whether the process that did it, and would have undone it, is gone."""
        return not process.alive(self.by)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values that `from_json` reads back."""
        undo = [{"kind": str(u.kind), "values": dict(u.values)} for u in self.undo]
        by = self.by.to_json()
        return {"schema": SCHEMA_VERSION, "id": self.id, "fault": self.fault, "target": self.target, "by": by} | {
            "undo": undo
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FaultRecord:
        """Build a record from what `to_json` gave. KeyError, TypeError or ValueError when it is none."""
        undo = tuple(Undo(UndoKind(u["kind"]), u["values"]) for u in data["undo"])
        return cls(data["id"], data["fault"], data["target"], ProcessRef.from_json(data["by"]), undo)


class FaultBook:
    """The faults that stand in one lab. Errors of its files are OSError."""

    def __init__(self, paths: LabPaths) -> None:
        """Use the lab's directory; nothing is made before the first fault."""
        self._paths = paths

    @property
    def directory(self) -> Path:
        """Where the records are, and the small disks of faults that need one."""
        return self._paths.directory / "faults"

    def new_id(self) -> str:
        """Return an id for a fault: six hexadecimal digits."""
        return secrets.token_hex(3)

    def tag(self, id: str) -> str:
        """Return the name that mounts of a fault carry as their source, so that they cannot be mistaken."""
        return f"refimpl-{self._paths.id}-{id}"

    def write(self, record: FaultRecord) -> None:
        """Write a fault down durably. LabError `fault.stands` when the same one strikes the same thing already."""
        standing = next((r for r in self.standing() if (r.fault, r.target) == (record.fault, record.target)), None)
        if standing is not None and standing.id != record.id:
            raise LabError("fault.stands", fault=record.fault, target=record.target, fault_id=standing.id)
        self.directory.mkdir(mode=0o755, exist_ok=True)
        replace_file(self._file(record.id), json.dumps(record.to_json(), indent=1).encode(), 0o600)

    def remove(self, id: str) -> None:
        """Forget a fault that was undone."""
        self._file(id).unlink(missing_ok=True)

    def standing(self) -> tuple[FaultRecord, ...]:
        """Return the faults that stand, by id; a file that is no record is left out."""
        return tuple(self._read())

    def _read(self) -> Iterator[FaultRecord]:
        for path in sorted(self.directory.glob("*.json")) if self.directory.is_dir() else ():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                yield FaultRecord.from_json(json.loads(path.read_text("utf-8")))

    def _file(self, id: str) -> Path:
        return self.directory / f"{id}.json"


def mounts_tagged(tag: str, mountinfo: str) -> list[str]:
    """Return the mount points whose source is this name, the latest first, from the text of a mountinfo file."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[1:2] == [tag]:
            found.append(_OCTAL.sub(lambda m: chr(int(m[1], 8)), before.split()[4]))
    return found[::-1]


def unmount(tag: str, process_directory: Path, enter: Sequence[str] = (), lab_id: str = "") -> list[str]:
    """Take away the mounts of a fault as one process sees them, and return their mount points.

    `process_directory` is that process's below /proc, `enter` the beginning of a command line in its mount namespace. A
    mount that is in use is taken out of sight at once and ends with its last user. LabError when neither can be done.
    """
    points = mounts_tagged(tag, (process_directory / "mountinfo").read_text("utf-8", "replace"))
    for point in points:
        try:
            run_tool(*enter, "umount", point, lab_id=lab_id)
        except LabError:
            run_tool(*enter, "umount", "--lazy", point, lab_id=lab_id)
    return points


def unmount_for_removal(paths: LabPaths) -> list[str]:
    """Take away what faults have mounted where the machine itself sees it; the rest of a fault goes with the lab."""
    book = FaultBook(paths)
    wanted = [r for r in book.standing() if any(u.kind is UndoKind.UNMOUNT and not u.values["host"] for u in r.undo)]
    return [point for record in wanted for point in unmount(book.tag(record.id), Path("/proc/self"), lab_id=paths.id)]
