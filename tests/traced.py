"""Every move that a test has the real engine make is checked against the model of the hand-over, when the test is over.

Conductor processes leave journals, below the directories of the test; conductors in the test's own process are
recorded by whoever makes them (`tests.recorded`). A move that could not have happened in the model fails its test.
What the model is not about is counted as not checked, with the reason; the counts are printed at the end of the run.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from refimpl.app.home import OperationFiles
from refimpl.app.operations import conductor_alive
from refimpl.model.errors import RefimplError
from tests import recorded
from tests.handover_model.records import Judgement, Word, judge

MOST_STATES = 20_000
"""Moves that could have happened need fewer states at one moment, one whose destination was cut off at its arrival
16 000; it takes some seconds to look at so many."""

STILL_RUNS = "its conductor still ran"
UNREADABLE = "its journal cannot be read"


class Refused(AssertionError):
    """A move that the real engine made could not have happened in the model."""


@dataclass
class Traces:
    """What was recorded and checked in one test process."""

    counts: Counter[str] = field(default_factory=Counter)
    checked: dict[Path, int] = field(default_factory=dict)
    running: dict[Path, OperationFiles] = field(default_factory=dict)

    def look(self, directories: list[Path], *, last: bool = False) -> list[str]:
        """Check what is new, in the directories and recorded; return what could not have happened.

        `last`: nobody comes to look again at what still runs.
        """
        refused = []
        for reason in recorded.taken(recorded.LEFT_OUT):
            self._count("", Judgement(Word.NOT_CHECKED, reason))
        for move in recorded.taken(recorded.MOVES):
            if move.events:
                refused += self._count("a move in this process", judge(move.events, move.guards, MOST_STATES))
        found = {files.directory: files for directory in directories for files in operations_below(directory)}
        for files in (self.running | found).values():
            refused += self._look_at(files, last)
        return refused

    def leave_out(self, files: OperationFiles, reason: str) -> None:
        """Have an operation that has ended not be checked, for a reason why the model's bounds do not hold it."""
        self.checked[files.directory] = len(files.lines())
        self._count("", Judgement(Word.NOT_CHECKED, reason))

    def _look_at(self, files: OperationFiles, last: bool) -> list[str]:
        try:
            if conductor_alive(files):
                self.running[files.directory] = files
                return self._count(files.id, Judgement(Word.NOT_CHECKED, STILL_RUNS)) if last else []
            self.running.pop(files.directory, None)
            lines = [line for _, line in files.lines()]
            trace, kept = [json.loads(line) for line in lines], files.read_spec().get("plan")
        except (RefimplError, ValueError):
            lines, trace, kept = [], None, None
        if self.checked.get(files.directory) == len(lines):
            return []
        self.checked[files.directory] = len(lines)
        said = Judgement(Word.NOT_CHECKED, UNREADABLE)
        if trace is not None:
            said = judge(trace, most_states=MOST_STATES, kept=kept)
        return self._count(f"operation {files.id}", said)

    def _count(self, name: str, said: Judgement) -> list[str]:
        self.counts[f"{said.word}: {said.why}" if said.word is Word.NOT_CHECKED else said.word] += 1
        return [f"{name} {said.word}: {said.why}"] if said.word is Word.REFUSED else []


TRACES = Traces()


def operations_below(directory: Path) -> Iterator[OperationFiles]:
    """Yield every operation that has a journal, in whatever home below a directory it is."""
    for place, below, _ in os.walk(directory):
        if os.path.basename(place) == "operations":
            found = [OperationFiles(Path(place) / name) for name in sorted(below)]
            yield from (files for files in found if files.journal.exists())
            below.clear()


def summary(counts: Counter[str]) -> list[str]:
    """Return the lines that are printed at the end of a run; none when no move was seen."""
    if not counts:
        return []
    checked = counts[Word.EXPLAINED] + counts[Word.REFUSED]
    left_out = {name: count for name, count in counts.items() if name.startswith(Word.NOT_CHECKED)}
    lines = [
        f"{checked} moves checked against the model: {counts[Word.EXPLAINED]} explained, "
        f"{counts[Word.REFUSED]} that could not have happened; {sum(left_out.values())} not checked"
    ]
    ordered = sorted(left_out.items(), key=lambda one: (-one[1], one[0]))
    return lines + [f"  {count:4} {name}" for name, count in ordered]
