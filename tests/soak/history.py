"""The history of a soak: one JSON line per move, written as soon as it is over, and what comes of all of them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.soak import modelled

SCHEMA_VERSION = 1
HISTORY = "history.jsonl"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Violation:
    """Something that must never be, with what was seen."""

    what: str
    seen: str

    def to_json(self) -> dict[str, str]:
        return {"what": self.what, "seen": self.seen}


WHAT = {
    "two-running": "two copies ran at the same time",
    "stale-ran": "a copy went on that another had left behind: what the VM did there since is gone",
    "none-running": "the VM runs nowhere, though its memory was not lost under any fault's claim",
    "write-lost": "a write that the guest had acknowledged is not on the storage",
    "left-behind": "something of the move is left: claim, mark, port, file, lease",
    "untrue-end": "the end says something else than what is",
    "no-end": "the move, or its recovery, came to no end",
    "not-modelled": "what the engine was told and did could not have happened in the model of the hand-over",
    "not-recoverable": "with all faults undone, recovery still needs a person",
}
"""Every kind of violation, in words."""


LIMITS = {
    "stale-ran": "the destination ran and ended, and libvirt let the copy go on that the source still had",
    "write-lost": "what the destination had acknowledged until then is on its own disk alone",
}
"""What a delegated hand-over cannot exclude, in words: counted apart, and a violation under any other hand-over."""

LEFT_TO_A_PERSON = "power-loss"
"""The one limit that is not of a hand-over: see `NOT_TOLD`."""

NOT_TOLD = (
    "the source died in a host without power, or one that did not answer, after all had arrived and before it was seen "
    "bound: whether it had taken the VM back cannot be known, so that the whole memory stays paused at the destination "
    "until a person decides"
)


@dataclass
class Played:
    """One move that was played: its schedule, its end, those of the recoveries after it, and what was found.

    `heard`: the kinds of events that some controller of it heard of; not kept in the history.
    """

    schedule: Row
    ends: list[str] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    verdicts: dict[str, Any] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    limits: list[Violation] = field(default_factory=list)
    heard: set[str] = field(default_factory=set)

    def limited(self, what: str, seen: str) -> None:
        """Note that a limit of the hand-over was met, of each kind once."""
        if what not in [v.what for v in self.limits]:
            self.limits.append(Violation(what, seen))

    def violated(self, what: str, seen: str) -> None:
        """Note a violation, of each kind once."""
        if what not in [v.what for v in self.violations]:
            self.violations.append(Violation(what, seen))

    def to_json(self) -> dict[str, Any]:
        """Return the line of the history."""
        found = {
            "violations": [v.to_json() for v in self.violations],
            "limits": [v.to_json() for v in self.limits],
        }
        parts = {"ends": self.ends, "events": self.events, "verdicts": self.verdicts, **found}
        return {"schema": SCHEMA_VERSION, "schedule": dict(self.schedule), **parts}


class History:
    """Writes rows to a directory, each durable before the next move begins; an older history there is replaced."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / HISTORY
        self.path.unlink(missing_ok=True)
        self.rows: list[Row] = []

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows."""
        with self.path.open("a", encoding="utf-8") as output:
            output.writelines(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
            output.flush()
            os.fsync(output.fileno())
        self.rows += rows


def schedules(path: Path) -> Iterator[Row]:
    """Yield the schedules of a history, or of a file with one schedule per line. ValueError when it is neither."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            yield row.get("schedule", row)
        except (ValueError, AttributeError) as failure:
            raise ValueError(f"{path}, line {number}: not a line of a history ({failure})") from failure


def table(rows: Sequence[Row]) -> str:
    """Return the histogram of ends and the counts of violations as Markdown."""
    firsts = Counter(row["ends"][0] if row["ends"] else "(none)" for row in rows)
    lasts = Counter(row["ends"][-1] if row["ends"] else "(none)" for row in rows)
    counts = Counter(v["what"] for row in rows for v in row["violations"])
    lines = ["| end | of the move | after recovery |", "| --- | ---: | ---: |"]
    lines += [f"| {end} | {firsts[end]} | {lasts[end]} |" for end in sorted({*firsts, *lasts})]
    lines += ["", "| must never be | seen |", "| --- | ---: |"]
    lines += [f"| {text} | {counts[what]} |" for what, text in WHAT.items()]
    return "\n".join([*lines, *_limits(rows), *modelled.lines(rows)])


def is_delegated(told: Row) -> bool:
    """Whether a schedule asks for a delegated hand-over, as post-copy does by itself."""
    asked = told.get("request", told)
    own = told.get("world", told).get("hand_over") == "delegated"
    return own or asked.get("post_copy", "off") != "off"


def _limits(rows: Sequence[Row]) -> list[str]:
    """Return the lines about what is counted apart; none when there is nothing of it."""
    counts = Counter(v["what"] for row in rows for v in row.get("limits", ()))
    delegated = [row for row in rows if is_delegated(row["schedule"])]
    lines = []
    if delegated:
        head = f"| limit of delegated hand-over, in {len(delegated)} of {len(rows)} moves | seen |"
        lines += ["", head, "| --- | ---: |", *(f"| {text} | {counts[what]} |" for what, text in LIMITS.items())]
    if counts[LEFT_TO_A_PERSON]:
        lines += ["", f"And {counts[LEFT_TO_A_PERSON]} times {NOT_TOLD}."]
    return lines
