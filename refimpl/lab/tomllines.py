"""On which line of a TOML file a key stands, which the standard library's parser does not tell.

Finds tables, arrays of tables and keys as people write them; of what is inside an inline table or a list it knows the
line of the key that holds it. What cannot be known is not guessed: then the line of the table around it counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Path = tuple[str | int, ...]

_HEADER = re.compile(r"\s*(?P<open>\[\[?)\s*(?P<name>[^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(
    r"""\s*(?P<name>(?:[A-Za-z0-9_-]+|"[^"\\]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"\\]*"|'[^']*'))*)\s*="""
)
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"\\]*"|'[^']*'""")
_LONG_STRINGS = ('"""', "'''")


def lines_of(text: str) -> Mapping[Path, int]:
    """Return the line, from 1, of every table and key; tables of an array are counted from 0."""
    found: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    inside = ""
    for number, line in enumerate(text.splitlines(), 1):
        was_inside, inside = inside, _open_string(line, inside)
        if was_inside:
            continue
        header, key = _HEADER.match(line), _KEY.match(line)
        if header:
            name, is_array = _parts(header["name"]), header["open"] == "[["
            table = _table(name, is_array, counts)
            found.setdefault(table[:-1] if is_array else table, number)
            found.setdefault(table, number)
        elif key:
            found.setdefault(table + _parts(key["name"]), number)
    return found


def line_of(lines: Mapping[Path, int], path: Sequence[str | int]) -> int | None:
    """Return the line of a key, else of the nearest thing around it, else None."""
    ends = range(len(path), 0, -1)
    return next((lines[tuple(path[:end])] for end in ends if tuple(path[:end]) in lines), None)


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(name))


def _table(name: tuple[str, ...], is_array: bool, counts: dict[Path, int]) -> Path:
    """Return the path of a table; a name that leads through an array of tables means its last one."""
    path: Path = ()
    for part in name[:-1]:
        path = (*path, part)
        if path in counts:
            path = (*path, counts[path] - 1)
    path = (*path, name[-1])
    if not is_array:
        return path
    counts[path] = counts.get(path, 0) + 1
    return (*path, counts[path] - 1)


def _open_string(line: str, inside: str) -> str:
    """Return which long string is open at the end of a line, if any."""
    rest = line
    while True:
        if inside:
            _, found, rest = rest.partition(inside)
            if not found:
                return inside
            inside = ""
            continue
        starts = [(rest.find(mark), mark) for mark in _LONG_STRINGS if mark in rest]
        if not starts:
            return ""
        at, inside = min(starts)
        rest = rest[at + len(inside) :]
