"""What a report page is made of: the values that whoever knows an operation gives, and the page only shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from refimpl.model.outcome import Outcome

JsonEvent = Mapping[str, Any]


class State(StrEnum):
    """Where the operation stood when the page was made. INTERRUPTED: its conductor died and it has no end yet."""

    ENDED = "ended"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    LAB_GONE = "lab gone"


@dataclass(frozen=True, slots=True)
class Track:
    """What one observer outside the VM heard: what its samples are (`heartbeats`), and when (ns since the epoch)."""

    name: str
    times_ns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReportData:
    """One move. `events`: JSON values of the event stream; `said`: what each of them is in words, None without.

    `verdicts`: of observers, as `Verdict.to_json` gives them. `tracks`: every sample that observers took.
    `environment`: what the figures were made on, as pairs of name and value. `reproduce`: the command that asks for the
    same again. `simulated`: nothing was moved, all times are virtual.
    """

    operation: str
    request: Mapping[str, Any]
    events: tuple[JsonEvent, ...]
    said: tuple[str | None, ...] = ()
    outcome: Outcome | None = None
    state: State = State.ENDED
    verdicts: tuple[Mapping[str, Any], ...] = ()
    tracks: tuple[Track, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    reproduce: str = ""
    simulated: bool = False
    made_at: str = ""
