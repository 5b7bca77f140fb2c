r"""What the guest says, line by line: the protocol, its parser, and the joining of the files of several hosts.

The guest writes lines to its second serial port; QEMU appends them to a file on the host where the guest runs. One
line is::

    ~BOOT SEQUENCE KIND FIELDS... *CRC\n

BOOT is a random id of this boot (six hexadecimal digits). SEQUENCE counts all lines of the boot from 1 on, whatever
their kind, so that any lost line is seen. CRC is the CRC-32 (eight hexadecimal digits) of everything between `~` and
the space before `*`. A heartbeat datagram has the same form; its kind is `udp`, its SEQUENCE the heartbeat's number.

| kind | fields |
| --- | --- |
| `boot` | name=value...: protocol, time_s (the guest's clock), and the parameters in force |
| `beat` | heartbeat number, counted from 1 |
| `page-at` | page number, its guest-physical address (hex): the last page of the working set |
| `check-start` | pass number: a check of the whole working set begins |
| `check-end` | pass number, pages in the set, bad pages found since the start, number of the first bad page or `-` |
| `bad-page` | page number, generation expected, number and generation found (hex), guest-physical address (hex) |
| `disk` | write number, slot, CRC-32 of the block (hex): written, flushed, read back and found equal |
| `disk-error` | write number, slot, what went wrong (`write`, `flush`, `read`, `differs`, `open-ERRNO`) |
| `command` | verb, value, answer |

At a switch a line can be torn: its first part is the end of the source's file, the rest the start of the destination's.
`join` puts such parts together again; the checksum says whether they belong together.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(rb"~(([0-9a-f]{6}) (\d+) (\S+)((?: \S+)*)) \*([0-9a-f]{8})")
_PIECES = re.compile(rb"~[^~\n]*|[^~\n]+")
_FEW_FRAGMENTS, _MOST_FRAGMENTS = 8, 32

Place = tuple[str, int]
"""Boot id and number of a line."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the guest, and the host whose file it was found in (a torn line: the host of its first part)."""

    boot: str
    sequence: int
    kind: str
    fields: tuple[str, ...]
    host: str = ""


@dataclass(slots=True)
class _Fragment:
    """A piece of a file that is no whole line, and the whole lines next to it in that file."""

    host: str
    piece: bytes
    before: Place | None
    after: Place | None = None


@dataclass(frozen=True, slots=True)
class JoinedLog:
    """The lines of one guest from the files of all its hosts.

    `lines` are ordered by boot (the guest's clock at its start) and sequence, doubles kept. `boots` are the boot ids in
    that order. `reordered` counts lines that stand in a host's file behind a later one of the same boot. `torn` counts
    lines put together from two files; `unreadable` are pieces that belong to no line.
    """

    lines: tuple[Line, ...]
    boots: tuple[str, ...]
    reordered: int
    torn: int
    unreadable: tuple[bytes, ...]

    def of_kind(self, *kinds: str, boot: str | None = None) -> list[Line]:
        """Return the lines of these kinds, of one boot or of all."""
        return [line for line in self.lines if line.kind in kinds and boot in (None, line.boot)]

    def last_sequence(self, boot: str, host: str | None = None) -> int:
        """Return the highest line number of a boot, in one host's file or in all; 0 when there is none."""
        found = (line.sequence for line in self.lines if line.boot == boot and host in (None, line.host))
        return max(found, default=0)


def parse_line(piece: bytes, host: str = "") -> Line | None:
    """Return the line that these bytes are, or None when they are no whole line (end of line not needed)."""
    found = _LINE.fullmatch(piece.strip(b"\r\n"))
    if not found or zlib.crc32(found[1]) != int(found[6], 16):
        return None
    fields = tuple(found[5].decode("ascii", "replace").split())
    return Line(found[2].decode(), int(found[3]), found[4].decode("ascii", "replace"), fields, host)


def read_log(files: Mapping[str, Path]) -> JoinedLog:
    """Join the files of a guest (host name -> file); a file that is not there yet counts as empty."""
    return join({host: path.read_bytes() if path.exists() else b"" for host, path in files.items()})


def join(contents: Mapping[str, bytes]) -> JoinedLog:
    """Join what the guest wrote on each host (host name -> content of its file)."""
    lines: list[Line] = []
    fragments: list[_Fragment] = []
    reordered = 0
    for host, content in contents.items():
        own, broken = _read_file(host, content)
        reordered += _count_reordered(own)
        lines += own
        fragments += broken
    mended, used = _mend(fragments, {(line.boot, line.sequence) for line in lines})
    lines += mended
    boots = _boots_in_order(lines)
    lines.sort(key=lambda line: (boots.index(line.boot), line.sequence))
    left = tuple(fragment.piece for i, fragment in enumerate(fragments) if i not in used)
    return JoinedLog(tuple(lines), boots, reordered, len(mended), left)


def _read_file(host: str, content: bytes) -> tuple[list[Line], list[_Fragment]]:
    lines: list[Line] = []
    fragments: list[_Fragment] = []
    place: Place | None = None
    unplaced: list[_Fragment] = []
    for piece in _PIECES.findall(content):
        line = parse_line(piece, host)
        if line is not None:
            lines.append(line)
            place = (line.boot, line.sequence)
            for fragment in unplaced:
                fragment.after = place
            unplaced = []
        elif piece.strip(b"\r"):
            unplaced.append(_Fragment(host, piece.strip(b"\r"), place))
            fragments.append(unplaced[-1])
    return lines, fragments


def _count_reordered(lines: Iterable[Line]) -> int:
    highest: dict[str, int] = {}
    count = 0
    for line in lines:
        count += line.sequence < highest.get(line.boot, 0)
        highest[line.boot] = max(line.sequence, highest.get(line.boot, 0))
    return count


def _mend(fragments: list[_Fragment], whole: set[Place]) -> tuple[list[Line], set[int]]:
    """Put the parts of torn lines together; a fragment can hold the start of one line and the end of another.

    Which file a part is in does not matter: lines begin alike, so a file may show a whole line where one was torn.
    The whole lines next to a part say which other it belongs to. If a number is missing after that, or the parts
    are few, all are tried with each other; if they are too many for that, those that belong to nothing yet.
    """
    mended: dict[Place, Line] = {}
    used: set[int] = set()

    def attempt(pairs: Iterable[tuple[int, int]]) -> None:
        for i, j in pairs:
            line = _whole(fragments[i].host, fragments[i].piece, fragments[j].piece) if i != j else None
            if line is not None:
                mended[line.boot, line.sequence] = line
                used.update((i, j))

    attempt(_neighbours(fragments))
    attempt(_at_the_end(fragments, whole | mended.keys()))
    if len(fragments) <= _FEW_FRAGMENTS or _some_missing(whole | mended.keys()):
        left = [i for i in range(len(fragments)) if i not in used or len(fragments) <= _MOST_FRAGMENTS]
        left = left if len(left) <= _MOST_FRAGMENTS else []
        attempt((i, j) for i in left for j in left)
    return list(mended.values()), used


def _some_missing(present: Collection[Place]) -> bool:
    highest: dict[str, int] = {}
    for boot, number in present:
        highest[boot] = max(number, highest.get(boot, 0))
    return sum(highest.values()) > len(present)


def _neighbours(fragments: list[_Fragment]) -> list[tuple[int, int]]:
    """Return the pairs of which the first stands behind one line and the second before the next but one."""
    following: dict[Place | None, list[int]] = {}
    for j, fragment in enumerate(fragments):
        following.setdefault(fragment.after, []).append(j)
    heads = ((i, f.before) for i, f in enumerate(fragments) if f.before is not None)
    return [(i, j) for i, (boot, number) in heads for j in following.get((boot, number + 2), ())]


def _at_the_end(fragments: list[_Fragment], known: Collection[Place]) -> list[tuple[int, int]]:
    """Return the pairs of which the first begins a line that is not known, and the second has no line behind it."""
    heads = ((i, f.before) for i, f in enumerate(fragments) if f.before is not None)
    unknown = [i for i, (boot, number) in heads if (boot, number + 1) not in known]
    return [(i, j) for i in unknown for j, fragment in enumerate(fragments) if fragment.after is None]


def _whole(host: str, head: bytes, tail: bytes) -> Line | None:
    if not head.startswith(b"~"):
        return None
    for end in range(len(head), 0, -1):
        for start in range(len(tail) + 1):  # up to nothing: only the end of the line may be elsewhere
            line = parse_line(head[:end] + tail[start:], host)
            if line is not None:
                return line
    return None


def _boots_in_order(lines: Iterable[Line]) -> tuple[str, ...]:
    started: dict[str, int] = {}
    for line in lines:
        started.setdefault(line.boot, 0)
        if line.kind == "boot":
            started[line.boot] = int(named_fields(line).get("time_s", "0"))
    return tuple(sorted(started, key=lambda boot: started[boot]))


def named_fields(line: Line) -> dict[str, str]:
    """Return the name=value fields of a line."""
    return dict(field.split("=", 1) for field in line.fields if "=" in field)
