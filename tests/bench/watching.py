"""What is read from outside of a move, in the same way whoever makes it: QEMU's own events, bytes on the link, memory.

Events come through the product's tap, on connections of this process: QEMU stamps them itself, so that neither the
way to here nor the one who asked for the move is in the times.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from refimpl.backends.libvirt.connection import Connections
from refimpl.backends.libvirt.tap import Taps
from refimpl.backends.libvirt.watch import NativeEvent
from refimpl.model.group import Group, HostEntry

PAGE = 4096
HEADER_BYTES = 66
"""Ethernet, IPv4 and TCP with time stamps, as the kernel counts them once for what it hands to a link at a time."""
EVENT_TIMEOUT_S = 10.0
_PRESENT = 1 << 63


@dataclass(frozen=True, slots=True)
class Moments:
    """When QEMU said what in one move, nanoseconds since the epoch."""

    setup_ns: int
    stop_ns: int
    completed_ns: int
    resume_ns: int
    device_ns: int

    @property
    def transfer_ms(self) -> float:
        """From the source's MIGRATION `setup` to the destination's RESUME."""
        return (self.resume_ns - self.setup_ns) / 1e6

    @property
    def to_completed_ms(self) -> float:
        """From the source's MIGRATION `setup` to its `completed`: the part in which no hand-over is."""
        return (self.completed_ns - self.setup_ns) / 1e6

    @property
    def blackout_ms(self) -> float:
        """From the source's STOP to the destination's RESUME."""
        return (self.resume_ns - self.stop_ns) / 1e6

    @property
    def to_device_ms(self) -> float:
        """From the source's STOP to its MIGRATION `device`: whoever drives QEMU has to say that it may go on."""
        return (self.device_ns - self.stop_ns) / 1e6

    @property
    def device_ms(self) -> float:
        """From the source's MIGRATION `device` to its `completed`: the last pages, CPU and device state."""
        return (self.completed_ns - self.device_ns) / 1e6

    @property
    def hand_over_ms(self) -> float:
        """From the source's MIGRATION `completed` to the destination's RESUME: what the hand-over owns."""
        return (self.resume_ns - self.completed_ns) / 1e6


def moments(source: list[NativeEvent], destination: list[NativeEvent], since_ns: int) -> Moments | None:
    """Return when what happened since then, None while something is missing."""
    setup = _first(source, "MIGRATION", since_ns, "setup")
    stop = _first(source, "STOP", since_ns)
    completed = _first(source, "MIGRATION", since_ns, "completed")
    resume = _first(destination, "RESUME", since_ns)
    device = _first(source, "MIGRATION", since_ns, "device")
    if setup is None or stop is None or completed is None or resume is None or device is None:
        return None
    return Moments(setup, stop, completed, resume, device)


def _first(events: list[NativeEvent], name: str, since_ns: int, status: str = "") -> int | None:
    found = (
        event.at_ns
        for event in events
        if event.name == name and event.at_ns >= since_ns and (not status or event.details.get("status") == status)
    )
    return next(found, None)


@dataclass
class Listening:
    """Hears QEMU's events of one VM on all hosts of a group."""

    events: dict[str, list[NativeEvent]] = field(default_factory=dict)

    def first(self, host: str, name: str, since_ns: int) -> int:
        """Return when QEMU told something first; LookupError when it did not."""
        found = _first(self.events[host], name, since_ns)
        if found is None:
            raise LookupError(f"QEMU told no {name} on host {host}")
        return found

    def moments(self, source: str, destination: str, since_ns: int) -> Moments:
        """Return when what happened, waiting for the events that are still on their way; TimeoutError."""
        end = time.monotonic() + EVENT_TIMEOUT_S
        while (found := moments(self.events[source], self.events[destination], since_ns)) is None:
            if time.monotonic() > end:
                heard = {host: [e.name for e in events if e.at_ns >= since_ns] for host, events in self.events.items()}
                raise TimeoutError(f"QEMU's events of the move did not come: {heard}")
            time.sleep(0.01)
        return found


@contextmanager
def listening(group: Group, vm_id: str) -> Iterator[Listening]:
    """Listen to a VM on all hosts, on connections of our own."""
    taps, heard = Taps(time.time_ns), Listening()
    connections = Connections(taps.attach)
    try:
        for host in group.hosts:
            heard.events[host.name] = []
            taps.listen(host.name, vm_id, heard.events[host.name].append)
            connections.to(host)
        yield heard
    finally:
        connections.close()


def sent_payload_bytes(host: HostEntry) -> int:
    """Return how many bytes of TCP payload a host has sent over its migration links, by the links' own counters."""
    text = Path(f"/proc/{host.channel.init.pid}/net/dev").read_text(encoding="ascii")
    rows = (line.partition(":") for line in text.splitlines()[2:])
    counters = [cells.split() for name, _, cells in rows if name.strip().startswith("mig")]
    return sum(int(cells[8]) - HEADER_BYTES * int(cells[9]) for cells in counters)


def qemu_of(host: HostEntry, vm: str) -> psutil.Process:
    """Return the QEMU of a VM on a host of the lab; LookupError when there is none."""
    for process in psutil.Process(host.channel.init.pid).children():
        if any(word.startswith(f"guest={vm},") for word in process.cmdline()):
            return process
    raise LookupError(f"no QEMU of {vm} on host {host.name}")


def nonzero_bytes(pid: int, memory_mib: int) -> int:
    """Return how much of a guest's memory is resident in its QEMU and not zero, in whole pages of 4 KiB.

    The guest's memory is the mapping of exactly its size; pages that were never touched are not read.
    """
    begin, end = _guest_memory(pid, memory_mib << 20)
    zero, found = bytes(PAGE), 0
    with open(f"/proc/{pid}/pagemap", "rb", 0) as map, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        map.seek(begin // PAGE * 8)
        entries = memoryview(map.read((end - begin) // PAGE * 8)).cast("Q")
        for number, entry in enumerate(entries):
            if entry & _PRESENT:
                memory.seek(begin + number * PAGE)
                found += memory.read(PAGE) != zero
    return found * PAGE


def _guest_memory(pid: int, size: int) -> tuple[int, int]:
    spans = []
    for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
        begin, _, end = line.split()[0].partition("-")
        spans.append((int(begin, 16), int(end, 16)))
    fitting = [(begin, end) for begin, end in spans if end - begin == size]
    if not fitting:
        raise LookupError(f"process {pid} has no mapping of {size} bytes")
    return fitting[0]
