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
STANDS_NS = 1_000_000
"""How long a process stands still before it is ended."""


class Ending:
    """The processes of sources that one backend object holds."""

    def __init__(self, backend: SimulatedBackend) -> None:
        self._backend = backend
        self._held: set[str] = set()
        self._stopped: set[str] = set()

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
        """END_SOURCE: the process is stopped, and ended if it still stands for its hand-over then."""
        why, source = self._why_not(command, plan)
        if source is None:
            self._not_ended(plan, why)
            return
        source.stopped = source.alive
        self._stopped.add(command.operation)
        self._backend.later(STANDS_NS, lambda: self._end(command, plan, source))

    def _why_not(self, command: Command, plan: Plan) -> tuple[str, Copy | None]:
        """Return the copy whose process may be ended, or why not."""
        source = self._source(plan)
        if self._backend.world.faults.asked(FaultKind.NOT_ENDED, plan.vm):
            return "scripted: it is not ended", None
        if not self._held_there(command.operation, plan) or source is None:
            return "its process is not held from here", None
        if not self._waits(plan):
            return "the destination's copy is not there to be let run", None
        if source.alive and (source.state, source.reason) != (VmState.PAUSED, BY_MIGRATION):
            return f"the source's copy is {source.state} ({source.reason})", None
        return "", source

    def _end(self, command: Command, plan: Plan, source: Copy) -> None:
        self._stopped.discard(command.operation)
        if source.held_back or not self._waits(plan):
            self._backend.world.go_on(source)
            self._not_ended(plan, "the source takes the VM back, or the destination's copy is gone")
            return
        self._backend.world.stop(source, VmState.OFF, ENDED)
        self._backend.say(Kind.SOURCE_ENDED, Side.SOURCE, plan.source)
        transfer = self._backend.world.transfers.get(command.operation)
        if transfer is not None:
            transfer.source_ended()

    def go_on(self, operation: str, plan: Plan) -> None:
        """Let a source's process go on that a controller which is gone has stopped to end it."""
        source = self._source(plan)
        reached = self._backend.world.hosts[plan.source].alive
        if source is None or not source.stopped or not reached or operation in self._held | self._stopped:
            return
        self._backend.world.go_on(source)
        self._backend.say(Kind.SOURCE_GOES_ON, Side.SOURCE, plan.source)

    def _not_ended(self, plan: Plan, reason: str) -> None:
        self._backend.say(Kind.SOURCE_NOT_ENDED, Side.SOURCE, plan.source, reason=reason)

    def _source(self, plan: Plan) -> Copy | None:
        return self._backend.world.copy(plan.source, plan.vm)

    def _held_there(self, operation: str, plan: Plan) -> bool:
        return operation in self._held and self._backend.world.hosts[plan.source].alive

    def _waits(self, plan: Plan) -> bool:
        there = self._backend.side(plan, Side.DESTINATION)
        return there.reachable and there.arrived and not there.job_open
