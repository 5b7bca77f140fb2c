"""What happened in a move, told by its events alone: phases with their times, stand-stills, figures over time.

All times are milliseconds since the first event. Clocks of several hosts may differ a little: no span is negative.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refimpl.model.events import Kind
from refimpl.model.phase import ENDS, Phase
from refimpl.report.data import JsonEvent
from refimpl.report.words import PHASE_TEXTS, label

UNATTENDED = "unattended"
_UNATTENDED_TEXT = "no conductor ran: it had died, and nothing was decided until the recovery began"


@dataclass(frozen=True, slots=True)
class Span:
    """A phase that was gone through: its name and what it is, from when to when. `open`: it has not ended."""

    name: str
    text: str
    begin_ms: float
    end_ms: float
    open: bool = False

    @property
    def ms(self) -> float:
        """How long it lasted."""
        return self.end_ms - self.begin_ms


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at one moment."""

    at_ms: float
    text: str


@dataclass(frozen=True, slots=True)
class StandStill:
    """A time in which no vCPU ran. `moved`: it ended at the destination, the blackout. `open`: its end was not seen."""

    begin_ms: float
    end_ms: float
    moved: bool
    open: bool
    marks: tuple[Mark, ...]

    @property
    def ms(self) -> float:
        """How long the VM stood still."""
        return self.end_ms - self.begin_ms


@dataclass(frozen=True, slots=True)
class Point:
    """Figures of the transfer at one moment: rates in bytes per second, None where not told."""

    at_ms: float
    bytes_s: float | None
    dirty_bytes_s: float | None
    remaining_bytes: float | None
    sent_bytes: float | None
    total_bytes: float | None


@dataclass(frozen=True, slots=True)
class Look:
    """One look at both hosts over fresh connections, and what was concluded from it."""

    at_ms: float
    source: Mapping[str, Any]
    destination: Mapping[str, Any]
    decision: str
    why: str


def begin_ns(events: Sequence[JsonEvent]) -> int:
    """Return the time of the first event, 0 when there is none."""
    return int(events[0]["at_ns"]) if events else 0


def at_ms(event: JsonEvent, zero_ns: int) -> float:
    """Return when an event was, never before the first one."""
    return max(0.0, (int(event["at_ns"]) - zero_ns) / 1e6)


def length_ms(events: Sequence[JsonEvent]) -> float:
    """Return the time from the first event to the latest one."""
    return max((at_ms(event, begin_ns(events)) for event in events), default=0.0)


def spans(events: Sequence[JsonEvent]) -> list[Span]:
    """Return the phases in the order in which they were entered; ends are no phases that last."""
    zero_ns, found = begin_ns(events), list[Span]()
    for name, begin, end in _stretches(events, zero_ns):
        text = _UNATTENDED_TEXT if name == UNATTENDED else PHASE_TEXTS.get(Phase(name), "")
        found.append(Span(name, text, begin, max(begin, length_ms(events) if end is None else end), end is None))
    return found


def _stretches(events: Sequence[JsonEvent], zero_ns: int) -> Iterator[tuple[str, float, float | None]]:
    name, begin, last = "", 0.0, 0.0
    for event in events:
        now = at_ms(event, zero_ns)
        if event["kind"] == Kind.RECOVER_WISHED and name:
            yield name, begin, last
            yield UNATTENDED, last, now
            begin = now
        elif event["kind"] == Kind.PHASE_ENTERED:
            if name:
                yield name, begin, now
            entered = event["values"]["phase"]
            name, begin = ("" if entered in ENDS else entered), now
        last = max(last, now)
    if name:
        yield name, begin, None


_MARKS = {
    Kind.SOURCE_STOPPED: "the VM stands still at the source",
    Kind.SOURCE_RESUMED: "the VM runs on at the source",
    Kind.DESTINATION_ARRIVED: "all has arrived at the destination, which waits",
    Kind.SOURCE_BOUND: "the source is bound: its copy cannot run again",
    Kind.SOURCE_SILENT: "the source does not answer: its copy is to be ended",
    Kind.FENCE_DUE: "a host that does not answer is to be cut off",
    Kind.FENCED: "the host was cut off: nothing of the VM runs there any more",
    Kind.FENCE_FAILED: "the host was not cut off",
    Kind.SOURCE_FOUND_RUNNING: "the source's copy was found running too",
    Kind.SOURCE_ENDED: "the source's copy was ended by its process",
    Kind.SOURCE_GOES_ON: "the source's process, which a controller that died had stopped, goes on",
    Kind.COMMIT_RECORDED: "the commit is recorded: the destination owns the VM",
    Kind.POSTCOPY_SEEN: "post-copy begins: part of the memory stays at the source for now",
    Kind.RUN_REFUSED: "the destination was not let run",
    Kind.CANCEL_ACCEPTED: "cancel accepted",
    Kind.CALL_RETURNED: "the transfer has ended",
    Kind.SOURCE_GONE: "the source's copy is gone",
    Kind.DESTINATION_RAN: "the VM runs at the destination",
    Kind.LEASE_SPACE_GONE: "a host cannot reach the VM's lease any more",
    Kind.LOCK_DAEMON_GONE: "a lock daemon has ended: the leases of its host are lost",
}


def stand_stills(events: Sequence[JsonEvent]) -> list[StandStill]:
    """Return every time in which the VM stood still, from a stop at the source to the next run on either side."""
    found, begin = list[StandStill](), None
    zero_ns, ran = begin_ns(events), False
    for event in events:
        kind, now = event["kind"], at_ms(event, zero_ns)
        if kind == Kind.SOURCE_STOPPED:
            begin = now
        elif kind in (Kind.SOURCE_RESUMED, Kind.DESTINATION_RAN) and begin is not None and not ran:
            ran = kind == Kind.DESTINATION_RAN
            end = max(begin, now)
            found.append(StandStill(begin, end, ran, False, _marks(events, begin, end)))
            begin = None
    if begin is not None and not ran:
        end = length_ms(events)
        found.append(StandStill(begin, end, False, True, _marks(events, begin, end)))
    return found


def _marks(events: Sequence[JsonEvent], begin: float, end: float) -> tuple[Mark, ...]:
    zero_ns = begin_ns(events)
    known = [(at_ms(e, zero_ns), _MARKS[e["kind"]]) for e in events if e["kind"] in _MARKS]
    return tuple(Mark(at, text) for at, text in sorted(known, key=lambda m: m[0]) if begin <= at <= end)


def points(events: Sequence[JsonEvent]) -> list[Point]:
    """Return the figures of the transfer over time."""
    names, zero_ns = Point.__slots__[1:], begin_ns(events)
    # A job that is over has no total any more, and tells nothing of the transfer.
    rows = [e for e in events if e["kind"] == Kind.PROGRESS and e["values"].get("total_bytes") != 0]
    return [Point(at_ms(row, zero_ns), *(row["values"].get(name) for name in names)) for row in rows]


def passes(events: Sequence[JsonEvent]) -> list[tuple[int, float]]:
    """Return the passes that were seen to end: number and time."""
    zero_ns = begin_ns(events)
    rows = [e for e in events if e["kind"] == Kind.PASS_ENDED]
    return [(row["values"]["number"], at_ms(row, zero_ns)) for row in rows]


_CONCLUSIONS = frozenset(
    {
        Kind.SOURCE_OWNS,
        Kind.DESTINATION_OWNS,
        Kind.JOB_STILL_RUNS,
        Kind.BOTH_RAN,
        Kind.MEMORY_GONE,
        Kind.GUEST_ENDED,
        Kind.POSTCOPY_PENDING,
        Kind.POSTCOPY_RECOVERABLE,
        Kind.POSTCOPY_LOST,
        Kind.HOST_SILENT,
        Kind.UNKNOWN,
        Kind.SOURCE_BOUND,
        Kind.SOURCE_SILENT,
        Kind.FENCE_DUE,
    }
)


def looks(events: Sequence[JsonEvent]) -> list[Look]:
    """Return every look at both hosts with the decision that came of it."""
    found, zero_ns = list[Look](), begin_ns(events)
    for number, event in enumerate(events):
        if event["kind"] != Kind.EVIDENCE_SEEN:
            continue
        evidence = event["values"]["evidence"]
        after = next((e for e in events[number + 1 :] if e["kind"] in _CONCLUSIONS), None)
        decision = label(after["kind"]) if after else "none"
        why = str(after["values"].get("why") or "") if after else ""
        found.append(Look(at_ms(event, zero_ns), evidence["source"], evidence["destination"], decision, why))
    return found


def last_value(events: Sequence[JsonEvent], name: str, *kinds: Kind) -> Any:
    """Return a value of the latest event of some kinds that has it, None without."""
    rows = (event["values"] for event in reversed(events) if event["kind"] in kinds)
    return next((values[name] for values in rows if values.get(name) is not None), None)
