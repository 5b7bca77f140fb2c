"""Time and the inbox of the conductor, and virtual time: a heap, no waiting.

The conductor takes one event after another from a timeline and knows no other clock (rule 8). Real time, a queue and
the machine's clock, is no part of the engine: `refimpl.app.real_time`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Protocol

from refimpl.model.events import Event, Kind


class Timeline(Protocol):
    """Where events come from and what time it is, in nanoseconds since the epoch."""

    def now_ns(self) -> int:
        """Return the time now."""
        ...

    def post(self, event: Event) -> None:
        """Put an event into the inbox; from any thread."""
        ...

    def arm(self, name: str, after_ms: int) -> None:
        """Have `DEADLINE(name)` come after so many milliseconds, instead of one armed before under that name."""
        ...

    def post_after(self, event: Event, after_ms: int) -> None:
        """Put an event into the inbox after so many milliseconds."""
        ...

    def disarm(self, name: str) -> None:
        """Take a deadline back; harmless when there is none."""
        ...

    def next(self) -> Event | None:
        """Return the next event, waiting for it. None: nothing can come any more (virtual time only)."""
        ...

    def idle(self) -> bool:
        """Whether no event is waiting now."""
        ...


class VirtualTimeline:
    """A heap of things to come. Time jumps to the next one; a thousand hosts' day takes seconds."""

    def __init__(self, start_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now_ns = start_ns
        self._heap: list[tuple[int, int, Callable[[], Event | None]]] = []
        self._count = 0
        self._armed: dict[str, int] = {}

    def now_ns(self) -> int:
        """Return virtual time."""
        return self._now_ns

    def post(self, event: Event) -> None:
        """Put an event into the inbox, to be delivered at the present virtual time."""
        self._push(self._now_ns, lambda: event)

    def after(self, delay_ns: int, action: Callable[[], Event | None]) -> None:
        """Have an action carried out after a delay; the event that it returns, if any, is delivered then."""
        self._push(self._now_ns + delay_ns, action)

    def post_after(self, event: Event, after_ms: int) -> None:
        """Put an event into the inbox after a while."""
        self.after(after_ms * 1_000_000, lambda: event)

    def arm(self, name: str, after_ms: int) -> None:
        """Arm a deadline."""
        token = self._count
        self._armed[name] = token
        self._push(self._now_ns + after_ms * 1_000_000, lambda: self._deadline(name, token))

    def disarm(self, name: str) -> None:
        """Take a deadline back."""
        self._armed.pop(name, None)

    def idle(self) -> bool:
        """Whether nothing is due at the present virtual time."""
        return not self._heap or self._heap[0][0] > self._now_ns

    def next(self) -> Event | None:
        """Advance to the next event; None when nothing is left."""
        while self._heap:
            at_ns, _, action = heapq.heappop(self._heap)
            self._now_ns = max(self._now_ns, at_ns)
            event = action()
            if event is not None:
                return event
        return None

    def _deadline(self, name: str, token: int) -> Event | None:
        if self._armed.get(name) != token:
            return None
        self.disarm(name)
        return Event(Kind.DEADLINE, self._now_ns, {"name": name})

    def _push(self, at_ns: int, action: Callable[[], Event | None]) -> None:
        heapq.heappush(self._heap, (at_ns, self._count, action))
        self._count += 1
