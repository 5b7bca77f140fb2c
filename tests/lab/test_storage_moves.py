"""A VM that takes its disks along: there and back, cancelled, out of room, chosen otherwise, its conductor killed."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from refimpl.app.recovery import recover_one
from refimpl.backends.libvirt import connection, vms
from refimpl.backends.libvirt.domain import DiskSpec, VmSpec
from refimpl.guest.image import build
from refimpl.guest.parameters import GuestParameters
from refimpl.hosts import netns
from refimpl.hosts.factory import channel_for
from refimpl.meter.disk import disk_verdict
from refimpl.meter.verdict import State
from refimpl.model.events import Kind
from refimpl.model.group import Group, HostEntry
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from refimpl.model.storage import StorageWish
from tests.lab.lab_support import run_on
from tests.lab.libvirt_support import MARKER, host_of, made_lab, placed, wait_for_lines
from tests.lab.moving import Moving, joined_log, wait_for

pytestmark = pytest.mark.lab

NAME = "vault"
RAW, CHAIN, BASE = "vault.raw", "vault-data.qcow2", "vault-base.qcow2"
DATA_MIB, SLOW_MIB_S = 48, 4
ON_DISK = b"refimpl-on-disk-" + MARKER.encode()
"""What stands all over the base of the second disk, and nowhere in the guest's memory."""


class Storing(Moving):
    """A guest with two disks on its host's own storage: one that it writes, and one that is based on another file."""

    def local(self, host: str) -> Path:
        """Return the own storage of a host, as it is seen here."""
        return Path(host_of(self.group, host).local_directory)

    def files(self, host: str) -> set[str]:
        """Return what lies on the own storage of a host."""
        return {str(path.relative_to(self.local(host))) for path in self.local(host).rglob("*") if path.is_file()}

    def take(self, **wish: Any) -> Outcome:
        """Move the VM with its disks, and wait for the end."""
        changes = {name: wish.pop(name) for name in ("encryption", "bandwidth_mib_s") if name in wish}
        return self.start(**changes, storage=StorageWish(**({"include": True} | wish))).wait()

    def seen_here(self, path: str, host: str) -> str:
        """Return where a file of a host's own storage is seen here."""
        return str(self.local(host) / Path(path).name)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storing]:
    with made_lab() as lab, placed(lab) as group:
        yield Storing(lab, _made(group, host_of(group, "h1")), tmp_path_factory.mktemp("storing"))


@pytest.fixture
def storing(stored: Storing, tmp_path: Path) -> Iterator[Storing]:
    """The running guest; after the test it works, and nothing that an operation made for itself is left."""
    stored.directory, stored.home = tmp_path, type(stored.home)(tmp_path / "home")
    stored.place()
    yield stored
    stored.works()
    for host in stored.group.hosts:
        assert not [name for name in stored.files(host.name) if ".refimpl-" in name]
        assert "refimpl_" not in channel_for(host).run(["nft", "list", "tables"]).stdout
    assert stored.interrupted() == ()


def _made(group: Group, host: HostEntry) -> VmSpec:
    image, own = build(), Path(host.local_directory)
    with (own / RAW).open("wb") as file:
        file.truncate(16 << 20)
    line = ON_DISK.ljust(512, b".")
    (own / "vault.data").write_bytes(line * (DATA_MIB * 2048))
    _image("convert", "-f", "raw", "-O", "qcow2", own / "vault.data", own / BASE)
    (own / "vault.data").unlink()
    seen = host.storage_directories[0]
    # The overlay names its base as the host sees it.
    _image("create", "-u", "-f", "qcow2", "-b", f"{seen}/{BASE}", "-F", "qcow2", own / CHAIN, f"{DATA_MIB}M")
    told = GuestParameters(address="10.90.2.51/24", marker=MARKER)
    spec = VmSpec(
        NAME,
        "5a3c7f0e-3d1b-4a52-9d7e-0c5a6c1e9a51",
        128,
        f"{seen}/{RAW}",
        str(image.kernel),
        str(image.initramfs),
        told.command_line(),
        more_disks=(DiskSpec(f"{seen}/{CHAIN}", "qcow2"),),
    )
    vms.create(group, host, spec)
    vms.start(host, NAME)
    wait_for_lines(host, NAME, 50)
    return spec


def _image(*words: str | Path) -> str:
    done = subprocess.run(["qemu-img", *map(str, words)], capture_output=True, text=True, check=True)
    return done.stdout


class Wire:
    """What a host sends and receives in the first migration network, searched for what stands on the disk."""

    def __init__(self, host: HostEntry) -> None:
        self.seen_bytes = 0
        self.hits = 0
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._listen, args=(host,))

    def __enter__(self) -> Wire:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _listen(self, host: HostEntry) -> None:
        with open(f"/proc/{host.channel.init.pid}/ns/net", "rb") as space:
            netns.enter_open(space.fileno())
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as listening:
            listening.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
            listening.bind(("mig0", 0))
            listening.settimeout(0.1)
            self._ready.set()
            while not self._stop.is_set():
                try:
                    frame = listening.recv(1 << 18)
                except TimeoutError:
                    continue
                self.seen_bytes += len(frame)
                self.hits += ON_DISK in frame


def _whole(storing: Storing, host: str) -> None:
    """Every write that the guest was told is done is on the disk of that host."""
    log = joined_log(storing)
    verdict = disk_verdict(log, storing.local(host) / RAW, boot=log.boots[-1])
    assert verdict.state is State.OK, verdict


def _identity(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_size


@pytest.mark.rule("R3", "R17")
def test_there_and_back_with_a_chain_encrypted_and_not(storing: Storing) -> None:
    """There: nothing of the disks is on the wire in clear. Back, not encrypted, it is: the look would have seen it."""
    source, destination = storing.place(), storing.other()
    with Wire(host_of(storing.group, destination)) as wire:
        there = storing.take()
    assert (there.end, there.problems, there.warnings) == (Phase.COMPLETED, (), ())
    assert there.disks_sent_bytes is not None
    assert there.disks_sent_bytes >= DATA_MIB << 20
    assert wire.seen_bytes > DATA_MIB << 20
    assert wire.hits == 0
    assert storing.place() == destination
    assert storing.files(destination) == {RAW, CHAIN}
    assert storing.files(source) == {BASE}, "what a disk is based on stays unless its removal is asked for"
    shown = _image("info", "-U", "--output=json", storing.local(destination) / CHAIN)
    assert "backing-filename" not in shown
    copied = storing.directory / "copied.raw"
    _image("convert", "-U", "-f", "qcow2", "-O", "raw", storing.local(destination) / CHAIN, copied)
    _image("compare", "-f", "raw", "-F", "qcow2", copied, storing.local(source) / BASE)
    _whole(storing, destination)
    with Wire(host_of(storing.group, source)) as wire:
        back = storing.take(encryption=False)
    assert back.end is Phase.COMPLETED
    assert wire.hits > 0
    assert storing.files(destination) == set()
    assert storing.files(source) == {RAW, CHAIN, BASE}
    _whole(storing, source)


@contextmanager
def _copying(storing: Storing, **wish: Any) -> Iterator[Any]:
    """A move that copies disks so slowly that it is still at it."""
    operation = storing.start(bandwidth_mib_s=SLOW_MIB_S, storage=StorageWish(**({"include": True} | wish)))
    wait_for(operation, Kind.STORAGE_SEEN)
    yield operation


@pytest.mark.rule("R2", "R4")
def test_cancelled_while_disks_are_copied(storing: Storing) -> None:
    source, destination = storing.place(), storing.other()
    before = _identity(storing.local(source) / RAW)
    with _copying(storing) as operation:
        progress = wait_for(operation, Kind.PROGRESS)["values"]
        assert progress["disks_total_bytes"] >= DATA_MIB << 20
        operation.cancel()
        outcome = operation.wait()
    assert (outcome.end, outcome.problems) == (Phase.CANCELLED, outcome.problems)
    assert storing.place() == source
    assert storing.files(destination) == set()
    assert _identity(storing.local(source) / RAW) == before
    _no_block_jobs(storing, source)
    _whole(storing, source)


def _no_block_jobs(storing: Storing, host: str) -> None:
    """An aborted mirror that stays would break the next move."""
    import libvirt_qemu

    with connection.fresh(host_of(storing.group, host)) as fresh:
        domain = fresh.lookupByUUIDString(storing.spec.id)
        told = libvirt_qemu.qemuMonitorCommand(domain, '{"execute": "query-block-jobs"}', 0)
    assert '"return":[]' in told.replace(" ", "")


@pytest.mark.rule("R2")
@pytest.mark.error("storage.full")
def test_the_destinations_file_system_fills_up_while_disks_are_copied(storing: Storing) -> None:
    source, destination = storing.place(), storing.other()
    seen = f"{host_of(storing.group, destination).storage_directories[0]}/small"
    run_on(storing.lab, destination, "mkdir", seen)
    run_on(storing.lab, destination, "mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", seen)
    try:
        with _copying(storing, destination_path=seen) as operation:
            run_on(storing.lab, destination, "sh", "-c", f"dd if=/dev/zero of={seen}/filler bs=1M status=none || true")
            outcome = operation.wait()
        left = run_on(storing.lab, destination, "ls", "-A", seen).split()
    finally:
        run_on(storing.lab, destination, "umount", seen)
        run_on(storing.lab, destination, "rmdir", seen)
    assert (outcome.end, [p.id for p in outcome.problems]) == (Phase.FAILED, ["storage.full"])
    assert left == ["filler"]
    assert storing.place() == source
    _no_block_jobs(storing, source)
    _whole(storing, source)


@pytest.mark.rule("R3", "R17")
@pytest.mark.error("storage.target_exists")
def test_nothing_is_removed_when_that_is_asked_for_and_nothing_overwritten_unless(storing: Storing) -> None:
    source, destination = storing.place(), storing.other()
    assert storing.take(avoid_removing_vhds=True).end is Phase.COMPLETED
    assert storing.place() == destination
    assert {RAW, CHAIN} <= storing.files(source)
    stale = _identity(storing.local(source) / RAW)
    refused = storing.take()
    assert (refused.end, {p.id for p in refused.problems}) == (Phase.REFUSED, {"storage.target_exists"})
    assert _identity(storing.local(source) / RAW) == stale
    assert storing.take(allow_overwrite=True).end is Phase.COMPLETED
    assert storing.place() == source
    assert _identity(storing.local(source) / RAW) != stale
    assert storing.files(destination) == set()
    _whole(storing, source)


@pytest.mark.rule("R2")
def test_killed_while_disks_are_copied_without_a_journal_it_is_followed_and_can_be_cancelled(storing: Storing) -> None:
    source, destination = storing.place(), storing.other()
    operation = storing.kill_at("storage", bandwidth_mib_s=SLOW_MIB_S, storage=StorageWish(include=True))
    storing.forget_journal(operation)
    (item,) = storing.interrupted(marks=False)
    recovered = recover_one(storing.home, storing.group, item)
    wait_for(recovered, Kind.ADOPTED_STORAGE)
    recovered.cancel()
    outcome = recovered.wait()
    assert outcome.end in (Phase.CANCELLED, Phase.FAILED)
    assert storing.place() == source
    assert storing.files(destination) == set()
    _whole(storing, source)
