"""An operation that a test writes the script of, and outcomes of every end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from refimpl.model.errors import Native, Problem, RefimplError
from refimpl.model.events import Event, Kind
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase, Side

NOW_NS = 1_700_000_000_000_000_000
NATIVE = Native("libvirt/10", 38, "end of file while reading data")
PROBLEM = Problem(
    "transfer.failed",
    {"detail": "connection lost", "source": "h1"},
    phase=Phase.MEMORY,
    side=Side.SOURCE,
    host="h1",
    native=NATIVE,
)
WARNING = Problem("cancel.too_late", {"vm": "web", "reason": "the switch has begun"})


def event(kind: Kind, after_ms: int = 0, **values: Any) -> dict[str, Any]:
    return Event(kind, NOW_NS + after_ms * 1_000_000, values).to_json()


def outcome(end: Phase = Phase.COMPLETED, **changes: Any) -> Outcome:
    values: dict[str, Any] = {
        "operation": "0a1b2c3d",
        "end": end,
        "vm": "web",
        "source": "h1",
        "destination": "h2",
        "runs_on": "h2" if end is Phase.COMPLETED else "h1",
        "problems": (),
        "warnings": (),
        "total_ms": 1234.5,
        "blackout_ms": 45.6,
        "qemu_downtime_ms": 38.0,
        "sent_bytes": 3 * 1024 * 1024,
        "passes": 2,
        "commit_cost_ms": 1.5,
        "encryption": True,
        "performance_option": "TCPIP",
        "compression": "",
        "port_ms": None,
        "vm_state": "running",
        "hand_over": "strict",
        "recovered": False,
    }
    return Outcome(**(values | changes))


@dataclass
class ScriptedOperation:
    """Yields its events; with `held`, the end comes only when a test lets it go or a cancel was asked for."""

    script: list[dict[str, Any]] = field(default_factory=list)
    end: Outcome | RefimplError = field(default_factory=outcome)
    cancel_error: RefimplError | None = None
    held: bool = False
    id: str = "0a1b2c3d"
    cancels: int = 0
    let_go: threading.Event = field(default_factory=threading.Event)

    def events(self) -> Iterator[Mapping[str, Any]]:
        yield from self.script
        if self.held:
            self.let_go.wait(30)

    def outcome(self) -> Outcome:
        if isinstance(self.end, RefimplError):
            raise self.end
        return self.end

    def cancel(self) -> None:
        self.cancels += 1
        if self.cancel_error is not None:
            raise self.cancel_error


class Recorder:
    """A display that remembers, and does something when it has shown an event or a note."""

    def __init__(self, on_event: Any = None, on_note: Any = None) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.notes: list[str] = []
        self.closed = 0
        self._on_event, self._on_note = on_event, on_note

    def event(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)
        if self._on_event:
            self._on_event()

    def note(self, text: str) -> None:
        self.notes.append(text)
        if self._on_note:
            self._on_note()

    def close(self) -> None:
        self.closed += 1
