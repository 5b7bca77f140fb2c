"""The one shape in which every observer answers: ok, bad, or not measured, a sentence, and the figures behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Figure = int | float | str | bool | None


class State(StrEnum):
    """How an observer judges. *Not measured* is neither good nor bad: what was needed for a judgement is missing."""

    OK = "ok"
    BAD = "bad"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One observer's answer: its name, the state, one sentence for people, and figures (units in their names).

    `samples`: the file with the raw samples behind it, beside the verdicts; None when they are elsewhere (those of the
    blackout are the events of the operation) or were not kept.
    """

    name: str
    state: State
    text: str
    figures: Mapping[str, Figure] = field(default_factory=dict)
    samples: str | None = None

    @property
    def good(self) -> bool:
        """Whether it was measured and is in order."""
        return self.state is State.OK

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain JSON values."""
        return {
            "name": self.name,
            "state": str(self.state),
            "text": self.text,
            "figures": dict(self.figures),
            "samples": self.samples,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """Build a verdict from what `to_json` gave."""
        return cls(data["name"], State(data["state"]), data["text"], dict(data["figures"]), data["samples"])


def not_measured(name: str, why: str, **figures: Figure) -> Verdict:
    """Return the verdict of an observer that could not measure, and why."""
    return Verdict(name, State.NOT_MEASURED, why, figures)
