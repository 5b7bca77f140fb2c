"""The lab's registry: what it is about to make is written down durably before it is made, its identity afterwards.

One JSON object per line, appended and flushed to the disk. An entry without identity means: perhaps made, perhaps not.
A line that a killed writer left unfinished is ignored, as nothing that it announces was begun.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

Identity = Mapping[str, int | str]


class Kind(StrEnum):
    """What kind of thing was made."""

    DIRECTORY = "directory"
    NETNS = "netns"
    LINK = "link"
    PROCESS = "process"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to be made: its kind, its name, and for a link the network namespace in which it stands."""

    kind: Kind
    name: str
    within: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was announced; `identities` holds what identified it each time that it was made."""

    item: Item
    identities: tuple[Identity, ...] = ()


@dataclass(frozen=True, slots=True)
class Content:
    """All that a registry says: its entries in the order of their announcement, and its notes by name."""

    entries: tuple[Entry, ...] = ()
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of(self, kind: Kind) -> tuple[Entry, ...]:
        """Return the entries of one kind."""
        return tuple(e for e in self.entries if e.item.kind is kind)


class Registry:
    """Appends to a registry file; may be used from several threads. Errors of the file are OSError."""

    def __init__(self, path: Path) -> None:
        """Use this file, which is made with the first record."""
        self._path = path
        self._lock = threading.Lock()

    def announce(self, items: Iterable[Item]) -> None:
        """Write down durably that these things are about to be made."""
        self._append([{"record": "intent", **_item_json(i)} for i in items])

    def made(self, identities: Mapping[Item, Identity]) -> None:
        """Write down durably what identifies things that now exist."""
        self._append([{"record": "made", **_item_json(i), "identity": dict(d)} for i, d in identities.items()])

    def note(self, name: str, **values: str | int) -> None:
        """Write down durably that the lab has reached a point: `lab`, `complete`, `removing`."""
        self._append([{"record": "note", "name": name, "values": values}])

    def read(self) -> Content:
        """Return all that the registry says; a file that does not exist says nothing."""
        try:
            lines = self._path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return Content()
        return _content(_whole(lines))

    def _append(self, records: Iterable[Mapping[str, Any]]) -> None:
        data = b"".join(json.dumps(r, sort_keys=True).encode() + b"\n" for r in records)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        with self._lock:
            descriptor = os.open(self._path, flags, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                # A line that a killed writer left unfinished must not swallow the next one.
                cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                os.write(descriptor, b"\n" + data if cut else data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _item_json(item: Item) -> dict[str, str]:
    return {"kind": item.kind, "name": item.name, "within": item.within}


def _whole(lines: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


def _content(records: Iterable[Mapping[str, Any]]) -> Content:
    found: dict[Item, list[Identity]] = {}
    notes: dict[str, Mapping[str, Any]] = {}
    for record in records:
        if record["record"] == "note":
            notes[record["name"]] = record["values"]
            continue
        identities = found.setdefault(Item(Kind(record["kind"]), record["name"], record["within"]), [])
        if record["record"] == "made":
            identities.append(record["identity"])
    return Content(tuple(Entry(item, tuple(ids)) for item, ids in found.items()), notes)
