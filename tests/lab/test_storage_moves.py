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
from refimpl.backends.libvirt import connection
from refimpl.backends.libvirt.domain import DiskSpec
from refimpl.hosts import netns
from refimpl.model.events import Kind
from refimpl.model.group import HostEntry
from refimpl.model.phase import Phase
from refimpl.model.storage import StorageWish
from tests.fault_table import as_told
from tests.lab.lab_support import run_on
from tests.lab.libvirt_support import MARKER, host_of, made_lab, placed
from tests.lab.moving import wait_for
from tests.lab.storing import RAW, Storing, make_storing

pytestmark = pytest.mark.lab

CHAIN, BASE = "vault-data.qcow2", "vault-base.qcow2"
DATA_MIB, SLOW_MIB_S = 48, 4
ON_DISK = b"refimpl-on-disk-" + MARKER.encode()
"""What stands all over the base of the second disk, and nowhere in the guest's memory."""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storing]:
    with made_lab() as lab, placed(lab) as group:
        host = host_of(group, "h1")
        yield Storing(lab, make_storing(group, host, _chain(host)), tmp_path_factory.mktemp("storing"))


@pytest.fixture
def storing(stored: Storing, tmp_path: Path) -> Iterator[Storing]:
    """The running guest; after the test it works, and nothing that an operation made for itself is left."""
    with stored.lent(tmp_path) as storing:
        yield storing


def _chain(host: HostEntry) -> tuple[DiskSpec, ...]:
    """Make a disk that is based on another file."""
    own = Path(host.local_directory)
    line = ON_DISK.ljust(512, b".")
    (own / "vault.data").write_bytes(line * (DATA_MIB * 2048))
    _image("convert", "-f", "raw", "-O", "qcow2", own / "vault.data", own / BASE)
    (own / "vault.data").unlink()
    seen = host.storage_directories[0]
    # The overlay names its base as the host sees it.
    _image("create", "-u", "-f", "qcow2", "-b", f"{seen}/{BASE}", "-F", "qcow2", own / CHAIN, f"{DATA_MIB}M")
    return (DiskSpec(f"{seen}/{CHAIN}", "qcow2"),)


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
    storing.whole_disk(storing.local(host) / RAW)


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
    as_told("T4-cancel", outcome, list(operation.events()))
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
