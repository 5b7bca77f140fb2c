"""Disks are one file from both hosts, media have one content, and QEMU can move a VM that has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from refimpl.model.errors import entry
from refimpl.model.facts import DiskFact, Facts, VmState
from tests.builders import PATH, vm
from tests.judging import found, passed, seen

DISK = DiskFact(PATH, "fs7:42", 1 << 26, format="raw", content="raw", cache="none")
ISO = DiskFact("/iso/setup.iso", "fs7:50", 900, device="cdrom", format="raw", read_only=True, content_hash="aa")


def shown(disk: DiskFact, there: DiskFact | None = None, state: VmState = VmState.RUNNING) -> Facts:
    return seen(vm(disks=(disk,), state=state), disks={disk.path: disk if there is None else there})


def changed(disk: DiskFact = DISK, **changes: Any) -> Facts:
    return shown(replace(disk, **changes))


def there(disk: DiskFact = DISK, **changes: Any) -> Facts:
    return shown(disk, replace(disk, **changes))


@pytest.mark.rule("R5", "R11")
@pytest.mark.error("disk.missing")
@pytest.mark.parametrize("state", [VmState.RUNNING, VmState.OFF])
def test_a_missing_disk_is_40010_with_the_disk_at_fault(state: VmState) -> None:
    problem = found(shown(DISK, replace(DISK, identity=None), state))["disk.missing"]
    assert "refimpl migrate web b --include-storage" in problem.mend
    assert problem.object == ("HardDiskDrive", PATH)
    assert entry(problem.id).message_id == 40010


@pytest.mark.rule("R5")
@pytest.mark.error("disk.different", "disk.unshared", "disk.size")
def test_a_disk_has_to_be_one_file_by_identity_probe_and_size() -> None:
    assert passed(there(probed=True))
    assert passed(there(probed=None))
    assert set(found(there(identity="fs8:42"))) == {"disk.different"}
    assert set(found(there(probed=False))) == {"disk.unshared"}
    assert found(there(size_bytes=7))["disk.size"].values["there_bytes"] == 7


@pytest.mark.rule("R5")
@pytest.mark.error("disk.read_only")
def test_a_disk_that_the_vm_writes_must_not_be_read_only_there() -> None:
    problem = found(there(writable=False, probed=None))["disk.read_only"]
    assert (problem.object, problem.host) == (("HardDiskDrive", PATH), "b")
    assert passed(there(writable=True))
    assert passed(there(writable=None))
    assert passed(there(replace(DISK, read_only=True), writable=False))
    assert passed(there(ISO, writable=False))


def test_a_file_that_grows_while_it_is_looked_at_is_no_other_size() -> None:
    growing = replace(DISK, format="qcow2", content="qcow2")
    assert passed(there(growing, size_bytes=7))
    assert passed(there(size_bytes=None))


@pytest.mark.error("disk.missing")
def test_a_file_on_which_a_disk_is_based_has_to_be_there_too() -> None:
    based = replace(DISK, chain=("/base.qcow2",))
    assert passed(shown(based))
    lacking = seen(vm(disks=(based,)), disks={PATH: based, "/base.qcow2": DiskFact("/base.qcow2", None)})
    assert found(lacking)["disk.missing"].values["path"] == "/base.qcow2"


@pytest.mark.rule("R5", "R11")
@pytest.mark.error("media.missing")
def test_a_medium_that_cannot_be_opened_there_is_found_before_and_not_at_the_end() -> None:
    problem = found(there(ISO, identity=None))["media.missing"]
    assert problem.object == ("DvdDrive", ISO.path)
    assert entry(problem.id).message_id == 40010
    assert "media file not found" in problem.text
    assert "--eject" in problem.mend


@pytest.mark.error("media.different")
def test_a_medium_counts_by_its_content() -> None:
    assert passed(there(ISO, identity="local:9"))
    assert passed(there(ISO, identity="local:9", content_hash=None))
    assert set(found(there(ISO, identity="local:9", content_hash="bb"))) == {"media.different"}
    assert set(found(there(ISO, identity="local:9", content_hash=None, size_bytes=901))) == {"media.different"}


@pytest.mark.rule("R5")
@pytest.mark.error("disk.format")
@pytest.mark.parametrize(
    ("kind", "driver"), [("vhdx", "vhdx"), ("vhd", "vpc"), ("vpc", "vpc"), ("vmdk", "vmdk"), ("vdi", "vdi")]
)
def test_a_format_that_qemu_cannot_move_is_told_with_its_conversion(kind: str, driver: str) -> None:
    path = "/vm/it's a disk.vhdx"
    for disk in (replace(DISK, path=path, format=kind), replace(DISK, path=path, content=kind)):
        problem = found(shown(disk))["disk.format"]
        assert f"qemu-img convert -p -f {driver} -O qcow2 '/vm/it'\"'\"'s a disk.vhdx'" in problem.mend
        assert "disk.qcow2'" in problem.mend
        assert ("defined as raw" in problem.text) == (disk.format == "raw")
        assert passed(shown(disk, state=VmState.OFF))


def test_formats_that_qemu_moves() -> None:
    for kind in ("raw", "qcow2", "qed", None):
        assert passed(changed(format=kind, content=kind))


@pytest.mark.error("disk.transient")
def test_a_transient_disk_stays() -> None:
    assert set(found(changed(transient=True))) == {"disk.transient"}


@pytest.mark.error("disk.cache")
def test_a_cache_that_keeps_something_back_from_a_file_system_that_is_not_shared() -> None:
    for cache in ("writeback", "writethrough", "unsafe"):
        problem = found(changed(cache=cache, shared_file_system=False))["disk.cache"]
        assert "none or directsync" in problem.mend
        assert passed(changed(cache=cache, shared_file_system=True))
        assert passed(changed(cache=cache, shared_file_system=None))
        assert passed(changed(cache=cache, shared_file_system=False, read_only=True))
    for cache in ("none", "directsync", None):
        assert passed(changed(cache=cache, shared_file_system=False))


@pytest.mark.rule("R5")
@pytest.mark.error("disk.chain_broken")
@pytest.mark.parametrize("place", ["a", "b"])
def test_a_disk_on_shared_storage_whose_files_cannot_be_followed(place: str) -> None:
    broken = replace(DISK, broken="Could not open '/base.qcow2'")
    if place == "a":
        facts = seen(vm(disks=(broken,)), here={"disks": {PATH: broken}})
    else:
        facts = seen(disks={PATH: replace(broken, probed=True)})
    problems = found(facts)
    assert set(problems) == {"disk.chain_broken"}
    assert (problems["disk.chain_broken"].host, "/base.qcow2" in problems["disk.chain_broken"].text) == (place, True)
