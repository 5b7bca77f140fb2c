"""What this process knows of one operation: its hosts, what was seen, how its long call stands, and what was wished.

Native events come in the event thread and commands in their own threads; `lock` guards everything that changes.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from refimpl.backends.libvirt import connection, ended, lease, status
from refimpl.backends.libvirt.lease_space import LeaseWatch
from refimpl.backends.libvirt.lock_watch import LockWatch
from refimpl.backends.libvirt.stamp import Stamp
from refimpl.backends.libvirt.tap import Taps
from refimpl.backends.libvirt.watch import NativeEvent, Watch
from refimpl.engine.backend import Post
from refimpl.hosts.channel import HostChannel
from refimpl.hosts.factory import channel_for
from refimpl.model.errors import Problem, Value
from refimpl.model.events import Event, Kind
from refimpl.model.fencing import FenceOrder
from refimpl.model.group import Group, HostEntry
from refimpl.model.ownership import OwnerRecord
from refimpl.model.phase import Side
from refimpl.model.request import HandOver, Plan

_LET_GO = frozenset({Kind.DESTINATION_RAN, Kind.LEFT_PAUSED})
LET_OUT_TIMEOUT_S = 15.0


class Call(Enum):
    """How this process's own long call stands. FOLLOWED: the transfer is another process's, and is watched."""

    IDLE = "idle"
    RUNNING = "running"
    FOLLOWED = "followed"
    RETURNED = "returned"


class Reach:
    """The two hosts of a plan, and everything by which they are reached."""

    def __init__(self, group: Group, plan: Plan, connections: connection.Connections, taps: Taps) -> None:
        """ValueError when the group does not know a host of the plan."""
        source, destination = group.host(plan.source), group.host(plan.destination)
        if source is None or destination is None:
            raise ValueError(f"group {group.name} does not have the hosts of the plan")
        self.group = group
        self.source, self.destination = source, destination
        self.source_channel: HostChannel = channel_for(source)
        self.destination_channel: HostChannel = channel_for(destination)
        self.connections = connections
        self.taps = taps

    def sides(self) -> Sequence[tuple[Side, HostEntry, HostChannel]]:
        """Return both sides with host and channel, the source first."""
        return (
            (Side.SOURCE, self.source, self.source_channel),
            (Side.DESTINATION, self.destination, self.destination_channel),
        )


class Operation:
    """One operation in this process."""

    def __init__(self, id: str, plan: Plan, reach: Reach, post: Post, now_ns: Callable[[], int]) -> None:
        self.id = id
        self.plan = plan
        self.ownership: OwnerRecord | None = None
        self.source_older = False
        self.fence_order: FenceOrder | None = None
        self.fenced: tuple[str, ...] = ()
        self.reach = reach
        self.now_ns = now_ns
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.watch = Watch(plan, f"{plan.vm_id} on {plan.source}")
        self.call = Call.IDLE
        self.cancel_accepted = False
        self.closing = threading.Event()
        self.ending = threading.Lock()
        self.arrived_domain: Any = None
        self.last_returned: Event | None = None
        self._kept: list[Event] | None = None
        self.unmeasured: list[Event] = []
        self.on_sending: Callable[[], None] = lambda: None
        self.on_panic: Callable[[], None] = lambda: None
        self.on_let_go: Callable[[Any, Event], None] = lambda _, event: self.let_out(event)
        self.on_post_copy: Callable[[], None] = lambda: None
        self.halves_followed = 0
        self._letting_out = 0
        self._post = post
        self._pidfd: int | None = None
        self._lock_watch: LockWatch | None = None
        self._lease_watch: LeaseWatch | None = None
        self._listening: tuple[Callable[[NativeEvent], None], Callable[[NativeEvent], None]] | None = None

    def problem(self, id: str, side: Side, error: Exception, **more: Value) -> Problem:
        """Return a problem of this operation: what the system below or a host said, and on which side."""
        plan = self.plan
        values = {"vm": plan.vm, "operation": self.id, "source": plan.source, "detail": str(error), **more}
        host = plan.source if side is Side.SOURCE else plan.destination
        return Problem(id=id, values=values, side=side, host=host, native=connection.native(error))

    @property
    def stamp(self) -> Stamp:
        """The mark that it leaves on the VM."""
        return Stamp(self.id, self.plan, self.ownership.epoch if self.ownership else 0)

    @property
    def lease(self) -> str:
        """The VM's lease file, as every host sees it."""
        return lease.path(self.reach.group, self.plan.vm_id)

    def post(self, kind: Kind, side: Side | None = None, **values: Any) -> None:
        """Post an event that happens now."""
        host = {Side.SOURCE: self.plan.source, Side.DESTINATION: self.plan.destination}.get(side) if side else None
        self._post(Event(kind, self.now_ns(), values, side=side, host=host))

    def post_all(self, events: Sequence[Event]) -> None:
        """Post events in their order, and wake whoever waits for a change."""
        for event in events:
            self._post(event)
        if events:
            self.changed.notify_all()

    def returned(self, event: Event) -> None:
        """Post the CALL_RETURNED of the transfer, or what stands for it, and remember it: the last event of it."""
        with self.lock:
            self.changed.wait_for(lambda: self._letting_out == 0, LET_OUT_TIMEOUT_S)
            self.call = Call.RETURNED
            self.last_returned = event
            self.post_all([event])

    def take_over(self) -> None:
        """Stand for a call that has returned, or was another process's: its end is told by whoever follows."""
        with self.lock:
            if self.call is not Call.RUNNING:
                self.call = Call.FOLLOWED

    def listen(self) -> None:
        """Hear both hosts from now on: both connections are open, with taps. Errors as `open_connection`."""
        with self.lock:
            if self._listening is None:
                listeners = (self._source_told, self._destination_told)
                for (_, host, _), listener in zip(self.reach.sides(), listeners, strict=True):
                    self.reach.taps.listen(host.name, self.plan.vm_id, listener)
                self._listening = listeners
        for _, host, _ in self.reach.sides():
            self.reach.connections.to(host)

    def hold_source_process(self) -> None:
        """Open a pidfd of the source's QEMU, so that its end is seen for certain; nothing when it cannot be had."""
        if self._pidfd is not None:
            return
        seen = status.read_status(self.reach.source_channel, self.plan.vm)
        outer = self.reach.source_channel.outer_pid(seen.pid) if seen is not None and seen.pid else None
        if outer is not None:
            try:
                self._pidfd = os.pidfd_open(outer)
            except ProcessLookupError:
                return

    def source_process_ended(self) -> bool:
        """Whether the held process has ended; False when none is held."""
        with self.lock:
            if self._pidfd is None:
                return False
            poller = select.poll()
            poller.register(self._pidfd, select.POLLIN)
            return bool(poller.poll(0))

    def holds_source_process(self) -> bool:
        """Whether the source's process is held, ended or not."""
        return self._pidfd is not None

    def source_pidfd(self) -> int | None:
        """Return another descriptor of the held process, which the caller closes; None when none is held."""
        with self.lock:
            return None if self._pidfd is None else os.dup(self._pidfd)

    def await_source_process(self, timeout_ms: int) -> None:
        """Wait for the end of the held process (`ended.await_end`), if one is held. Events come meanwhile."""
        pidfd = self.source_pidfd()
        if pidfd is not None:
            ended.await_end(pidfd, timeout_ms)
            os.close(pidfd)

    def source_process_end(self) -> str:
        """Return how the held process ended (`ended.how`); empty when none is held or it cannot be told."""
        with self.lock:
            return "" if self._pidfd is None else ended.how(self._pidfd)

    def watch_lock_daemons(self) -> None:
        """Have LOCK_DAEMON_GONE told, once for each host, when its lock daemon ends; at once where none runs."""
        with self.lock:
            if self._lock_watch is not None:
                return
            watch = self._lock_watch = LockWatch(lambda side: self.post(Kind.LOCK_DAEMON_GONE, side))
        gone = [side for side, _, channel in self.reach.sides() if not watch.hold(side, channel)]
        watch.start()
        for side in gone:
            self.post(Kind.LOCK_DAEMON_GONE, side)

    def watch_lease(self) -> None:
        """Have LEASE_SPACE_GONE told, once for each host, when it does not see the VM's lease any more."""
        with self.lock:
            if self._lease_watch is not None:
                return
            watch = self._lease_watch = LeaseWatch(self.lease, self._lease_gone)
        watch.start({side: channel for side, _, channel in self.reach.sides()})

    def _lease_gone(self, side: Side, why: str) -> None:
        self.post(Kind.LEASE_SPACE_GONE, side, path=self.lease, detail=why)

    def forget(self) -> None:
        """Hear nothing more and let the process go."""
        with self.lock:
            if self._listening is not None:
                for (_, host, _), listener in zip(self.reach.sides(), self._listening, strict=True):
                    self.reach.taps.forget(host.name, self.plan.vm_id, listener)
                self._listening = None
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None
            if self._lock_watch is not None:
                self._lock_watch.close()
                self._lock_watch = None
            if self._lease_watch is not None:
                self._lease_watch.close()
                self._lease_watch = None

    def _post_or_measure(self, events: Sequence[Event]) -> None:
        """Post events, but for ends of passes that are to be posted with what is left: they wait for `progress`."""
        limited = self.plan.cancel_if_blackout_exceeds_ms is not None
        waiting = [event for event in events if limited and event.kind is Kind.PASS_ENDED]
        self.unmeasured += waiting
        self.post_all([event for event in events if event not in waiting])
        if waiting:
            self.changed.notify_all()

    def let_run(self, begins: bool) -> list[Event]:
        """Keep DESTINATION_RAN back from now on, for whoever lets it run; or no more, and return what was kept."""
        kept, self._kept = self._kept, [] if begins else None
        return kept or []

    def let_out(self, event: Event) -> None:
        """Post what was given to `on_let_go`: the port is open, or is not to be had."""
        with self.lock:
            self._letting_out -= 1
            self.post_all([event])

    def _given_away(self, domain: Any, events: list[Event]) -> list[Event]:
        """Give what says that a delegated copy runs to whoever opens its port first, and return the others."""
        if self.plan.hand_over is not HandOver.DELEGATED:
            return events
        for event in (event for event in events if event.kind in _LET_GO):
            self._letting_out += 1
            self.on_let_go(domain, event)
        return [event for event in events if event.kind not in _LET_GO]

    def _kept_back(self, events: list[Event]) -> list[Event]:
        if self._kept is None:
            return events
        self._kept += [event for event in events if event.kind is Kind.DESTINATION_RAN]
        return [event for event in events if event.kind is not Kind.DESTINATION_RAN]

    def _source_told(self, native: NativeEvent) -> None:
        self._told(Side.SOURCE, native)

    def _destination_told(self, native: NativeEvent) -> None:
        self._told(Side.DESTINATION, native)

    def _told(self, side: Side, native: NativeEvent) -> None:
        with self.lock:
            before, panicked = self.watch.sending, self.watch.panicked
            events = self._given_away(native.domain, self._kept_back(self.watch.tell(side, native)))
            if any(event.kind is Kind.DESTINATION_ARRIVED for event in events):
                self.arrived_domain = native.domain
            self._post_or_measure(events)
            begins = self.watch.sending and not before
            panics = self.watch.panicked and not panicked
            halves = any(event.kind is Kind.POSTCOPY_SEEN for event in events)
        if native.source == "job" or side is Side.DESTINATION:
            with self.lock:
                self.changed.notify_all()
        if begins:
            self.on_sending()
        if panics:
            self.on_panic()
        if halves:
            self.on_post_copy()
