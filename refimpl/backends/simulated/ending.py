"""How the simulated backend sees that a source's system is silent, and ends the process of its copy all the same.

A frozen host is one whose system answers nothing while its processes go on; what is held of them can be ended from
outside. Of a host that is off nothing can be seen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from refimpl.backends.simulated.world import BY_MIGRATION, Copy
from refimpl.backends.simulated.worldfile import FaultKind
from refimpl.model.events import Kind
from refimpl.model.facts import CopySeen, VmState
from refimpl.model.phase import Side
from refimpl.model.request import Command, Plan

if TYPE_CHECKING:
    from refimpl.backends.simulated.backend import SimulatedBackend

ASK_MS = 250
"""How often a source that is waited for is asked whether it answers."""
MOST_ASKS = 240
ENDED = "ended by its process"


class Ending:
    """The processes of sources that one backend object holds."""

    def __init__(self, backend: SimulatedBackend) -> None:
        self._backend = backend
        self._held: set[str] = set()

    def hold(self, operation: str) -> None:
        """Hold the source's process of an operation from now on."""
        self._held.add(operation)

    def has_ended(self, operation: str, plan: Plan) -> bool:
        """Whether a process that is held was ended."""
        source = self._source(plan)
        return operation in self._held and source is not None and (source.alive, source.reason) == (False, ENDED)

    def seen(self, operation: str, plan: Plan, source: CopySeen) -> CopySeen:
        """Return what is seen of a source with what the held process tells."""
        copy = self._source(plan)
        if source.reachable or copy is None or not self._held_there(operation, plan):
            return source
        if copy.reason == ENDED:
            return replace(source, state=VmState.OFF, bound=True)
        return replace(source, state=copy.state, reason=copy.reason, endable=True)

    def watch(self, operation: str, plan: Plan, asked: int = 0, silent_ms: int = 0) -> None:
        """Ask the source's system now and then as long as all has arrived and only the source is waited for."""

        def ask() -> None:
            copy = self._source(plan)
            waits = self._waits(plan) and copy is not None and copy.alive and self._held_there(operation, plan)
            silent = waits and not self._backend.world.hosts[plan.source].answers
            since_ms = silent_ms + ASK_MS if silent else 0
            times = since_ms // ASK_MS
            if times and times & (times - 1) == 0:
                # Told after one, two, four, eight times as long: seldom.
                reason = "the source does not answer"
                values = {"bound": None, "reason": reason, "silent_ms": since_ms}
                self._backend.say(Kind.BINDING_SEEN, Side.SOURCE, plan.source, **values)
            transfer = self._backend.world.transfers.get(operation)
            if asked < MOST_ASKS and transfer is not None and transfer.open and copy is not None and copy.alive:
                self.watch(operation, plan, asked + 1, since_ms)

        self._backend.later(ASK_MS * 1_000_000, ask)

    def end_source(self, command: Command, plan: Plan) -> None:
        """END_SOURCE."""
        source = self._source(plan)
        if self._backend.world.faults.asked(FaultKind.NOT_ENDED, plan.vm):
            self._not_ended(plan, "scripted: it is not ended")
        elif not self._held_there(command.operation, plan) or source is None:
            self._not_ended(plan, "its process is not held from here")
        elif not self._waits(plan):
            self._not_ended(plan, "the destination's copy is not there to be let run")
        elif source.alive and (source.state, source.reason) != (VmState.PAUSED, BY_MIGRATION):
            self._not_ended(plan, f"the source's copy is {source.state} ({source.reason})")
        else:
            self._backend.world.stop(source, VmState.OFF, ENDED)
            self._backend.say(Kind.SOURCE_ENDED, Side.SOURCE, plan.source)
            transfer = self._backend.world.transfers.get(command.operation)
            if transfer is not None:
                transfer.source_ended()

    def _not_ended(self, plan: Plan, reason: str) -> None:
        self._backend.say(Kind.SOURCE_NOT_ENDED, Side.SOURCE, plan.source, reason=reason)

    def _source(self, plan: Plan) -> Copy | None:
        return self._backend.world.copy(plan.source, plan.vm)

    def _held_there(self, operation: str, plan: Plan) -> bool:
        return operation in self._held and self._backend.world.hosts[plan.source].alive

    def _waits(self, plan: Plan) -> bool:
        there = self._backend.side(plan, Side.DESTINATION)
        return there.reachable and there.arrived and not there.job_open
