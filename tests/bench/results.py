"""Keeping what was measured: raw samples as JSON lines, figures with their verdicts, and a table in Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.statistics import Estimate, Verdict, estimate, judge

HEAD = ("figure", "median", "95 % interval", "samples", "bound", "verdict")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: what it is, its unit (empty for a ratio), its bound if it has one, and how it came out."""

    name: str
    unit: str
    found: Estimate
    at_most: float | None
    verdict: Verdict

    @classmethod
    def of(cls, name: str, samples: Sequence[float], unit: str = "", at_most: float | None = None) -> Figure:
        """Judge samples; ValueError when there are none."""
        found = estimate(samples)
        return cls(name, unit, found, at_most, judge(found, at_most))

    def row(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        f = self.found
        bound = "" if self.at_most is None else f"≤ {_text(self.at_most, self.unit)}"
        interval = f"{_text(f.low, self.unit).split()[0]} to {_text(f.high, self.unit)}"
        return (self.name, _text(f.median, self.unit), interval, str(f.count), bound, str(self.verdict))


def _text(value: float, unit: str = "") -> str:
    digits = 3 if abs(value) < 10 and not unit else 2 if abs(value) < 10 else 1
    return f"{value:.{digits}f} {unit}".strip()


@dataclass
class Recorder:
    """The samples and figures of one run; every sample is on the disk before the next is taken."""

    directory: Path
    machine: Mapping[str, Any]
    command: str
    figures: dict[str, list[Figure]] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.samples.write_text("")
        self.sample("machine", **self.machine, command=self.command)

    @property
    def samples(self) -> Path:
        """The file of the raw samples."""
        return self.directory / "samples.jsonl"

    def sample(self, kind: str, **values: Any) -> None:
        """Keep one sample as one JSON line."""
        with self.samples.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **values}, ensure_ascii=False) + "\n")

    def add(self, experiment: str, *figures: Figure) -> None:
        """Keep what came out of an experiment."""
        self.figures.setdefault(experiment, []).extend(figures)

    def note(self, experiment: str, text: str) -> None:
        """Keep a sentence that belongs to an experiment's figures."""
        self.notes.setdefault(experiment, []).append(text)

    def write(self) -> None:
        """Write `results.json` and `bench.md` of what there is so far."""
        figures = {name: [asdict(figure) for figure in found] for name, found in self.figures.items()}
        data = {"machine": self.machine, "command": self.command, "figures": figures, "notes": self.notes}
        text = json.dumps({**data, "not_measured": self.not_measured}, indent=1, ensure_ascii=False)
        (self.directory / "results.json").write_text(text + "\n", encoding="utf-8")
        (self.directory / "bench.md").write_text(self.markdown(), encoding="utf-8")

    def markdown(self) -> str:
        """Return everything as Markdown: a section with a table for each experiment."""
        lines = []
        for name in dict.fromkeys([*self.figures, *self.not_measured]):
            lines += [f"### {name}", ""]
            if name in self.not_measured:
                lines += [f"Not measured: {self.not_measured[name]}", ""]
            if name in self.figures:
                rows = [HEAD, tuple("---" for _ in HEAD), *(figure.row() for figure in self.figures[name])]
                lines += [f"| {' | '.join(row)} |" for row in rows] + [""]
            lines += [line for note in self.notes.get(name, ()) for line in (note, "")]
            lines += [f"`{self.command}`; {self.machine.get('text', '')}", ""]
        return "\n".join(lines)

    @property
    def missed(self) -> list[str]:
        """The names of the figures whose bound was missed."""
        return [f.name for found in self.figures.values() for f in found if f.verdict is Verdict.MISSED]
