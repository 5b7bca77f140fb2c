"""From what libvirt and QEMU tell to the events of the seam: which of them was seen, once each, with QEMU's own times.

Nothing here touches a host: native events go in, events come out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from refimpl.model.events import Event, Kind
from refimpl.model.phase import Side
from refimpl.model.request import HandOver, Plan, VmState

LIFECYCLE_SUSPENDED, LIFECYCLE_STOPPED, LIFECYCLE_CRASHED = 3, 5, 8
LIFECYCLE_PAUSED, _MIGRATED = 0, 3
_IN_HALVES, _HALVES_BROKEN, _WHOLE = "postcopy-active", "postcopy-paused", "completed"
_SWITCH_STATES = frozenset({"pre-switchover", "device"})


@dataclass(frozen=True, slots=True)
class NativeEvent:
    """One native event: source `qmp` (name, details), `lifecycle` (event, detail numbers) or `job` (statistics)."""

    source: str
    at_ns: int
    name: str = ""
    event: int = -1
    detail: int = -1
    details: Mapping[str, Any] = field(default_factory=dict)
    domain: Any = None


class Watch:
    """What was seen of one transfer. Not thread-safe: its owner holds a lock.

    A guest that switches itself off, or whose kernel panics, makes QEMU stop too: that is not the switch.
    """

    def __init__(self, plan: Plan, reference: str) -> None:
        """Watch a move by this plan; `reference` is what TRANSFER_STARTED names the native job by."""
        self._plan = plan
        self._reference = reference
        self._seen: set[Kind] = set()
        self._first_pass: int | None = None
        self._passes_ended = 0
        self._stopped_by_disk = False
        self._guest_ends = False
        self._broken = False
        self._ends_source = False
        self.panicked = False
        self.following = False
        self.statistics: Mapping[str, Any] = {}

    def seen(self, kind: Kind) -> bool:
        """Whether an event of that kind was given out."""
        return kind in self._seen

    @property
    def sending(self) -> bool:
        """Whether disks or memory are being sent and the switch has not begun."""
        return (Kind.STORAGE_SEEN in self._seen or self.in_memory_phase) and not self.switched

    @property
    def in_memory_phase(self) -> bool:
        """Whether memory is being sent and the switch has not begun."""
        return Kind.MEMORY_SEEN in self._seen and not self.switched

    @property
    def switched(self) -> bool:
        """Whether the switch, or anything after it, was seen."""
        later = {
            Kind.SWITCH_SEEN,
            Kind.POSTCOPY_SEEN,
            Kind.SOURCE_STOPPED,
            Kind.DESTINATION_ARRIVED,
            Kind.DESTINATION_RAN,
        }
        return not self._seen.isdisjoint(later)

    @property
    def in_halves(self) -> bool:
        """Whether post-copy was seen to begin, and not to end."""
        return Kind.POSTCOPY_SEEN in self._seen and Kind.POSTCOPY_ENDED not in self._seen

    def broke(self, at_ns: int, reason: str) -> list[Event]:
        """Take that post-copy stands still until it is resumed; said once until `mended`."""
        if self._broken:
            return []
        self._broken = True
        return [self._event(Kind.POSTCOPY_BROKEN, at_ns, Side.SOURCE, {"reason": reason})]

    def mended(self) -> None:
        """Take that a broken post-copy was resumed."""
        self._broken = False

    def adopt_halves(self) -> None:
        """Follow a VM that is in post-copy: what came before that has been seen, whoever was there to be told."""
        self.following = True
        self._seen |= {Kind.TRANSFER_STARTED, Kind.MEMORY_SEEN, Kind.SWITCH_SEEN, Kind.POSTCOPY_SEEN}

    def tell(self, side: Side, native: NativeEvent) -> list[Event]:
        """Take one native event of one side and return the events that it means."""
        if native.source == "job":
            self.statistics = native.details if side is Side.SOURCE else self.statistics
            return []
        if native.source == "lifecycle":
            return self._lifecycle(side, native)
        return self._source_qmp(native) if side is Side.SOURCE else self._destination_qmp(native)

    def once(self, kind: Kind, at_ns: int, side: Side, values: Mapping[str, Any] | None = None) -> list[Event]:
        """Return the event, or nothing when one of that kind was given out before."""
        if kind in self._seen:
            return []
        self._seen.add(kind)
        return [self._event(kind, at_ns, side, values)]

    def passes(self, iteration: int, at_ns: int) -> list[Event]:
        """Take QEMU's pass number (the pass that begins; 1 is the first) and return how many passes have ended."""
        if self._first_pass is None:
            self._first_pass = iteration
        ended = iteration - self._first_pass
        if ended <= self._passes_ended or self.switched:
            return []
        self._passes_ended = ended
        return [self._event(Kind.PASS_ENDED, at_ns, Side.SOURCE, {"number": ended})]

    def ends_source(self) -> None:
        """Take an end of the source's process from now on for the hand-over's, and for none of its own."""
        self._ends_source = True

    def adopt(self) -> None:
        """Follow a transfer that has been going on: its passes are counted from QEMU's first."""
        self.following = True
        self._first_pass = 1

    def _source_qmp(self, native: NativeEvent) -> list[Event]:
        if not self.following:
            return []
        if native.name == "MIGRATION":
            return self._migration(str(native.details.get("status", "")), native.at_ns)
        if native.name == "JOB_STATUS_CHANGE":
            return self._mirror(str(native.details.get("status", "")), native.at_ns)
        if native.name == "MIGRATION_PASS":
            return self.passes(int(native.details.get("pass", 0)), native.at_ns)
        if native.name == "BLOCK_IO_ERROR":
            self._stopped_by_disk = native.details.get("action") == "stop"
        if native.name in ("SHUTDOWN", "GUEST_PANICKED"):
            self._guest_ends = True
            self.panicked = self.panicked or native.name == "GUEST_PANICKED"
        if native.name == "STOP" and not (self._stopped_by_disk or self._guest_ends):
            stopped = self.once(Kind.SOURCE_STOPPED, native.at_ns, Side.SOURCE)
            return [*stopped, *self.once(Kind.SWITCH_SEEN, native.at_ns, Side.SOURCE)]
        if native.name == "RESUME":
            self._stopped_by_disk = False
            if Kind.SOURCE_STOPPED in self._seen:
                return self.once(Kind.SOURCE_RESUMED, native.at_ns, Side.SOURCE)
        return []

    def _mirror(self, status: str, at_ns: int) -> list[Event]:
        """Take the state of a block job; while disks are moved, the first one that runs is a mirror of theirs."""
        if self._plan.storage is None or status != "running" or Kind.MEMORY_SEEN in self._seen or self.switched:
            return []
        started = self.once(Kind.TRANSFER_STARTED, at_ns, Side.SOURCE, {"reference": self._reference})
        return [*started, *self.once(Kind.STORAGE_SEEN, at_ns, Side.SOURCE)]

    def _migration(self, status: str, at_ns: int) -> list[Event]:
        events: list[Event] = []
        if status in ("setup", "active", *_SWITCH_STATES):
            events += self.once(Kind.TRANSFER_STARTED, at_ns, Side.SOURCE, {"reference": self._reference})
        if status == "active":
            events += self.once(Kind.MEMORY_SEEN, at_ns, Side.SOURCE)
        if status in _SWITCH_STATES:
            events += self.once(Kind.SWITCH_SEEN, at_ns, Side.SOURCE)
        if status == _IN_HALVES:
            events += self.once(Kind.POSTCOPY_SEEN, at_ns, Side.SOURCE)
        if status == _HALVES_BROKEN:
            events += self.broke(at_ns, "the source's QEMU has lost the other half")
        return events

    def _destination_qmp(self, native: NativeEvent) -> list[Event]:
        if native.name == "MIGRATION" and native.details.get("status") == _WHOLE and self.in_halves:
            return self.once(Kind.POSTCOPY_ENDED, native.at_ns, Side.DESTINATION)
        return self.once(Kind.DESTINATION_RAN, native.at_ns, Side.DESTINATION) if native.name == "RESUME" else []

    def _lifecycle(self, side: Side, native: NativeEvent) -> list[Event]:
        if side is Side.DESTINATION:
            arrived = (native.event, native.detail) == (LIFECYCLE_SUSPENDED, LIFECYCLE_PAUSED)
            return self._arrived(native.at_ns) if arrived and self.following else []
        ended = native.event == LIFECYCLE_CRASHED or (native.event == LIFECYCLE_STOPPED and native.detail != _MIGRATED)
        if ended and self.following and not self._ends_source and Kind.DESTINATION_RAN not in self._seen:
            return self.once(Kind.SOURCE_GONE, native.at_ns, side)
        return []

    def _arrived(self, at_ns: int) -> list[Event]:
        """A copy that arrives paused waits to be let run; unless that is libvirt's affair, which leaves it paused."""
        if self._plan.hand_over is HandOver.STRICT:
            return self.once(Kind.DESTINATION_ARRIVED, at_ns, Side.DESTINATION)
        paused = self._plan.vm_state is VmState.PAUSED
        return self.once(Kind.LEFT_PAUSED, at_ns, Side.DESTINATION) if paused else []

    def _event(self, kind: Kind, at_ns: int, side: Side, values: Mapping[str, Any] | None = None) -> Event:
        host = self._plan.source if side is Side.SOURCE else self._plan.destination
        return Event(kind, at_ns, values or {}, side=side, host=host)
