"""An observer that asks neither libvirt nor QEMU: on which hosts a copy's processor ran, and what the guest says.

A copy runs when its vCPU thread uses the processor for a tenth of the time, by the kernel's own account. Every
20 ms both hosts are looked at; two copies ran when both used it in three looks one after the other: a thread that is
ended, or put into a state that came from elsewhere, uses it for a moment too. What is shorter shows in the lines of the
guest, one every 10 ms, each with a number: two copies that go on from one state both write it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from refimpl.backends.libvirt.status import read_status
from refimpl.hosts.namespace import NamespaceChannel
from refimpl.hosts.process import inner_pid, namespace_inode
from refimpl.lab import Lab
from refimpl.model.group import HostEntry

PERIOD_S = 0.02
_SHARE = 0.1
_LOOKS = 3
_NOTED = 40


@dataclass
class Seen:
    """What was observed: how many looks, on how many of them a copy ran on each host, and when on both.

    `beside`: every look in which both used the processor at all, with how much, so that a judgement can be judged.
    """

    looks: int = 0
    beside: list[dict[str, float]] = field(default_factory=list)
    ran: dict[str, int] = field(default_factory=dict)
    both: list[float] = field(default_factory=list)
    longest_s: float = 0.0


class Observer:
    """Watches a VM on all hosts of a lab from `with` on. It only reads files of /proc and of the hosts."""

    def __init__(self, lab: Lab, vm: str) -> None:
        self.seen = Seen()
        self._hosts, self._vm = lab.group.hosts, vm
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="observer", daemon=True)
        self._outer: dict[tuple[str, int], int] = {}
        self._used: dict[tuple[str, int], int] = {}

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(10)

    def look_at(self, lab: Lab) -> None:
        """Look at the hosts as they are now: one that was off and on again has another init."""
        self._hosts = lab.group.hosts

    def _watch(self) -> None:
        in_a_row, began, last = 0, time.monotonic(), time.monotonic()
        while not self._end.wait(PERIOD_S):
            now = time.monotonic()
            enough_ns = (now - last) * 1e9 * _SHARE
            used = self._look()
            running = [host for host, used_ns in used.items() if used_ns > enough_ns]
            if len([host for host, used_ns in used.items() if used_ns]) > 1 and len(self.seen.beside) < _NOTED:
                noted = {host: round(used_ns / 1e6, 3) for host, used_ns in used.items()}
                self.seen.beside.append({"at_s": round(now - began, 3), "of_ms": round((now - last) * 1000, 1)} | noted)
            self.seen.looks += 1
            self.seen.longest_s = max(self.seen.longest_s, now - last)
            last = now
            for host in running:
                self.seen.ran[host] = self.seen.ran.get(host, 0) + 1
            in_a_row = in_a_row + 1 if len(running) > 1 else 0
            if in_a_row >= _LOOKS:
                self.seen.both.append(round(now - began, 3))

    def _look(self) -> dict[str, int]:
        """Return by host for how many nanoseconds the copy's vCPU has run since the last look."""
        found = {}
        for host in self._hosts:
            pid = self._qemu(host)
            thread = _vcpu(pid) if pid else None
            total = _run_ns(pid, thread) if pid and thread else None
            if pid and total is not None:
                before = self._used.get((host.name, pid))
                self._used[host.name, pid] = total
                found[host.name] = total - before if before is not None else 0
        return found

    def _qemu(self, host: HostEntry) -> int | None:
        init = host.channel.init
        channel = NamespaceChannel(init)
        try:
            status = read_status(channel, self._vm)
        except OSError:
            return None
        if status is None or not status.pid:
            return None
        known = self._outer.get((host.name, status.pid))
        if known is None or not _is(known, status.pid, init.pid):
            found = channel.outer_pid(status.pid)
            if found is None:
                return None
            known = self._outer[host.name, status.pid] = found
        return known


def _is(pid: int, inner: int, init: int) -> bool:
    return namespace_inode(pid, "pid") == namespace_inode(init, "pid") and inner_pid(pid) == inner


def _vcpu(pid: int) -> int | None:
    """Return the first vCPU thread of a QEMU process."""
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            if (task / "comm").read_text().startswith("CPU "):
                return int(task.name)
    except OSError:
        return None
    return None


def _run_ns(pid: int, thread: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
