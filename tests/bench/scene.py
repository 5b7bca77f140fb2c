"""A lab with one working guest, and the two who move it: the product, and plain `virsh migrate` with the same flags."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refimpl.app.accelerator import choose
from refimpl.app.backends import backend_for
from refimpl.app.home import Home
from refimpl.app.labdemo import HOST_MEMORY_MIB
from refimpl.app.operations import start
from refimpl.app.vms import VmDesk
from refimpl.backends.libvirt.domain import line_file
from refimpl.engine.backend import Backend
from refimpl.guest import GuestParameters, build
from refimpl.hosts import netns
from refimpl.lab import Lab, create
from refimpl.meter.watch import has, wait_for_log
from refimpl.model.group import Group, HostEntry
from refimpl.model.request import MigrationRequest, PerformanceOption
from tests.bench.watching import Listening, Moments, listening, nonzero_bytes, qemu_of, sent_payload_bytes

VM = "bench"
READY_S = 120.0
MOVE_S = 300.0
DIRTY_RATE_S = 30.0
MEASURED = "2"
"""libvirt's number for a dirty rate that was measured."""
FLAGS = ("--live", "--p2p", "--persistent", "--undefinesource", "--abort-on-error")
BURST_BYTES = 131_072
IDLE = GuestParameters(
    heartbeat_period_ms=100, writer_rate_pages_per_s=0, check_pages_per_s=1024, disk_period_ms=1000, disk_blocks=64
)
"""A guest that does as little as it can: its heart beats, nothing else changes much."""


@dataclass(frozen=True, slots=True)
class Moved:
    """One move: QEMU's moments, payload sent in bytes, when it was asked for, and the product's events if it did it."""

    moments: Moments
    payload_bytes: int
    asked_ns: int
    events: Sequence[dict[str, Any]] = ()

    @property
    def from_ask_ms(self) -> float:
        """From the request (the engine's StartTransfer; the start of `virsh`) to the destination's RESUME."""
        return (self.moments.resume_ns - self.asked_ns) / 1e6

    def to_json(self) -> dict[str, float]:
        """Return the figures of the move."""
        m = self.moments
        return {
            "transfer_ms": m.transfer_ms,
            "to_completed_ms": m.to_completed_ms,
            "hand_over_ms": m.hand_over_ms,
            "blackout_ms": m.blackout_ms,
            "to_device_ms": m.to_device_ms,
            "device_ms": m.device_ms,
            "from_ask_ms": self.from_ask_ms,
            "payload_bytes": self.payload_bytes,
        }


@dataclass
class Scene:
    """One guest between two hosts; the calling process is in the lab's management network."""

    lab: Lab
    group: Group
    home: Home
    vm_id: str
    memory_mib: int
    heard: Listening
    at: int = 0

    @property
    def source(self) -> HostEntry:
        """The host on which the guest is."""
        return self.group.hosts[self.at]

    @property
    def destination(self) -> HostEntry:
        """The host on which it is not."""
        return self.group.hosts[1 - self.at]

    def nonzero_bytes(self) -> int:
        """Return how much of the guest's memory is resident and not zero, on the host on which it is."""
        return nonzero_bytes(qemu_of(self.source, VM).pid, self.memory_mib)

    def dirty_mib_s(self) -> float:
        """Return how fast the guest dirties its memory, by QEMU's own sampling over one second."""
        virsh = ["virsh", "-q", "-c", self.source.control_uri]
        subprocess.run([*virsh, "domdirtyrate-calc", VM, "--seconds", "1"], check=True, capture_output=True, timeout=60)
        end = time.monotonic() + DIRTY_RATE_S
        while time.monotonic() < end:
            done = subprocess.run(
                [*virsh, "domstats", "--dirtyrate", VM], check=True, capture_output=True, text=True, timeout=60
            )
            rows = dict(line.strip().split("=", 1) for line in done.stdout.splitlines() if "=" in line)
            if rows.get("dirtyrate.calc_status") == MEASURED:
                return float(rows["dirtyrate.megabytes_per_second"])
            time.sleep(0.2)
        raise TimeoutError("QEMU did not say how fast the guest dirties its memory")

    def by_product(self, **changes: Any) -> Moved:
        """Move the guest with the product, TCPIP unless said otherwise; RuntimeError when it does not complete."""
        wanted = {"performance_option": PerformanceOption.TCPIP, **changes}
        request = MigrationRequest(vm=VM, destination=self.destination.name, **wanted)
        before, since_ns = sent_payload_bytes(self.source), time.time_ns()
        operation = start(self.home, self.group, request)
        outcome = operation.wait()
        if not outcome.completed:
            raise RuntimeError(f"{outcome.sentence} {[p.text for p in outcome.problems]}")
        events = list(operation.events())
        return self._moved(before, since_ns, commanded_ns(events, "start-transfer"), events)

    def by_virsh(self, encryption: bool) -> Moved:
        """Move the guest with `virsh migrate`; RuntimeError with what it said when it fails."""
        address = self.destination.migration_networks[0].address
        own = ("--tls", "--tls-destination", self.destination.name) if encryption else ()
        command = ["virsh", "-q", "-c", self.source.control_uri, "migrate", *FLAGS, *own]
        command += ["--migrateuri", f"tcp://{address}", VM, self.destination.peer_uri]
        before, since_ns = sent_payload_bytes(self.source), time.time_ns()
        done = subprocess.run(command, capture_output=True, text=True, timeout=MOVE_S, check=False)
        if done.returncode:
            raise RuntimeError(f"virsh migrate: {done.stderr.strip()}")
        return self._moved(before, since_ns, since_ns, ())

    def _moved(self, before: int, since_ns: int, asked_ns: int, events: Sequence[dict[str, Any]]) -> Moved:
        found = self.heard.moments(self.source.name, self.destination.name, since_ns)
        payload = sent_payload_bytes(self.source) - before
        self.at = 1 - self.at
        return Moved(found, payload, asked_ns, events)


def commanded_ns(events: Sequence[Mapping[str, Any]], command: str) -> int:
    """Return when the engine gave a command first, nanoseconds since the epoch."""
    found = (e["at_ns"] for e in events if e["kind"] == "commanded" and e["values"]["command"]["kind"] == command)
    return int(next(found))


@contextmanager
def scene(root: Path, guest: GuestParameters, memory_mib: int = 128, link_mbit_s: int = 0) -> Iterator[Scene]:
    """Give a working guest in a lab of its own; with `link_mbit_s`, each host's migration links carry no more."""
    with ExitStack() as stack:
        image_is_there()
        lab = create("bench", 2, max(HOST_MEMORY_MIB, 2 * memory_mib), root=root)
        stack.callback(lab.down)
        group = lab.group
        if link_mbit_s:
            for host in group.hosts:
                shape(lab, host, link_mbit_s)
        stack.enter_context(inside(group))
        record = _vm(group, guest, memory_mib, stack)
        heard = stack.enter_context(listening(group, record))
        yield Scene(lab, group, Home(lab.paths.directory / "home"), record, memory_mib, heard)


def image_is_there() -> None:
    """Build the guest's image, for which something may be downloaded, while we are in our own network."""
    build()


@contextmanager
def inside(group: Group) -> Iterator[None]:
    """Be in the lab's management network."""
    assert group.management_netns is not None
    with open("/proc/thread-self/ns/net", "rb") as before:
        netns.enter(group.management_netns)
        try:
            yield
        finally:
            netns.enter_open(before.fileno())


def shape(lab: Lab, host: HostEntry, mbit_s: int) -> None:
    """Let a host's migration links send no more than so many Mbit/s."""
    names = [line.split(":")[0].strip() for line in _net_dev(host) if line.strip().startswith("mig")]
    for name in names:
        limit = ["rate", f"{mbit_s}mbit", "burst", str(BURST_BYTES), "latency", "50ms"]
        command = lab.shell_command(host.name, "tc", "qdisc", "replace", "dev", name, "root", "tbf", *limit)
        subprocess.run(command, check=True, timeout=30, capture_output=True)


def _net_dev(host: HostEntry) -> list[str]:
    return Path(f"/proc/{host.channel.init.pid}/net/dev").read_text(encoding="ascii").splitlines()[2:]


def _vm(group: Group, guest: GuestParameters, memory_mib: int, stack: ExitStack) -> str:
    backend: Backend = backend_for(group, lambda _: None)
    stack.callback(backend.close)
    desk = VmDesk(group, backend)
    accelerator = choose("auto").name
    record = desk.create(VM, group.hosts[0].name, memory_mib=memory_mib, accelerator=accelerator, parameters=guest)
    desk.start(VM)
    # The first check begins when the whole working set has been written.
    wait_for_log(desk.line_files(VM), has("check-start"), what="work", timeout_s=READY_S)
    return record.id


def ready(group: Group, vm: str) -> None:
    """Wait until a guest does its work: the first check begins when the whole working set has been written."""
    files = {host.name: Path(host.log_directory) / line_file(vm) for host in group.hosts}
    wait_for_log(files, has("check-start"), what="work", timeout_s=READY_S)
