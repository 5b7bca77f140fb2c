"""The probe of storage: yes, no and not known; its file goes away with whoever made it, also by SIGKILL."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from refimpl.backends.libvirt import hostside
from refimpl.backends.libvirt.facts import Looked
from refimpl.backends.libvirt.probe import both, compare_media, file_name, judge, probe_disks
from refimpl.model.facts import DiskFact, VmFacts, VmState
from tests.unit.backends.libvirt.here import image, looked

OPERATION = "0a1b2c3d"


def vm(*disks: DiskFact) -> VmFacts:
    return VmFacts("web", "id", VmState.RUNNING, 128, disks=disks)


def probed(disk: DiskFact, there: DiskFact | None = None) -> tuple[bool | None, bool | None]:
    """Probe with this machine as both hosts; `there`: what the destination takes for the same disk."""
    ends = looked("h1", disk), looked("h2", there or disk)
    try:
        probe_disks(OPERATION, vm(ends[0].facts.disks[disk.path]), *ends)
    finally:
        for end in ends:
            assert end.look is not None
            end.look.close()
    return tuple(end.facts.disks[disk.path].probed for end in ends)  # type: ignore[return-value]


@pytest.mark.rule("R5")
def test_one_directory_is_seen_as_one_and_left_as_it_was(tmp_path: Path) -> None:
    assert probed(DiskFact(image(tmp_path / "disk"), None)) == (True, True)
    assert os.listdir(tmp_path) == ["disk"]


def test_where_nothing_can_be_written_it_is_not_known() -> None:
    # A directory of the kernel's in which not even root makes a file.
    assert probed(DiskFact("/sys/kernel/uevent_seqnum", None)) == (None, None)


def test_a_medium_is_not_written_beside(tmp_path: Path) -> None:
    assert probed(DiskFact(image(tmp_path / "iso"), None, read_only=True)) == (None, None)


@pytest.mark.parametrize(
    ("written", "read", "expected"),
    [
        ({}, {"text": "mine"}, True),
        ({}, {"text": "yours"}, False),
        ({}, {"why": "No such file or directory"}, False),
        ({}, None, None),
        ({"why": "No space left on device"}, {"why": "No such file or directory"}, None),
        (None, {"text": "mine"}, None),
    ],
)
def test_only_a_file_that_was_there_and_is_not_seen_is_a_no(
    written: dict[str, str] | None, read: dict[str, str] | None, expected: bool | None
) -> None:
    assert judge(written, read, "mine") is expected


def test_both_directions_count() -> None:
    assert both(True, True)
    assert both(True, None) is both(None, None) is None
    assert both(True, False) is both(None, False) is both(False, True) is False


MAKER = """
import sys, time
from refimpl.backends.libvirt.look import Look
from tests.unit.backends.libvirt.here import HereChannel
look = Look(HereChannel())
print(look.ask("write", paths=[sys.argv[1]], name=sys.argv[2], text="x"), flush=True)
sys.stdin.read()
"""


@pytest.mark.rule("R5")
def test_a_controller_killed_in_between_leaves_no_file(tmp_path: Path) -> None:
    disk, name = image(tmp_path / "disk"), file_name(OPERATION, "h1")
    command = [sys.executable, "-c", MAKER, disk, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == f"{{{disk!r}: {{}}}}\n"
        assert sorted(os.listdir(tmp_path)) == [name, "disk"]
        assert OPERATION in name
        maker.send_signal(signal.SIGKILL)
    end = time.monotonic() + 20
    while os.listdir(tmp_path) != ["disk"]:
        assert time.monotonic() < end, os.listdir(tmp_path)
        time.sleep(0.01)


def test_what_a_fallen_host_left_is_cleared_by_the_next_probe(tmp_path: Path) -> None:
    old, young, foreign = (tmp_path / f"{hostside.PROBE_PREFIX}{n}" for n in ("old", "young", "held"))
    for path in (old, young, foreign, tmp_path / "web.raw"):
        path.write_text("left")
        os.utime(path, (1, 1))
    os.utime(young)
    with foreign.open() as held:
        hostside.fcntl.flock(held, hostside.fcntl.LOCK_SH)
        hostside.clear(str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([young.name, foreign.name, "web.raw"])


def media(tmp_path: Path, here: bytes, there: bytes) -> tuple[DiskFact, DiskFact, Looked, Looked]:
    """Return one medium as two hosts with files of their own under one path would see it."""
    (tmp_path / "there").mkdir()
    ours = DiskFact(image(tmp_path / "a.iso", (0, here)), None, device="cdrom", read_only=True)
    theirs = replace(ours, path=image(tmp_path / "there" / "a.iso", (0, there)))
    source, destination = looked("h1", ours), looked("h2", theirs)
    return ours, theirs, source, destination


def test_media_of_the_same_size_are_compared_by_content(tmp_path: Path) -> None:
    ours, theirs, source, destination = media(tmp_path, b"one", b"two")
    for end in (source, destination):
        # Each host knows its own file; to the comparison it is one path.
        (seen,) = end.seen.values()
        end.seen = dict.fromkeys((ours.path, theirs.path), seen)
        end.facts = replace(end.facts, disks=dict.fromkeys((ours.path, theirs.path), seen.fact))
    compare_media(vm(source.facts.disks[ours.path]), source, destination)
    digest = hashlib.sha256(Path(ours.path).read_bytes()).hexdigest()
    assert source.facts.disks[ours.path].content_hash == digest
    for end in (source, destination):
        assert end.look is not None
        end.look.close()


def test_a_medium_too_long_or_too_slow_to_read_has_no_hash(tmp_path: Path) -> None:
    path = image(tmp_path / "a.iso")
    assert hostside.sha256(path, 4095, time.monotonic() + 20) is None
    assert hostside.sha256(path, 4096, time.monotonic() - 1) is None
    assert hostside.sha256(path, 4096, time.monotonic() + 20) == hashlib.sha256(bytes(4096)).hexdigest()
    assert hostside.sha256(str(tmp_path), 4096, time.monotonic() + 20) is None
