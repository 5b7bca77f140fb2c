"""One operation whose two hosts are made of fakes that note, in one list, what each was asked for and in what order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from refimpl.backends.libvirt import connection
from refimpl.backends.libvirt.operation import Operation, Reach
from refimpl.backends.libvirt.tap import Taps
from refimpl.hosts.channel import Completed
from refimpl.model.events import Event, Kind
from refimpl.model.request import VmState
from tests.unit.backends.libvirt import recorded as r

libvirt = pytest.importorskip("libvirt")

MAC = "52:54:00:aa:00:01"
XML = f"""<domain><name>a</name><devices>
<interface type='bridge'><mac address='{MAC}'/><source bridge='sw1'/></interface></devices></domain>"""
STATES = {
    VmState.RUNNING: libvirt.VIR_DOMAIN_RUNNING,
    VmState.PAUSED: libvirt.VIR_DOMAIN_PAUSED,
    VmState.OFF: libvirt.VIR_DOMAIN_SHUTOFF,
}


def refusal(code: int, domain: int = 10, text: str = "told by the daemon") -> Exception:
    """Return what libvirt raises with that code."""
    error: Exception = libvirt.libvirtError(text)
    error.err = (code, domain, text, 2, None, None, None, 0, 0)  # type: ignore[attr-defined]
    return error


class Channel(r.FakeChannel):
    """A host that notes its commands: the host, the command, and what it was given to read."""

    def __init__(self, name: str, done: list[str]) -> None:
        super().__init__({"/run/virtlockd.pid": b"49", "/proc/49/comm": b"virtlockd\n"})
        self._name, self._done = name, done
        self.fails: dict[str, Completed | OSError] = {}

    def run(self, command: Sequence[str], *, timeout_s: float = 30.0, stdin: str | None = None) -> Completed:
        self._done.append(" ".join((self._name, *command, *((stdin or "").split()))))
        answer = self.fails.get(command[0], Completed(0, "", ""))
        if isinstance(answer, OSError):
            raise answer
        return answer


class Domain:
    """The VM at the source; it takes everything, but for calls that are to raise."""

    def __init__(self, move: Move) -> None:
        self._move = move

    def XMLDesc(self, _which: int) -> str:
        return XML

    def state(self) -> list[int]:
        return [STATES[self._move.operation.plan.vm_state], 1]

    def isActive(self) -> int:
        return int(self._move.operation.plan.vm_state is not VmState.OFF)

    def isPersistent(self) -> int:
        return 1

    def setMetadata(self, *_: Any) -> None:
        self._move.done.append("mark")

    def autostart(self) -> int:
        return int(self._move.autostart)

    def setAutostart(self, on: int) -> None:
        self._move.done.append(f"autostart {on}")

    def migrateSetMaxDowntime(self, limit_ms: int, _flags: int) -> None:
        self._move.call(f"downtime {limit_ms}")

    def migrateToURI3(self, _uri: str, parameters: dict[str, Any], flags: int) -> None:
        self._move.given = (parameters, flags)
        self._move.call("migrate")

    def abortJob(self) -> None:
        self._move.call("abort")

    def resume(self) -> None:
        self._move.call("resume")


class Connection:
    def close(self) -> None:
        """Nothing is open."""


class Move:
    """An operation, what its hosts were asked for (`done`) and what it told (`events`)."""

    def __init__(self, patch: pytest.MonkeyPatch, **plan: Any) -> None:
        self.done: list[str] = []
        self.autostart = False
        self.events: list[Event] = []
        self.given: tuple[dict[str, Any], int] = ({}, 0)
        self.raises: dict[str, Exception] = {}
        self.meanwhile: dict[str, Callable[[], None]] = {}
        chosen = replace(r.PLAN, networks=("192.0.2.12", "198.51.100.12"), **plan)
        reach = Reach(replace(r.GROUP, hosts=(r.host("h1", "sw1"), r.host("h2", "sw2"))), chosen, _Kept(), Taps(int))
        self.source, self.destination = Channel("h1", self.done), Channel("h2", self.done)
        reach.source_channel, reach.destination_channel = self.source, self.destination
        self.operation = Operation("0a1b2c3d", chosen, reach, self.events.append, lambda: 7)
        patch.setattr(connection, "open_connection", lambda *_: Connection())
        patch.setattr(connection, "find", lambda *_: Domain(self))

    def call(self, what: str) -> None:
        """Note a call of the daemon, have happen what happens meanwhile, and raise what it is to raise."""
        self.done.append(what)
        name = what.partition(" ")[0]
        if name in self.meanwhile:
            self.meanwhile[name]()
        if name in self.raises:
            raise self.raises[name]

    def steps(self, *words: str) -> list[str]:
        """Return which of these words begin what was done, in the order in which it was."""
        return [next(word for word in words if word in step) for step in self.done if any(w in step for w in words)]

    @property
    def kinds(self) -> list[Kind]:
        return [event.kind for event in self.events]

    @property
    def problem(self) -> Any:
        """The problem of the only event that was told."""
        (event,) = self.events
        return event["problem"]


class _Kept(connection.Connections):
    def to(self, host: Any) -> Any:
        return host
