"""A move with the disks, by the product and by `virsh migrate --copy-storage-all` with the same flags.

Both make the disks whole by synchronous writes, over one encrypted connection, and arrive at images that were made
before: for virsh outside of the time that is taken, as it makes none outside of a pool. Both start from the same files:
what virsh leaves at the source is removed before the next move.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from refimpl.app.home import Home
from refimpl.app.operations import start
from refimpl.backends.libvirt import vms
from refimpl.backends.libvirt.domain import DiskSpec, VmSpec
from refimpl.guest import build
from refimpl.lab import create
from refimpl.model.group import Group, HostEntry
from refimpl.model.phase import Phase
from refimpl.model.request import MigrationRequest, PerformanceOption
from refimpl.model.storage import StorageWish
from tests.bench.experiments import Bench, phase_ms
from tests.bench.results import Figure
from tests.bench.scene import FLAGS, IDLE, MOVE_S, commanded_ns, image_is_there, inside, ready
from tests.bench.statistics import ratios
from tests.bench.watching import Listening, Moments, listening

NAME = "shared-nothing against virsh migrate --copy-storage-all"
VM, HOST_MIB, VM_MIB, OWN_MIB, DATA_MIB = "bench", 1024, 128, 16, 256
OWN, DATA = "bench.raw", "bench-data.raw"
DISK_FLAGS = ("--copy-storage-all", "--copy-storage-synchronous-writes")
BOUND = 1.05


@dataclass(frozen=True, slots=True)
class Taken:
    """One move: QEMU's moments, and when it was asked for, when its first mirror began and when it was over, in ns."""

    moments: Moments
    asked_ns: int
    mirror_ns: int
    whole_ms: float
    events: tuple[dict[str, Any], ...] = ()

    @property
    def from_ask_ms(self) -> float:
        """From the request (the engine's StartTransfer; the start of `virsh`) to the destination's RESUME."""
        return (self.moments.resume_ns - self.asked_ns) / 1e6

    @property
    def mirror_ms(self) -> float:
        """From the first mirror's beginning to the destination's RESUME."""
        return (self.moments.resume_ns - self.mirror_ns) / 1e6

    @property
    def disks_ms(self) -> float:
        """From the first mirror's beginning to the beginning of the memory's transfer."""
        return (self.moments.setup_ns - self.mirror_ns) / 1e6

    def to_json(self) -> dict[str, float]:
        """Return the figures of the move."""
        return {
            "from_ask_ms": self.from_ask_ms,
            "mirror_ms": self.mirror_ms,
            "disks_ms": self.disks_ms,
            "transfer_ms": self.moments.transfer_ms,
            "hand_over_ms": self.moments.hand_over_ms,
            "blackout_ms": self.moments.blackout_ms,
            "whole_ms": self.whole_ms,
        }


@dataclass
class Stored:
    """A guest with two disks on its host's own storage; the calling process is in the lab's management network."""

    group: Group
    home: Home
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

    def by_product(self) -> Taken:
        """Move the guest with the product; RuntimeError when it does not complete."""
        wish = StorageWish(include=True)
        request = MigrationRequest(
            vm=VM, destination=self.destination.name, performance_option=PerformanceOption.TCPIP, storage=wish
        )
        since_ns, began_s = time.time_ns(), time.monotonic()
        operation = start(self.home, self.group, request)
        outcome = operation.wait()
        whole_ms = (time.monotonic() - began_s) * 1000
        if not outcome.completed:
            raise RuntimeError(f"{outcome.sentence} {[p.text for p in outcome.problems]}")
        events = tuple(operation.events())
        return self._taken(since_ns, commanded_ns(events, "start-transfer"), whole_ms, events)

    def by_virsh(self) -> Taken:
        """Move the guest with `virsh migrate`; RuntimeError with what it said when it fails."""
        source, destination = self.source, self.destination
        for name, size_mib in ((OWN, OWN_MIB), (DATA, DATA_MIB)):
            empty(Path(destination.local_directory) / name, size_mib)
        address = destination.migration_networks[0].address
        command = ["virsh", "-q", "-c", source.control_uri, "migrate", *FLAGS, *DISK_FLAGS]
        command += ["--tls", "--tls-destination", destination.name]
        command += ["--migrateuri", f"tcp://{address}", VM, destination.peer_uri]
        since_ns, began_s = time.time_ns(), time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=MOVE_S, check=False)
        whole_ms = (time.monotonic() - began_s) * 1000
        if done.returncode:
            raise RuntimeError(f"virsh migrate: {done.stderr.strip()}")
        taken = self._taken(since_ns, since_ns, whole_ms, ())
        for name in (OWN, DATA):
            (Path(source.local_directory) / name).unlink()
        return taken

    def _taken(self, since_ns: int, asked_ns: int, whole_ms: float, events: tuple[dict[str, Any], ...]) -> Taken:
        found = self.heard.moments(self.source.name, self.destination.name, since_ns)
        mirror_ns = self.heard.first(self.source.name, "JOB_STATUS_CHANGE", since_ns)
        self.at = 1 - self.at
        return Taken(found, asked_ns, mirror_ns, whole_ms, events)


def empty(path: Path, size_mib: int) -> None:
    """Make an empty raw image, as the product makes one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.ftruncate(descriptor, size_mib << 20)
    os.close(descriptor)


@contextmanager
def stored(root: Path) -> Iterator[Stored]:
    """Give a working guest with a disk that it writes and one full of random data."""
    with ExitStack() as stack:
        image_is_there()
        lab = create("bench", 2, HOST_MIB, root=root)
        stack.callback(lab.down)
        group = lab.group
        stack.enter_context(inside(group))
        host, image = group.hosts[0], build()
        empty(Path(host.local_directory) / OWN, OWN_MIB)
        with (Path(host.local_directory) / DATA).open("wb") as file:
            for _ in range(DATA_MIB):
                file.write(os.urandom(1 << 20))
        seen, line = host.storage_directories[0], replace(IDLE, address="10.90.2.51/24").command_line()
        disks = {"disk_path": f"{seen}/{OWN}", "more_disks": (DiskSpec(f"{seen}/{DATA}", "raw"),)}
        spec = VmSpec(
            VM,
            str(uuid.uuid4()),
            VM_MIB,
            kernel=str(image.kernel),
            initramfs=str(image.initramfs),
            command_line=line,
            **disks,  # type: ignore[arg-type]
        )
        vms.create(group, host, spec)
        vms.start(host, VM)
        heard = stack.enter_context(listening(group, spec.id))
        ready(group, VM)
        yield Stored(group, Home(lab.paths.directory / "home"), heard)


def shared_nothing(bench: Bench) -> None:
    """Take pairs of moves, who begins alternates; the first pair is not counted."""
    found: list[tuple[Taken, Taken]] = []
    with stored(bench.root) as scene:
        sides = {"ours": scene.by_product, "theirs": scene.by_virsh}
        for number in range(bench.pairs + 1):
            order = list(sides) if number % 2 else list(sides)[::-1]
            taken = {side: sides[side]() for side in order}
            for side in order:
                bench.recorder.sample(NAME, pair=number, side=side, counted=number > 0, **taken[side].to_json())
            if number:
                found.append((taken["ours"], taken["theirs"]))
            print(f"  {NAME}: pair {number} of {bench.pairs}", file=sys.stderr, flush=True)
    _add(bench, found)


def _add(bench: Bench, found: list[tuple[Taken, Taken]]) -> None:
    add = bench.recorder.add
    asked = ratios((a.from_ask_ms, b.from_ask_ms) for a, b in found)
    mirrors = ratios((a.mirror_ms, b.mirror_ms) for a, b in found)
    add(NAME, Figure.of("asked to RESUME: refimpl ÷ virsh", asked, at_most=BOUND))
    add(NAME, Figure.of("mirror begun to RESUME: refimpl ÷ virsh", mirrors, at_most=BOUND))
    whole = ratios((a.whole_ms, b.whole_ms) for a, b in found)
    add(NAME, Figure.of("the whole command, checks and clean-up too: refimpl ÷ virsh", whole))
    for side, index in (("refimpl", 0), ("virsh", 1)):
        moved = [pair[index] for pair in found]
        add(
            NAME,
            Figure.of(f"asked to RESUME, {side}", [m.from_ask_ms for m in moved], "ms"),
            Figure.of(f"mirror begun to RESUME, {side}", [m.mirror_ms for m in moved], "ms"),
            Figure.of(f"of it mirror begun to memory begun, {side}", [m.disks_ms for m in moved], "ms"),
            Figure.of(f"completed to RESUME, {side}", [m.moments.hand_over_ms for m in moved], "ms"),
            Figure.of(f"blackout (STOP to RESUME), {side}", [m.moments.blackout_ms for m in moved], "ms"),
            Figure.of(f"the whole command, {side}", [m.whole_ms for m in moved], "ms"),
        )
    more = [a.moments.blackout_ms - b.moments.blackout_ms for a, b in found]
    add(NAME, Figure.of("blackout, refimpl − virsh", more, "ms"))
    for phase in (Phase.CHECK, Phase.SETUP, Phase.CLEANUP):
        add(NAME, Figure.of(f"phase {phase}, refimpl", [phase_ms(a.events, phase) for a, _ in found], "ms"))
    bench.recorder.note(
        NAME,
        f"{VM_MIB} MiB of memory, disks of {OWN_MIB} and {DATA_MIB} MiB, the second full of random data; encrypted, "
        f"`{' '.join((*FLAGS, *DISK_FLAGS))}`. The product makes the images at the destination within its set-up; for "
        "virsh they are made before its time begins.",
    )
