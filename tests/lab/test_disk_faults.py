"""File systems that fill up, or turn read-only, in the middle of a move: the destination's, and the group store's.

Each is a file system of its own, so that what is open already meets the fault too.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from refimpl.app.operations import Operation
from refimpl.app.recovery import recover_one
from refimpl.backends.libvirt import connection
from refimpl.engine.store import GroupStore
from refimpl.meter.disk import disk_verdict
from refimpl.meter.verdict import State
from refimpl.model.errors import RefimplError
from refimpl.model.events import Kind
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from refimpl.model.storage import StorageWish
from tests.lab.faulted import one_copy, owned_by
from tests.lab.host_mounts import SMALL_DISK_FAULTS, SmallDisk, small_disk
from tests.lab.lab_support import run_on
from tests.lab.libvirt_support import DISK_MIB, host_of
from tests.lab.moving import Moving, joined_log, wait_for
from tests.lab.storing import NAME, Storing, storing_guest

pytestmark = [pytest.mark.lab, pytest.mark.full]

HELD_MIB_S, SMALL_MIB = 3, 40
BLOCKS = DISK_MIB << 8
"""Blocks that the guest writes one after the other: so many that each write needs room that no file has yet."""
IMAGE = f"{NAME}.qcow2"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storing]:
    with storing_guest(tmp_path_factory.mktemp("storing"), "qcow2", disk_blocks=BLOCKS) as storing:
        yield storing


@pytest.fixture
def storing(stored: Storing, tmp_path: Path) -> Iterator[Storing]:
    """The running guest; after the test it works, and nothing that an operation made for itself is left."""
    with stored.lent(tmp_path) as storing:
        yield storing


@contextmanager
def small_destination(storing: Storing) -> Iterator[SmallDisk]:
    """Give the destination a file system of its own; after it the VM is at the source, with all that it wrote."""
    source, destination = storing.place(), storing.other()
    seen = f"{host_of(storing.group, destination).storage_directories[0]}/small"
    run = partial(run_on, storing.lab, destination)
    run("mkdir", seen)
    with one_copy(storing), small_disk(run, storing.directory / "disk.img", seen, SMALL_MIB) as disk:
        yield disk
        assert storing.place() == source
        owned_by(storing, source)
        no_block_jobs(storing, source)
        storing.works()
        whole_disk(storing, source)
        assert set(run("ls", "-A", seen).split()) <= {"lost+found"}
    run("rmdir", seen)
    assert (storing.files(source), storing.files(destination)) == ({IMAGE}, set())


def copying_memory(moving: Moving, storage: StorageWish | None = None) -> Operation:
    """Begin a move, and hold it while memory is copied."""
    source = moving.place()
    operation = moving.start(bandwidth_mib_s=HELD_MIB_S, storage=storage)
    wait_for(operation, Kind.MEMORY_SEEN)
    moving.hold_memory(source)
    return operation


def no_block_jobs(storing: Storing, host: str) -> None:
    import libvirt_qemu

    with connection.fresh(host_of(storing.group, host)) as fresh:
        domain = fresh.lookupByUUIDString(storing.spec.id)
        told = libvirt_qemu.qemuMonitorCommand(domain, '{"execute": "query-block-jobs"}', 0)
    assert '"return":[]' in told.replace(" ", "")


def whole_disk(storing: Storing, host: str) -> None:
    """Every write that the guest was told is done is on the disk; what it says is read first."""
    log, image, raw = joined_log(storing), storing.local(host) / IMAGE, storing.directory / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", str(image), str(raw)], check=True)
    verdict = disk_verdict(log, raw, boot=log.boots[-1])
    assert verdict.state is State.OK, verdict


@pytest.mark.rule("R2")
@pytest.mark.error("storage.full")
def test_the_destinations_file_system_fills_up_while_memory_is_copied(storing: Storing) -> None:
    with small_destination(storing) as disk:
        operation = copying_memory(storing, StorageWish(include=True, destination_path=disk.at))
        disk.fill()
        outcome = operation.wait()
        assert (outcome.end, [p.id for p in outcome.problems]) == (Phase.FAILED, ["storage.full"])
        assert outcome.warnings == ()
        disk.make_room()


@pytest.mark.rule("R2")
@pytest.mark.error("cleanup.left_behind")
def test_it_turns_read_only_and_what_cannot_be_removed_is_named_until_it_can(storing: Storing) -> None:
    with small_destination(storing) as disk:
        operation = copying_memory(storing, StorageWish(include=True, destination_path=disk.at))
        disk.fail()
        outcome = operation.wait()
        assert (outcome.end, [p.id for p in outcome.problems]) == (Phase.FAILED, ["transfer.failed"])
        assert [w.id for w in outcome.warnings] == ["cleanup.left_behind"]
        assert f"{disk.at}/{IMAGE}" in outcome.warnings[0].text
        disk.mend()
        assert storing.recover().end is Phase.FAILED


@contextmanager
def small_store(moving: Moving) -> Iterator[SmallDisk]:
    """Have the group store on a small file system; at the end what it holds is where it was before."""
    directory, kept = Path(moving.group.store_path).parent, moving.directory / "kept"
    shutil.copytree(directory, kept)
    with small_disk(_here, moving.directory / "store.img", str(directory), SMALL_MIB) as disk:
        shutil.copytree(kept, directory, dirs_exist_ok=True)
        yield disk
        shutil.rmtree(kept)
        shutil.copytree(directory, kept)
    shutil.rmtree(directory)
    shutil.copytree(kept, directory)


def _here(*command: str) -> object:
    return subprocess.run(command, check=True, capture_output=True)


def refuses(moving: Moving) -> bool:
    """Whether the group store records nothing."""
    try:
        GroupStore(Path(moving.group.store_path)).change_settings("h1", lambda old: old)
    except RefimplError as failure:
        return failure.problems[0].id == "store.failed"
    return False


def recovered(moving: Moving, operation: Operation, outcome: Outcome) -> None:
    """Recover what was not given back; a full file system may have had room for that, a read-only one has none."""
    for item in moving.interrupted(marks=False):
        assert item.operation == operation.id
        assert recover_one(moving.home, moving.group, item).wait().end is outcome.end
    assert moving.interrupted(marks=False) == ()


@pytest.mark.rule("R1", "R2")
@pytest.mark.error("store.failed")
@pytest.mark.parametrize("fault", SMALL_DISK_FAULTS)
@pytest.mark.parametrize("at", ["memory", "intended:record-commit", "cleanup"])
def test_the_group_store_takes_nothing_any_more_in_the_middle_of_a_move(moving: Moving, at: str, fault: str) -> None:
    source, destination = moving.place(), moving.other()
    with one_copy(moving), small_store(moving) as disk:
        with moving.stop_at(at) as stop:
            operation = moving.start(bandwidth_mib_s=HELD_MIB_S if at == "memory" else None)
            stop.reached()
            if at == "memory":
                moving.hold_memory(source)
            SMALL_DISK_FAULTS[fault].does(disk)
            assert refuses(moving)
        if at == "memory":
            moving.release_memory(source)
        outcome = operation.wait()
        assert outcome.completed, outcome
        assert {warning.id for warning in outcome.warnings} == {"store.failed"}
        assert moving.place() == destination
        SMALL_DISK_FAULTS[fault].undo(disk)
        recovered(moving, operation, outcome)
        owned_by(moving, destination)
        moving.works()
        moving.nothing_left()
        log = joined_log(moving)
        verdict = disk_verdict(log, Path(moving.spec.disk_path), boot=log.boots[-1])
        assert verdict.state is State.OK, verdict
