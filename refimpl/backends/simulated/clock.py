"""The clock of a simulated world: what is to come, on whatever timeline a controller drives at present.

A transfer belongs to the world, not to the controller that asked for it. So the world keeps its own list of things to
come and has the timeline of the present controller wake it. When that controller is lost, `advance_to` lets the world
live on unobserved, and `carry_to` hangs it on the timeline of the next one.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from refimpl.engine.timeline import VirtualTimeline

EPOCH_NS = 1_700_000_000_000_000_000
"""When a world begins, in nanoseconds since the epoch; the same instant at which a `VirtualTimeline` begins."""

Action = Callable[[], None]


class WorldClock:
    """Virtual time in nanoseconds and a heap of actions, carried from timeline to timeline."""

    def __init__(self, start_ns: int = EPOCH_NS) -> None:
        self._now_ns = start_ns
        self._heap: list[tuple[int, int, Action]] = []
        self._count = 0
        self._timeline: VirtualTimeline | None = None
        self.generation = 0
        """Counts timelines; whoever holds an older number belongs to a controller that was lost."""

    def now_ns(self) -> int:
        """Return the world's time."""
        return self._now_ns if self._timeline is None else max(self._now_ns, self._timeline.now_ns())

    def after(self, delay_ns: int, action: Action) -> None:
        """Have an action carried out after a delay, on whatever timeline the world hangs then."""
        heapq.heappush(self._heap, (self.now_ns() + delay_ns, self._count, action))
        self._count += 1
        if self._timeline is not None:
            self._wake(self._timeline, delay_ns)

    def advance_to(self, at_ns: int) -> None:
        """Leave the timeline and live on alone until the given time: nobody is told what happens."""
        self._now_ns = self.now_ns()
        if at_ns < self._now_ns:
            raise ValueError(f"a world at {self._now_ns} ns cannot go back to {at_ns} ns; start the timeline later")
        self._timeline = None
        self.generation += 1
        self._run(at_ns)
        self._now_ns = at_ns

    def carry_to(self, timeline: VirtualTimeline) -> None:
        """Go on under this timeline, from its present time; harmless when the world hangs on it already."""
        if timeline is self._timeline:
            return
        self.advance_to(timeline.now_ns())
        self._timeline = timeline
        for due_ns, _, _ in sorted(self._heap, key=lambda item: item[:2]):
            self._wake(timeline, due_ns - self._now_ns)

    def _wake(self, timeline: VirtualTimeline, delay_ns: int) -> None:
        timeline.after(delay_ns, lambda: self._run(timeline.now_ns()) if timeline is self._timeline else None)

    def _run(self, until_ns: int) -> None:
        while self._heap and self._heap[0][0] <= until_ns:
            due_ns, _, action = heapq.heappop(self._heap)
            self._now_ns = max(self._now_ns, due_ns)
            action()
