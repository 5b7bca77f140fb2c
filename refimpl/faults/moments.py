"""The moment at which a fault strikes, held or awaited and never guessed.

* The memory phase is held by limits of the transfer (`hold`), on a move whose bandwidth was limited.
* Every phase of a conductor, and each command before and after it is given, is held by a stop point (`stopped_at`).
* The steps of QEMU's own switch, which nothing can hold, are told by its MIGRATION event (`on_migration`), and what
  comes after it by the destination's own events (`on_native` with `arrived` or `ran`).
* Any event of an operation's stream may set off a fault (`armed`).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from refimpl.backends.libvirt import connection
from refimpl.backends.libvirt.tap import Taps
from refimpl.backends.libvirt.watch import LIFECYCLE_PAUSED, LIFECYCLE_SUSPENDED, NativeEvent
from refimpl.hosts.stops import LOOK_AGAIN_S, STOP_FILE_VARIABLE, STOP_VARIABLE
from refimpl.hosts.wait import until
from refimpl.lab.errors import LabError
from refimpl.model.errors import RefimplError
from refimpl.model.events import Kind
from refimpl.model.group import HostEntry
from refimpl.model.phase import Phase

REACHED_S = 60.0
_LEAST_DOWNTIME_MS, _MOST_DOWNTIME_MS = 1, 30_000
_FULL_SPEED_MIB_S = 10_000


class Followed(Protocol):
    """An operation whose events can be followed, from the first on, live."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield its events as JSON values until it ends."""
        ...


@contextmanager
def hold(operation: Followed, phase: Phase, source: HostEntry, vm_id: str) -> Iterator[None]:
    """Wait until an operation is in the memory phase and keep it there until the end of the block.

    The move has to be limited to a bandwidth that its guest dirties faster (libvirt-qemu 9.3). LabError
    `fault.not_held` when it ends before. ValueError for another phase: a stop point holds those.
    """
    if phase is not Phase.MEMORY:
        raise ValueError(f"{phase} is held by a stop point, set before the move begins")
    _come_to(operation, phase)
    _limit(source, vm_id, _LEAST_DOWNTIME_MS)
    try:
        yield
    finally:
        with contextlib.suppress(*connection.failures()):
            _limit(source, vm_id, _MOST_DOWNTIME_MS, _FULL_SPEED_MIB_S)


def _come_to(operation: Followed, phase: Phase) -> None:
    end: object = "no end"
    for event in operation.events():
        if event["kind"] == Kind.PHASE_ENTERED:
            end = event["values"]["phase"]
            if end == phase:
                return
    raise LabError("fault.not_held", operation=operation.id, phase=str(phase), end=str(end))


def _limit(host: HostEntry, vm_id: str, downtime_ms: int, speed_mib_s: int | None = None) -> None:
    with connection.fresh(host) as fresh:
        domain = fresh.lookupByUUIDString(vm_id)
        if speed_mib_s is not None:
            domain.migrateSetMaxSpeed(speed_mib_s)
        domain.migrateSetMaxDowntime(downtime_ms, 0)


@dataclass(slots=True)
class StopPoint:
    """A stop point in a conductor that is started while it is set."""

    name: str
    marker: Path

    def reached(self, alive: Callable[[], bool] = lambda: True, timeout_s: float = REACHED_S) -> int | None:
        """Wait until a process stands there, and return its pid; None when `alive` says no first, or not in time."""
        until(lambda: self.marker.exists() or not alive(), timeout_s, LOOK_AGAIN_S)
        return int(self.marker.read_text("utf-8").split()[-1]) if self.marker.exists() else None

    def go(self) -> None:
        """Let it go on."""
        Path(f"{self.marker}.go").touch()


@contextmanager
def stopped_at(name: str, marker: Path) -> Iterator[StopPoint]:
    """Make conductors that are started inside stop at a point; whoever stands there goes on at the end of the block.

    `marker`: a file that does not exist yet, which says that the point was reached.
    """
    stop = StopPoint(name, marker)
    os.environ[STOP_VARIABLE], os.environ[STOP_FILE_VARIABLE] = name, str(marker)
    try:
        yield stop
    finally:
        del os.environ[STOP_VARIABLE], os.environ[STOP_FILE_VARIABLE]
        stop.go()


@dataclass(slots=True)
class Trigger:
    """What waits for its moment. `failure`: why the act could not be done then."""

    act: Callable[[], None]
    fired: threading.Event = field(default_factory=threading.Event)
    failure: Exception | None = None
    _set: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fire(self) -> None:
        """Do the act, the first time, unless it is too late."""
        with self._lock:
            if not self._set or self.fired.is_set():
                return
            try:
                self.act()
            except (RefimplError, OSError) as failure:
                self.failure = failure
            self.fired.set()

    def disarm(self) -> None:
        """From now on nothing is done."""
        with self._lock:
            self._set = False


@contextmanager
def armed(operation: Followed, kind: Kind, act: Callable[[], None]) -> Iterator[Trigger]:
    """Do something as soon as an operation tells an event of a kind, at most once and only inside the block."""
    trigger = Trigger(act)

    def follow() -> None:
        for event in operation.events():
            if event["kind"] == kind:
                trigger.fire()
                return

    threading.Thread(target=follow, name=f"armed for {kind}", daemon=True).start()
    try:
        yield trigger
    finally:
        trigger.disarm()


Heard = Callable[[NativeEvent], bool]
"""Whether a native event is the moment that is waited for."""


def migration_is(*states: str) -> Heard:
    """Hear that QEMU's migration is in one of these states, in QEMU's words: `active`, `device`, `completed`."""
    return lambda heard: (
        heard.source == "qmp" and heard.name == "MIGRATION" and heard.details.get("status") in frozenset(states)
    )


def arrived(heard: NativeEvent) -> bool:
    """Whether all has arrived at a destination that is told to wait: with strict hand-over (handover 1)."""
    return (heard.source, heard.event, heard.detail) == ("lifecycle", LIFECYCLE_SUSPENDED, LIFECYCLE_PAUSED)


def ran(heard: NativeEvent) -> bool:
    """Whether a copy runs on: at a destination, the end of the blackout."""
    return (heard.source, heard.name) == ("qmp", "RESUME")


@contextmanager
def on_migration(host: HostEntry, vm_id: str, states: frozenset[str], act: Callable[[], None]) -> Iterator[Trigger]:
    """Do something as soon as the QEMU of a VM on a host says that its migration is in one of these states.

    As of `on_native`.
    """
    with on_native(host, vm_id, migration_is(*states), act) as trigger:
        yield trigger


@contextmanager
def on_native(host: HostEntry, vm_id: str, moment: Heard, act: Callable[[], None]) -> Iterator[Trigger]:
    """Do something as soon as a host tells of a moment of a VM there. The act must not ask libvirt anything."""
    trigger, taps = Trigger(act), Taps(time.time_ns)

    def heard(native: NativeEvent) -> None:
        if moment(native):
            trigger.fire()

    taps.listen(host.name, vm_id, heard)
    opened = connection.open_connection(host)
    try:
        taps.attach(host, opened)
        yield trigger
    finally:
        trigger.disarm()
        with contextlib.suppress(TimeoutError):
            # A daemon that is frozen takes no leave.
            connection.bounded(lambda: connection.close_quietly(opened), connection.CLOSE_TIMEOUT_S, "close")
