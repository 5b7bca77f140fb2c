"""The backend that the engine drives: takes commands, gives each to its own file, and answers by events.

Ordinary commands of one operation wait for each other in a thread of its own. The long call, a cancel, a forced
switch and the look for the binding have threads of their own: none of them may wait behind another command.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from refimpl.backends.libvirt import connection, post_copy
from refimpl.backends.libvirt.binding import allow_run, look_for_binding
from refimpl.backends.libvirt.ending import end_source
from refimpl.backends.libvirt.evidence import inspect
from refimpl.backends.libvirt.facts import observe
from refimpl.backends.libvirt.fencing import fence
from refimpl.backends.libvirt.follow import adopt
from refimpl.backends.libvirt.operation import Operation, Reach
from refimpl.backends.libvirt.probe import probe
from refimpl.backends.libvirt.settle import (
    clean_up,
    clean_up_moved,
    clean_up_undone,
    settle_destination,
    settle_source,
)
from refimpl.backends.libvirt.steering import cancel, change_bandwidth, force_switch
from refimpl.backends.libvirt.tap import Taps
from refimpl.backends.libvirt.transfer import prepare, transfer
from refimpl.engine.backend import WORKER, Capabilities, Post
from refimpl.model.events import Event, Kind
from refimpl.model.facts import Facts, Scope
from refimpl.model.group import Group
from refimpl.model.request import Command, CommandKind, HandOver, MigrationRequest

Work = Callable[[Operation], None]

IN_ORDER: dict[CommandKind, Work] = {
    CommandKind.PREPARE: prepare,
    CommandKind.ALLOW_RUN: allow_run,
    CommandKind.INSPECT: inspect,
    CommandKind.FENCE: fence,
    CommandKind.ADOPT: adopt,
    CommandKind.RECOVER_POSTCOPY: post_copy.recover,
    CommandKind.END_HALVES: post_copy.end_halves,
    CommandKind.SETTLE_SOURCE: settle_source,
    CommandKind.SETTLE_DESTINATION: settle_destination,
    CommandKind.CLEAN_UP: clean_up,
    CommandKind.CLEAN_UP_UNDONE: clean_up_undone,
    CommandKind.CLEAN_UP_MOVED: clean_up_moved,
}
AT_ONCE: dict[CommandKind, Work] = {
    CommandKind.START_TRANSFER: transfer,
    CommandKind.REQUEST_CANCEL: cancel,
    CommandKind.STEER_SWITCH: force_switch,
    CommandKind.STEER_BANDWIDTH: change_bandwidth,
    CommandKind.START_POSTCOPY: post_copy.start,
    CommandKind.LOOK_FOR_BINDING: look_for_binding,
    CommandKind.END_SOURCE: end_source,
}


class LibvirtBackend:
    """QEMU through libvirt, by strict hand-over unless the plan says delegated."""

    def __init__(self, group: Group, post: Post, now_ns: Callable[[], int]) -> None:
        """`post` takes the events, from any thread; `now_ns` is the wall clock in nanoseconds since the epoch."""
        connection.module()
        self._group = group
        self._post = post
        self._now_ns = now_ns
        self._taps = Taps(now_ns)
        self._connections = connection.Connections(on_open=self._taps.attach)
        self._operations: dict[str, Operation] = {}
        self._queues: dict[str, queue.SimpleQueue[Callable[[], None] | None]] = {}

    @property
    def name(self) -> str:
        """The backend's short name."""
        return "libvirt"

    def capabilities(self) -> Capabilities:
        """Return what this backend can do and show."""
        return Capabilities(
            hand_over=HandOver.STRICT,
            shows_phases=True,
            shows_passes=True,
            shows_blackout=True,
            steers_switch=True,
            cancels=True,
            adopts=True,
            others=(HandOver.DELEGATED,),
            post_copy=True,
        )

    def observe(self, scope: Scope) -> Facts:
        """Look at hosts now; free of side effects."""
        return observe(self._group, scope, self._now_ns() / 1e9)

    def probe(self, operation: str, request: MigrationRequest) -> Facts:
        """Look at all hosts, and probe the storage of the VM."""
        return probe(self._group, operation, request, self._now_ns() / 1e9)

    def submit(self, command: Command) -> None:
        """Take a command and return at once; ValueError when it is not one for a backend."""
        if command.kind in (CommandKind.OBSERVE, CommandKind.PROBE):
            self._in_order(command.operation, lambda: self._observe(command))
            return
        operation = self._operation(command)
        if command.kind in IN_ORDER:
            work = IN_ORDER[command.kind]
            self._in_order(command.operation, lambda: work(operation))
        elif command.kind in AT_ONCE:
            name = f"{WORKER}{command.kind}"
            threading.Thread(target=AT_ONCE[command.kind], args=(operation,), name=name, daemon=True).start()
        else:
            raise ValueError(f"{command.kind} is not a command for a backend")

    def close(self) -> None:
        """End threads and connections. A transfer that is under way goes on: the source's daemon drives it."""
        for operation in self._operations.values():
            operation.closing.set()
            operation.forget()
        for waiting in self._queues.values():
            waiting.put(None)
        self._connections.close()

    def _observe(self, command: Command) -> None:
        if command.kind is CommandKind.PROBE:
            facts = self.probe(command.operation, command.request)
        else:
            facts = self.observe(Scope(vm=command.request.vm, request=command.request))
        self._post(Event(Kind.FACTS_SEEN, self._now_ns(), {"facts": facts}))

    def _operation(self, command: Command) -> Operation:
        if command.plan is None:
            raise ValueError(f"{command.kind} needs a plan")
        known = self._operations.get(command.operation)
        if known is None:
            reach = Reach(self._group, command.plan, self._connections, self._taps)
            known = Operation(command.operation, command.plan, reach, self._post, self._now_ns)
            self._operations[command.operation] = known
        known.plan, known.ownership, known.source_older = command.plan, command.ownership, command.source_older
        known.fence_order, known.fenced = command.fence or known.fence_order, command.fenced
        return known

    def _in_order(self, operation: str, work: Callable[[], None]) -> None:
        waiting = self._queues.get(operation)
        if waiting is None:
            waiting = self._queues[operation] = queue.SimpleQueue()
            name = f"{WORKER}{operation}"
            threading.Thread(target=_work_off, args=(waiting,), name=name, daemon=True).start()
        waiting.put(work)


def _work_off(waiting: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (work := waiting.get()) is not None:
        work()
