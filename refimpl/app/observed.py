"""Observers around one move of a guest: what is awaited before it, and what each of them says after it.

Demo and tests ask in the same way, so that what the tests prove of the observers holds for what the demo shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from refimpl.app.live import JsonEvent
from refimpl.app.vm_places import newest
from refimpl.meter.blackout import blackout
from refimpl.meter.disk import disk_verdict
from refimpl.meter.heartbeat import heartbeat_verdict
from refimpl.meter.lines import JoinedLog, read_log
from refimpl.meter.memory import memory_verdict
from refimpl.meter.outside_gap import LEAST_BEFORE, outside_gap_verdict
from refimpl.meter.receiver import Receiver
from refimpl.meter.samples import Samples
from refimpl.meter.verdict import Verdict
from refimpl.meter.watch import has, wait_for_log, whole_check_after
from refimpl.model.errors import error

HEARD_S = 120.0
BEATS_BEFORE = 8 * LEAST_BEFORE
"""So many heartbeats are awaited before each move, for a spread that says something."""


@dataclass(frozen=True, slots=True)
class Before:
    """What is known before a move: the guest's boot id, from when on (nanoseconds) arrivals belong to the move, and the
    number of the guest's last line until then."""

    boot: str
    quiet_from_ns: int
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Observed:
    """A guest and what hears it: its files by host, the listener in its network, heartbeat period.

    `disks`: where its disk's image can be; the one that was written last is its disk.

    What does not come within two minutes is the error `guest.not_heard`.
    """

    vm: str
    files: Mapping[str, Path]
    disks: Sequence[Path]
    receiver: Receiver
    period_ms: float

    def ready(self) -> Before:
        """Wait for enough heartbeats before a move.

        What an earlier move did to the heartbeat is none of this one's spread before: only later arrivals count.
        """
        quiet_from_ns = max((arrival.at_ns for arrival in self.receiver.arrivals().heartbeats), default=0)
        log = self._wait_for_arrivals(BEATS_BEFORE, after_ns=quiet_from_ns)
        boot = log.boots[-1]
        return Before(boot, quiet_from_ns, log.last_sequence(boot))

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
        arrivals, said = self.receiver.output.name, self._keep(log, before)
        return (
            blackout(events, source, destination),
            replace(outside_gap_verdict(heard, boot, span_ns, self.period_ms), samples=arrivals),
            replace(heartbeat_verdict(log, boot, destination), samples=said),
            replace(disk_verdict(log, newest(self.disks), boot=boot), samples=said),
            replace(memory_verdict(log, boot, moved_after), samples=said),
        )

    def wait(self, what: str, condition: Callable[[JoinedLog], bool]) -> JoinedLog:
        """Wait until the guest has said something, and return all that it said."""
        return _wait(self.vm, self.files, what, condition)

    def _keep(self, log: JoinedLog, before: Before) -> str:
        """Write down, beside the arrivals, what the guest has said since `before`; return the file's name."""
        path = self.receiver.output.with_name("guest.jsonl")
        with path.open("w", encoding="utf-8") as output:
            samples = Samples(output, "guest", hosts=list(self.files))
            for line in log.lines:
                if line.boot != before.boot or line.sequence > before.sequence:
                    values = {"boot": line.boot, "sequence": line.sequence, "line": line.kind, "fields": line.fields}
                    samples.add("line", 0, host=line.host, **values)
        return path.name

    def _wait_for_arrivals(self, count: int, after_ns: int) -> JoinedLog:
        def enough(_: JoinedLog) -> bool:
            return sum(arrival.at_ns > after_ns for arrival in self.receiver.arrivals().heartbeats) >= count

        return self.wait("heartbeat", enough)


def wait_for_work(vm: str, files: Mapping[str, Path]) -> None:
    """Wait until a guest has checked its memory once: it does all its work. `guest.not_heard`."""
    _wait(vm, files, "work", has("check-end"))


def _wait(vm: str, files: Mapping[str, Path], what: str, condition: Callable[[JoinedLog], bool]) -> JoinedLog:
    try:
        return wait_for_log(files, condition, what=what, timeout_s=HEARD_S)
    except TimeoutError as failure:
        raise error("guest.not_heard", what=what, vm=vm, detail=str(failure), limit_s=HEARD_S) from failure
