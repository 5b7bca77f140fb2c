"""The harness of the libvirt backend: two hosts of a real lab, one guest, a backend in a process that can be killed.

Every backend object lives in a process of its own, as in a conductor, and `lose_backend` ends it with SIGKILL. Closing
the object would not do: the thread with the native call and its connection to the daemon would live on in the tests'
process, and the daemon would never see its client vanish, which is what the tests of adopting are about.

A host goes down by losing its power: what it then says is nothing, at once. A daemon that is merely silent takes every
question to its time limit; tests/lab looks at that case.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from refimpl.app.vm_places import outside
from refimpl.backends.libvirt.backend import LibvirtBackend
from refimpl.engine.backend import Backend, Capabilities
from refimpl.model.events import Event, Kind
from refimpl.model.facts import Facts, Scope, VmState
from refimpl.model.group import Group
from refimpl.model.request import Command, HandOver, MigrationRequest, Plan
from tests.lab.bed import Bed
from tests.lab.libvirt_support import EVENT_TIMEOUT_S, host_of, plan_of

ROOT = Path(__file__).parents[2]
GUEST: dict[str, Any] = {"writer_rate_pages_per_s": 6000, "writer_working_set_mib": 4, "writer_content": "random"}
"""Writes more within the longest downtime of a held transfer than that sends, over a set that is soon sent again."""

HELD_MIB_S, HELD_DOWNTIME_MS = 16, 1
FREE_MIB_S, FREE_DOWNTIME_MS = 10_000, 30_000


class RemoteBackend:
    """The seam, carried out by a `LibvirtBackend` in a child process."""

    name = "libvirt"

    def __init__(self, group: Group) -> None:
        self._pipe, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-m", __spec__.name, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT)
        self._events: deque[Event] = deque()
        self._deadline_s = 0.0
        self._ask("open", group)

    def capabilities(self) -> Capabilities:
        found: Capabilities = self._ask("capabilities")
        return found

    def observe(self, scope: Scope) -> Facts:
        found: Facts = self._ask("observe", scope)
        return found

    def probe(self, operation: str, request: MigrationRequest) -> Facts:
        found: Facts = self._ask("probe", operation, request)
        return found

    def submit(self, command: Command) -> None:
        self._deadline_s = time.monotonic() + EVENT_TIMEOUT_S
        self._ask("submit", command)

    def close(self) -> None:
        self._ask("close")

    def next_event(self) -> Event:
        """Wait for the next event. The wait is bounded from the last command on: progress is not an answer."""
        if not self._events:
            self._events.append(self._receive(self._deadline_s - time.monotonic())[1])
        return self._events.popleft()

    def kill(self) -> None:
        """End the process as a controller ends that is killed; what it had told is forgotten."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()

    def _ask(self, verb: str, *values: Any) -> Any:
        self._pipe.send((verb, values))
        while (told := self._receive())[0] == "event":
            self._events.append(told[1])
        return told[1]

    def _receive(self, timeout_s: float = EVENT_TIMEOUT_S) -> tuple[str, Any]:
        assert timeout_s > 0, "the answer did not come"
        assert self._pipe.poll(timeout_s), "nothing comes from the backend any more"
        received: tuple[str, Any] = self._pipe.recv()
        return received


def serve(pipe: Connection) -> None:
    """Carry out the seam for a `RemoteBackend` until it hangs up."""
    sending = threading.Lock()
    backend: LibvirtBackend | None = None

    def tell(what: str, value: Any) -> None:
        with sending:
            pipe.send((what, value))

    with suppress(EOFError):
        while True:
            verb, values = pipe.recv()
            if verb == "open":
                backend = LibvirtBackend(values[0], lambda event: tell("event", event), time.time_ns)
                tell("answer", None)
            else:
                tell("answer", getattr(backend, verb)(*values))


class LibvirtHarness:
    """The libvirt backend; the source is the host on which the VM happens to be."""

    name = "libvirt"
    can = frozenset({"hold_memory", "host_down", "own_disks", "states"})

    def __init__(self, bed: Bed, hand_over: HandOver = HandOver.STRICT) -> None:
        self._hand_over = hand_over
        self._bed = bed
        self.source = bed.place()
        self.destination = next(h.name for h in bed.lab.group.hosts if h.name != self.source)
        self._remote: RemoteBackend | None = None
        self._held = False
        self._state = VmState.RUNNING
        self._strangers: list[Path] = []

    @property
    def backend(self) -> Backend:
        return self._present()

    def plan(self) -> Plan:
        bandwidth_mib_s = HELD_MIB_S if self._held else 0
        sides = (self.source, self.destination)
        values: dict[str, Any] = {"bandwidth_mib_s": bandwidth_mib_s, "vm_state": self._state}
        values["hand_over"] = self._hand_over
        return plan_of(self._bed.lab.group, self._bed.spec, *sides, **values)

    def next_event(self) -> Event:
        event = self._present().next_event()
        if self._held and event.kind is Kind.MEMORY_SEEN:
            self._bed.domain_call(self.source, ("migrateSetMaxDowntime", HELD_DOWNTIME_MS, 0))
        return event

    def be(self, state: VmState) -> None:
        self._bed.domain_call(self.source, ("suspend",) if state is VmState.PAUSED else ("destroy",))
        self._state = state

    def own_disks(self) -> str:
        return host_of(self._bed.lab.group, self.destination).storage_directories[0]

    def has_file(self, host: str, path: str) -> bool:
        return outside(host_of(self._bed.lab.group, host), path).exists()

    def put_file(self, host: str, path: str) -> None:
        self._strangers.append(outside(host_of(self._bed.lab.group, host), path))
        self._strangers[-1].write_text("a stranger's")

    def hold_memory(self) -> None:
        self._held = True

    def let_go(self) -> None:
        calls = (("migrateSetMaxSpeed", FREE_MIB_S), ("migrateSetMaxDowntime", FREE_DOWNTIME_MS, 0))
        self._bed.domain_call(self.source, *calls)

    def lose_backend(self) -> None:
        self._present().kill()
        self._remote = None

    def host_down(self, host: str) -> None:
        self._bed.lab.host_power_off(host)

    def close(self) -> None:
        if self._remote is not None:
            self._remote.kill()
        for path in self._strangers:
            path.unlink()
        self._bed.tidy()

    def _present(self) -> RemoteBackend:
        if self._remote is None:
            self._remote = RemoteBackend(self._bed.lab.group)
        return self._remote


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
