"""Moves in a simulated world: the same conductor, in this process, under virtual time. Runs on any system, as anyone.

No VM is moved and no number is measured; whoever shows results of this has to say so.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from refimpl.app.check import compare
from refimpl.app.live import JsonEvent
from refimpl.backends.simulated import SimulatedBackend, World, default_world, host_settings, load_world
from refimpl.engine.conductor import Conductor, Identity
from refimpl.engine.journal import NoJournal
from refimpl.engine.store import MemoryStore
from refimpl.engine.timeline import VirtualTimeline
from refimpl.model.compatibility import CompatibilityReport
from refimpl.model.errors import error
from refimpl.model.events import Event
from refimpl.model.group import ProcessRef
from refimpl.model.ledger import Ledger
from refimpl.model.outcome import Outcome
from refimpl.model.request import MigrationRequest

if TYPE_CHECKING:
    from refimpl.meter.verdict import Verdict
    from refimpl.report.data import ReportData

GROUP = "simulated"


def open_world(file: Path | None) -> World:
    """Return the world of a file (`world.invalid` when it is not usable), or the built-in one."""
    return World(load_world(file) if file else default_world())


def compare_in(world: World, request: MigrationRequest) -> CompatibilityReport:
    """Compare a VM of a world with one of its hosts, as a move there would."""
    timeline = VirtualTimeline(world.now_ns())
    with closing(SimulatedBackend(world, timeline.post, timeline)) as backend:
        return compare(backend, MemoryStore(host_settings(world)), GROUP, request)


class SimulatedOperation:
    """A move in a world. It runs when its events are asked for: virtual time needs no waiting."""

    def __init__(
        self, world: World, request: MigrationRequest, operation: str = "simulated", file: Path | None = None
    ) -> None:
        """`file`: where the world was read from, for the command that asks for the same again."""
        self._world = world
        self._file = file
        self._request = request
        self._outcome: Outcome | None = None
        self._seen: list[JsonEvent] = []
        self.id = operation

    def events(self) -> Iterator[JsonEvent]:
        """Carry the move out and yield its events as JSON values."""
        seen: list[Event] = []
        self._outcome = self._run(seen)
        self._seen = [event.to_json() for event in seen]
        yield from self._seen

    def outcome(self) -> Outcome:
        """Return how it ended; `operation.no_end` before its events were taken."""
        if self._outcome is None:
            raise error("operation.no_end", operation=self.id, said="nothing")
        return self._outcome

    def report(self, verdicts: Iterable[Verdict] = ()) -> ReportData:
        """Return what a report page shows of it, with what observers found."""
        from refimpl.app.report import gathered

        world = ("--world", str(self._file)) if self._file else ()
        request, options = self._request.to_json(), ("--backend", "simulated", *world)
        found = [verdict.to_json() for verdict in verdicts]
        return gathered(self.id, request, self._seen, self._outcome, verdicts=found, options=options, simulated=True)

    def cancel(self) -> None:
        """Too late always: to a person, a move in virtual time is over as soon as it has begun."""
        end = self._outcome.end if self._outcome else None
        raise error("operation.ended", operation=self.id, end=end)

    def _run(self, seen: list[Event]) -> Outcome:
        timeline = VirtualTimeline(self._world.now_ns())
        backend = SimulatedBackend(self._world, timeline.post, timeline)
        hand_over = backend.capabilities().chosen(self._request)
        ledger = Ledger(operation=self.id, group=GROUP, request=self._request, hand_over=hand_over)
        process = ProcessRef(os.getpid(), 0, GROUP)
        conductor = Conductor(
            ledger,
            backend,
            timeline,
            store=MemoryStore(host_settings(self._world)),
            journal=NoJournal(),
            identity=Identity(controller=GROUP, process=process),
            listeners=[seen.append],
        )
        try:
            return conductor.start()
        finally:
            backend.close()
