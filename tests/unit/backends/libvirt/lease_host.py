"""A host made of fakes on which one VM runs without its lease, for the tests of taking leases again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from refimpl.backends.libvirt import connection, mend_leases
from refimpl.backends.libvirt.watch import NativeEvent
from refimpl.hosts.channel import Completed
from tests.unit.backends.libvirt import recorded as r
from tests.unit.backends.libvirt.mover import refusal

libvirt = pytest.importorskip("libvirt")

OFF_ID = "a9c6b1f0-0000-4000-8000-00000000000f"
DEVICE, DAEMON = os.makedev(0xFE, 0), 49
BUSY, NO_METADATA = 87, libvirt.VIR_ERR_NO_DOMAIN_METADATA
STANDS_NS = 24_000_000


class Killed(BaseException):
    """The process that mends was killed."""


class Host(r.FakeChannel):
    """A host that notes what is done. Its one VM `web` runs without its lease, as a killed lock daemon leaves it."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []
        self.state, self.pid, self.mark, self.move = "running", 38, "", ""
        self.lock_daemon, self.ordered, self.file, self.lease = False, False, True, True
        self.holder: int | None = None
        self.off_holder: int | None = None
        self.raises: dict[str, BaseException] = {}
        self.hears: Callable[[NativeEvent], None] = lambda _: None

    def act(self, what: str) -> None:
        self.done.append(what)
        if what in self.raises:
            raise self.raises.pop(what)

    def run(self, command: Sequence[str], *, timeout_s: float = 30.0, stdin: str | None = None) -> Completed:
        if self.down:
            raise OSError("host is down")
        if command[0] == "ls":
            return Completed(0, "autostarted\nweb.xml\n" if self.state else "autostarted\n", "")
        if command[0] == "find":
            rows = ((77, r.VM_ID), (78, OFF_ID), (79, "0" * 64))
            return Completed(0, "".join(f"{DEVICE} {inode} {name}\n" for inode, name in rows), "")
        if command[0] == "touch":
            self.act("file")
            self.file = True
        return Completed(0, f"{DEVICE} 77\n", "") if self.file else Completed(1, "", "no such file")

    def read(self, path: str) -> bytes:
        if path == "/proc/locks":
            holders = {77: self.holder, 78: self.off_holder, 79: DAEMON}
            rows = (f"1: POSIX ADVISORY WRITE {pid} fe:00:{inode} 0 EOF\n" for inode, pid in holders.items() if pid)
            return "".join(rows).encode()
        if path == f"/proc/{DAEMON}/comm":
            return b"virtlockd\n"
        if path == "/run/libvirt/virtlockd.pid" and self.lock_daemon:
            return f"{DAEMON}\n".encode()
        if path == "/run/libvirt/qemu/web.xml" and self.state:
            return self._status().encode()
        return super().read(path)

    def _status(self) -> str:
        lease = "<lease><lockspace>leases</lockspace><key>web</key><target path='/g/shared'/></lease>"
        return (
            f"<domstatus state='{self.state}' reason='user' pid='{self.pid}'><domain type='qemu'><name>web</name>"
            f"<uuid>{r.VM_ID}</uuid><metadata>{self.mark}{self.move}</metadata>"
            f"<devices>{lease if self.lease else ''}</devices></domain></domstatus>"
        )

    # its daemons

    def lock_daemon_runs(self) -> bool:
        return self.lock_daemon

    def in_order(self) -> bool:
        return self.lock_daemon and self.ordered

    def start(self) -> None:
        if not self.lock_daemon:
            self.act("start lock daemon")
            self.lock_daemon = True

    def end_lock_daemon(self) -> None:
        self.act("end lock daemon")
        self.lock_daemon = self.ordered = False
        self.holder = self.off_holder = None

    def restart_libvirtd(self) -> None:
        self.act("restart libvirtd")
        self.ordered = True

    # the VM's domain

    def setMetadata(self, _type: int, text: str | None, prefix: str, namespace: str, _flags: int) -> None:
        if text is None:
            if not self.mark:
                raise refusal(NO_METADATA)
            self.act("unmark")
            self.mark = ""
        else:
            self.act("mark")
            self.mark = text.replace("<mending", f"<{prefix}:mending xmlns:{prefix}='{namespace}'", 1)

    def suspend(self) -> None:
        self.act("suspend")
        self.state, self.holder = "paused", None
        self.hears(NativeEvent("qmp", 1_000, name="STOP"))

    def resume(self) -> None:
        if not self.in_order():
            self.act("resume without lease space")
            raise refusal(1, text="Lockspace for path /g/shared does not exist")
        self.act("resume")
        self.state, self.holder = "running", DAEMON
        self.hears(NativeEvent("qmp", 1_000 + STANDS_NS, name="RESUME"))


class FakeTaps:
    """Has the host's events told to whoever listens."""

    host: Host

    def __init__(self, _now_ns: Any) -> None:
        self._listener: Any = None

    def listen(self, _host: str, vm_id: str, listener: Callable[[NativeEvent], None]) -> None:
        assert vm_id == r.VM_ID
        self._listener = listener

    def attach(self, _host: Any, _connection: Any) -> None:
        self.host.hears = self._listener


def without_lease(monkeypatch: pytest.MonkeyPatch) -> Host:
    """Return the host, and have it reached by the code under test."""
    host = Host()

    @contextmanager
    def fresh(_host: Any, _timeout_s: float = 1) -> Iterator[str]:
        yield "connection"

    monkeypatch.setattr(connection, "fresh", fresh)
    monkeypatch.setattr(connection, "find", lambda _, _id: host if host.state else None)
    monkeypatch.setattr(mend_leases, "Taps", type("Taps", (FakeTaps,), {"host": host}))
    monkeypatch.setattr(mend_leases, "_HELD_S", 0.1)
    monkeypatch.setattr(mend_leases, "_HEARD_S", 0.1)
    return host
