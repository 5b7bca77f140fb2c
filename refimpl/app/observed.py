"""Observers around one move of a guest: what is awaited before it, and what each of them says after it.

Demo and tests ask in the same way, so that what the tests prove of the observers holds for what the demo shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from refimpl.app.live import JsonEvent
from refimpl.meter.blackout import blackout
from refimpl.meter.disk import disk_verdict
from refimpl.meter.heartbeat import heartbeat_verdict
from refimpl.meter.lines import JoinedLog, read_log
from refimpl.meter.memory import memory_verdict
from refimpl.meter.outside_gap import LEAST_BEFORE, outside_gap_verdict
from refimpl.meter.receiver import Receiver
from refimpl.meter.verdict import Verdict
from refimpl.meter.watch import has, wait_for_log, whole_check_after
from refimpl.model.errors import error

HEARD_S = 120.0
BEATS_BEFORE = 8 * LEAST_BEFORE
"""So many heartbeats are awaited before each move, for a spread that says something."""


@dataclass(frozen=True, slots=True)
class Before:
    """What is known before a move: the guest's boot id, and from when on (nanoseconds) arrivals belong to the move."""

    boot: str
    quiet_from_ns: int


@dataclass(frozen=True, slots=True)
class Observed:
    """A guest and what hears it: its files by host, its disk's image, the listener in its network, heartbeat period.

    What does not come within two minutes is the error `guest.not_heard`.
    """

    vm: str
    files: Mapping[str, Path]
    disk: Path
    receiver: Receiver
    period_ms: float

    def works(self) -> None:
        """Wait until the guest has checked its memory once: it does all its work."""
        self.wait("work", has("check-end"))

    def ready(self) -> Before:
        """Wait for enough heartbeats before a move.

        What an earlier move did to the heartbeat is none of this one's spread before: only later arrivals count.
        """
        quiet_from_ns = max((arrival.at_ns for arrival in self.receiver.arrivals().heartbeats), default=0)
        log = self._wait_for_arrivals(BEATS_BEFORE, after_ns=quiet_from_ns)
        return Before(log.boots[-1], quiet_from_ns)

    def verdicts(
        self, before: Before, source: str, destination: str, events: Sequence[JsonEvent]
    ) -> tuple[Verdict, ...]:
        """Ask every observer about a completed move, once there is something to judge after it."""
        boot = before.boot
        moved_after = read_log(self.files).last_sequence(boot, source)
        log = self.wait("check of the whole memory after the move", whole_check_after(boot, moved_after))
        span_ns = (events[0]["at_ns"], events[-1]["at_ns"])
        self._wait_for_arrivals(1, after_ns=span_ns[1])
        heard = [arrival for arrival in self.receiver.arrivals().heartbeats if arrival.at_ns > before.quiet_from_ns]
        return (
            blackout(events, source, destination),
            outside_gap_verdict(heard, boot, span_ns, self.period_ms),
            heartbeat_verdict(log, boot, destination),
            disk_verdict(log, self.disk, boot=boot),
            memory_verdict(log, boot, moved_after),
        )

    def wait(self, what: str, condition: Callable[[JoinedLog], bool]) -> JoinedLog:
        """Wait until the guest has said something, and return all that it said."""
        try:
            return wait_for_log(self.files, condition, what=what, timeout_s=HEARD_S)
        except TimeoutError as failure:
            raise error("guest.not_heard", what=what, vm=self.vm, detail=str(failure), limit_s=HEARD_S) from failure

    def _wait_for_arrivals(self, count: int, after_ns: int) -> JoinedLog:
        def enough(_: JoinedLog) -> bool:
            return sum(arrival.at_ns > after_ns for arrival in self.receiver.arrivals().heartbeats) >= count

        return self.wait("heartbeat", enough)
