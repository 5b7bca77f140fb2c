"""A backend that answers each command with the events of a script, and remembers what it was told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from refimpl.engine.backend import Capabilities
from refimpl.engine.conductor import Conductor, Identity
from refimpl.engine.journal import NoJournal
from refimpl.engine.store import MemoryStore
from refimpl.engine.timeline import VirtualTimeline
from refimpl.model.events import Event, Kind
from refimpl.model.facts import CopySeen, Evidence, Facts, Scope, VmState
from refimpl.model.group import ProcessRef
from refimpl.model.request import Command, CommandKind, HandOver, MigrationRequest
from tests.builders import SETTINGS, destination, event, facts, ledger, source

C, K = CommandKind, Kind
Answer = Sequence[Event] | Callable[[], Sequence[Event]]
IDENTITY = Identity("/home/one", ProcessRef(1, 1, "boot"))
MOVED = Evidence(source(VmState.ABSENT, bound=True), destination(VmState.RUNNING))
STAYED = Evidence(source(), destination())


def seen(here: CopySeen, there: CopySeen) -> Event:
    return event(K.EVIDENCE_SEEN, evidence=Evidence(here, there))


HAPPY: Mapping[C, Answer] = {
    C.OBSERVE: [event(K.FACTS_SEEN, facts=facts())],
    C.PROBE: [event(K.FACTS_SEEN, facts=facts())],
    C.PREPARE: [event(K.PREPARED, address="10.1.0.2")],
    C.START_TRANSFER: [
        event(K.TRANSFER_STARTED, reference="job"),
        event(K.MEMORY_SEEN),
        event(K.PASS_ENDED, number=1),
        event(K.SWITCH_SEEN),
        Event(K.SOURCE_STOPPED, 5_000_000),
        event(K.DESTINATION_ARRIVED),
    ],
    C.LOOK_FOR_BINDING: [event(K.BINDING_SEEN, bound=True, reason="confirm3")],
    C.ALLOW_RUN: [Event(K.DESTINATION_RAN, 25_000_000), event(K.CALL_RETURNED, ok=True, sent_bytes=7)],
    C.INSPECT: [event(K.EVIDENCE_SEEN, evidence=MOVED)],
    C.SETTLE_SOURCE: [event(K.SETTLED)],
    C.SETTLE_DESTINATION: [event(K.SETTLED)],
    C.CLEAN_UP: [event(K.CLEANED)],
    C.CLEAN_UP_UNDONE: [event(K.CLEANED)],
    C.CLEAN_UP_MOVED: [event(K.CLEANED)],
}


class ScriptedBackend:
    """Answers from a script; a command without an entry is not answered."""

    name = "scripted"

    def __init__(self, timeline: VirtualTimeline, **changes: Answer) -> None:
        self._timeline = timeline
        self._script = {**HAPPY, **{C[name]: answer for name, answer in changes.items()}}
        self.told: list[C] = []

    def capabilities(self) -> Capabilities:
        return Capabilities(HandOver.STRICT, True, True, True, True, True, True)

    def observe(self, scope: Scope) -> Facts:
        return facts()

    def probe(self, operation: str, request: MigrationRequest) -> Facts:
        return facts()

    def submit(self, command: Command) -> None:
        self.told.append(command.kind)
        answer = self._script.get(command.kind, ())
        for one in answer() if callable(answer) else answer:
            self._timeline.post(one)

    def close(self) -> None:
        """Nothing is open."""


class Run:
    """A conductor over a scripted backend, with everything that happened in it."""

    def __init__(self, *, store: Any = None, journal: Any = None, options: Any = None, **changes: Answer) -> None:
        self.timeline = VirtualTimeline()
        self.backend = ScriptedBackend(self.timeline, **changes)
        self.store = store or MemoryStore(SETTINGS)
        self.events: list[Event] = []
        self.stops: list[str] = []
        given = {"ledger": ledger(plan=None)} | (options or {})
        self.conductor = Conductor(
            given.pop("ledger"),
            self.backend,
            self.timeline,
            store=self.store,
            journal=journal or NoJournal(),
            identity=IDENTITY,
            listeners=[self.events.append],
            **{"stop_point": self.stops.append, **given},
        )

    def kinds(self) -> list[Kind]:
        return [e.kind for e in self.events]

    def phases(self) -> list[str]:
        return [e["phase"] for e in self.events if e.kind is K.PHASE_ENTERED]
