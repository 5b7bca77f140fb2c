"""Places where disks cannot go, found out only when their images are made: each is told as what it is, none is left."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refimpl.backends.libvirt import connection, disk_files, imageside
from refimpl.model.errors import Problem
from refimpl.model.phase import Side
from refimpl.model.storage import DiskMove, StoragePlan
from tests.unit.backends.libvirt.here import HereChannel, image
from tests.unit.backends.libvirt.mover import Move

SIZE = 1 << 20


class Domain:
    """A VM of the destination with one disk."""

    def __init__(self, path: Path, kind: str = "raw") -> None:
        self._xml = f"""<domain><name>other</name><devices><disk type='file' device='disk'>
<driver name='qemu' type='{kind}'/><source file='{path}'/><target dev='vda'/></disk></devices></domain>"""

    def isPersistent(self) -> bool:
        return False

    def name(self) -> str:
        return "other"

    def XMLDesc(self, _which: int) -> str:
        return self._xml


class Here:
    """A move of one disk whose two hosts are this machine, in two directories."""

    def __init__(self, patch: pytest.MonkeyPatch, directory: Path) -> None:
        self.source, self.pool = directory / "source", directory / "pool"
        for folder in (self.source, self.pool):
            folder.mkdir()
        self.disk = image(self.source / "web.raw", size=SIZE)
        self.target = self.pool / "web.raw"
        self.domains: list[Domain] = []
        self._patch = patch
        patch.setattr(connection, "fresh", self._fresh)

    def listAllDomains(self) -> list[Domain]:
        return self.domains

    def make(self, *, overwrite: bool = False, target: Path | None = None) -> Problem | None:
        """Make the image as PREPARE does; the plan knows the disk as it was when this was called."""
        identity = str(imageside.identity(self.disk))
        return self.make_of(DiskMove(self.disk, str(target or self.target), "raw", SIZE, identity), overwrite)

    def make_of(self, disk: DiskMove, overwrite: bool = False) -> Problem | None:
        move = Move(self._patch, storage=StoragePlan((disk,), (), overwrite))
        move.operation.reach.source_channel = move.operation.reach.destination_channel = HereChannel()
        return disk_files.make(move.operation)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.pool.iterdir())

    @contextlib.contextmanager
    def _fresh(self, _host: Any) -> Iterator[Here]:
        yield self


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Here:
    return Here(monkeypatch, tmp_path)


def of(problem: Problem | None, id: str, *texts: str) -> None:
    assert problem is not None
    assert (problem.id, problem.side, problem.host) == (id, Side.DESTINATION, "h2")
    assert problem.mend
    for text in texts:
        assert text in problem.text


def test_a_good_place(here: Here) -> None:
    assert here.make() is None
    assert here.target.stat().st_size == SIZE


@pytest.mark.rule("R17")
@pytest.mark.error("storage.target_exists")
def test_a_file_that_came_after_the_check(here: Here) -> None:
    here.target.write_text("mine")
    of(here.make(), "storage.target_exists", str(here.target))
    assert (here.names(), here.target.read_text()) == (["web.raw"], "mine")


@pytest.mark.rule("R17")
@pytest.mark.error("storage.target_exists")
def test_a_link_in_the_place_of_the_file_is_a_file_that_is_there(here: Here, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("not to be touched")
    here.target.symlink_to(outside)
    of(here.make(), "storage.target_exists")
    assert here.make(overwrite=True) is None
    assert not here.target.is_symlink(), "it was put aside, and nothing was written through it"
    assert outside.read_text() == "not to be touched"
    imageside.undo({"operation": "0a1b2c3d", "directories": [str(here.pool)], "used": {}})
    assert (here.names(), here.target.readlink()) == (["web.raw"], outside)


@pytest.mark.rule("R17")
@pytest.mark.error("storage.target_used")
def test_a_disk_of_another_vm_is_not_overwritten_by_whatever_name_it_goes(here: Here, tmp_path: Path) -> None:
    (tmp_path / "other name").symlink_to(here.pool)
    here.target.write_text("of another VM")
    for path in (here.target, tmp_path / "other name" / "web.raw"):
        here.domains = [Domain(path)]
        of(here.make(overwrite=True), "storage.target_used", "'other'")
        assert (here.names(), here.target.read_text()) == (["web.raw"], "of another VM")


@pytest.mark.rule("R17")
@pytest.mark.error("storage.target_used")
def test_nor_is_what_a_disk_of_another_vm_is_based_on(here: Here) -> None:
    overlay = here.pool / "overlay.qcow2"
    image(here.target, size=SIZE)
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(here.target), "-F", "raw", str(overlay)]
    subprocess.run(command, check=True)
    here.domains = [Domain(overlay, "qcow2")]
    of(here.make(overwrite=True), "storage.target_used", "'other'")
    assert here.names() == ["overlay.qcow2", "web.raw"]


@pytest.mark.error("storage.outside")
def test_a_link_that_leads_out_put_there_after_the_check(here: Here, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (here.pool / "deep").symlink_to(tmp_path / "outside")
    of(here.make(target=here.pool / "deep" / "web.raw"), "storage.outside", str(tmp_path / "outside"))
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_link_put_there_while_the_image_is_made_is_not_followed(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever exchanges the directory after it was looked at gets nothing into another one."""
    genuine = imageside.within

    def late(descriptor: int, path: str, allowed: list[str]) -> None:
        genuine(descriptor, path, allowed)
        here.pool.rename(tmp_path / "away")
        (tmp_path / "outside").mkdir()
        here.pool.symlink_to(tmp_path / "outside")

    monkeypatch.setattr(imageside, "within", late)
    disk = {"path": str(here.target), "format": "raw", "bytes": SIZE}
    imageside.make({"operation": "0a1b2c3d", "disks": [disk], "allowed": [str(here.pool)], "overwrite": False})
    assert list((tmp_path / "outside").iterdir()) == []
    assert "web.raw" in os.listdir(tmp_path / "away")


@pytest.mark.error("storage.no_directory")
def test_a_directory_that_went_away(here: Here) -> None:
    of(here.make(target=here.pool / "gone" / "web.raw"), "storage.no_directory", "No such file or directory")


@pytest.mark.error("storage.no_directory")
def test_a_file_in_the_way_of_the_directory(here: Here) -> None:
    (here.pool / "file").write_text("in the way")
    of(here.make(target=here.pool / "file" / "web.raw"), "storage.no_directory", "Not a directory")
    assert here.names() == ["file"]


@pytest.mark.error("storage.no_directory")
def test_links_that_lead_to_each_other(here: Here) -> None:
    (here.pool / "one").symlink_to(here.pool / "two")
    (here.pool / "two").symlink_to(here.pool / "one")
    of(here.make(target=here.pool / "one" / "web.raw"), "storage.no_directory", "Too many levels")


@pytest.mark.error("storage.not_writable")
def test_a_directory_in_which_nobody_makes_a_file(here: Here) -> None:
    """Of the kernel's, as nothing else keeps root from it."""
    of(here.make(target=Path("/sys/kernel/web.raw")), "storage.not_writable")


@pytest.mark.parametrize(
    ("number", "id"),
    [
        (errno.ENOSPC, "storage.full"),
        (errno.EDQUOT, "storage.full"),
        (errno.EROFS, "storage.not_writable"),
        (errno.EACCES, "storage.not_writable"),
        (errno.EPERM, "storage.not_writable"),
        (errno.ESTALE, "storage.not_made"),
        (errno.EIO, "storage.not_made"),
    ],
)
def test_what_the_system_says_is_told_as_what_it_means(
    here: Here, monkeypatch: pytest.MonkeyPatch, number: int, id: str
) -> None:
    """The program on the host is this one with a call of the system that fails."""
    fails = f"def create(*_):\n    raise OSError({number}, os.strerror({number}))\n\n\nANSWERS"
    changed = disk_files.program().replace("ANSWERS", fails, 1)
    monkeypatch.setattr(disk_files, "program", lambda: changed)
    problem = here.make()
    assert problem is not None
    assert (problem.id, os.strerror(number) in str(problem.values["detail"])) == (id, True)
    assert here.names() == []


@pytest.mark.error("storage.full")
def test_the_words_of_a_full_file_system_in_what_libvirt_says(monkeypatch: pytest.MonkeyPatch) -> None:
    move = Move(monkeypatch, storage=StoragePlan((), ()))
    for text in ("block job failed: No space left on device", "Disk quota exceeded"):
        problem = disk_files.full(move.operation, OSError(text))
        assert problem is not None
        assert problem.id == "storage.full"
    assert disk_files.full(move.operation, OSError("Input/output error")) is None


@pytest.mark.rule("R17")
@pytest.mark.error("storage.changed")
@pytest.mark.parametrize("change", ["replaced", "grown", "shrunk", "gone"])
def test_a_source_that_somebody_changed_after_the_check(here: Here, change: str) -> None:
    before = DiskMove(here.disk, str(here.target), "raw", SIZE, str(imageside.identity(here.disk)))
    path = Path(here.disk)
    if change == "replaced":
        # The old file stays open as the VM's would, so that its number is not given away.
        path.rename(path.with_name("held"))
        image(path, size=SIZE)
    elif change == "gone":
        path.unlink()
    else:
        os.truncate(path, SIZE * 2 if change == "grown" else SIZE // 2)
    problem = here.make_of(before)
    assert problem is not None
    assert (problem.id, problem.side, problem.host) == ("storage.changed", Side.SOURCE, "h1")
    assert here.disk in problem.text
    assert here.names() == []


@pytest.mark.error("storage.not_made")
def test_a_host_that_does_not_answer(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        def ask(self, *_: Any) -> None:
            raise TimeoutError("no answer within 90 s")

        def close(self) -> None:
            """Nothing is open."""

    genuine = HereChannel.talk
    monkeypatch.setattr(
        HereChannel, "talk", lambda self, text: Silent() if "def place_at" in text else genuine(self, text)
    )
    of(here.make(), "storage.not_made", "no answer within 90 s")
