"""Real time for a conductor: a thread-safe queue as its inbox, and the machine's clock."""

from __future__ import annotations

import heapq
import queue
import time

from refimpl.model.events import Event, Kind


class RealTimeline:
    """A thread-safe queue and the machine's clock."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._deadlines: dict[str, float] = {}
        self._delayed: list[tuple[float, int, Event]] = []
        self._count = 0

    def now_ns(self) -> int:
        """Return the wall clock."""
        return time.time_ns()

    def post(self, event: Event) -> None:
        """Put an event into the inbox."""
        self._queue.put(event)

    def arm(self, name: str, after_ms: int) -> None:
        """Arm a deadline."""
        self._deadlines[name] = time.monotonic() + after_ms / 1000

    def post_after(self, event: Event, after_ms: int) -> None:
        """Put an event into the inbox after a while."""
        self._count += 1
        heapq.heappush(self._delayed, (time.monotonic() + after_ms / 1000, self._count, event))

    def disarm(self, name: str) -> None:
        """Take a deadline back."""
        self._deadlines.pop(name, None)

    def idle(self) -> bool:
        """Whether the queue is empty."""
        return self._queue.empty()

    def next(self) -> Event | None:
        """Wait for the next event, the first delayed one, or the first deadline."""
        due = min([*self._deadlines.values(), *(at for at, _, _ in self._delayed[:1])], default=None)
        if due is None:
            return self._queue.get()
        try:
            return self._queue.get(timeout=max(0.0, due - time.monotonic()))
        except queue.Empty:
            return self._due()

    def _due(self) -> Event:
        name = min(self._deadlines, key=lambda name: self._deadlines[name], default=None)
        if self._delayed and (name is None or self._delayed[0][0] <= self._deadlines[name]):
            return heapq.heappop(self._delayed)[2]
        assert name is not None
        self.disarm(name)
        return Event(Kind.DEADLINE, self.now_ns(), {"name": name})
