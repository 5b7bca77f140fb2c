"""Mounts on one host of a lab, in its own mount namespace, so that it sees other files under a path than the others."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.lab.lab_support import run_on
from tests.lab.moving import Moving


@contextmanager
def mounted_over(moving: Moving, host: str, path: Path, other: Path, *, read_only: bool = False) -> Iterator[None]:
    """Let a host see something else under a path: a directory over a directory, a file over a file."""
    run_on(moving.lab, host, "mount", "--bind", str(other), str(path))
    try:
        if read_only:
            run_on(moving.lab, host, "mount", "-o", "remount,bind,ro", str(path))
        yield
    finally:
        run_on(moving.lab, host, "umount", str(path))


@contextmanager
def full_over(moving: Moving, host: str, path: Path) -> Iterator[None]:
    """Let a host see a file system without any room under a path."""
    run_on(moving.lab, host, "mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(path))
    try:
        run_on(moving.lab, host, "dd", "if=/dev/zero", f"of={path}/filler", "bs=4096", "count=1", "status=none")
        yield
    finally:
        run_on(moving.lab, host, "umount", str(path))


class SmallDisk:
    """A file system of its own, on an image of its own, which can be filled, and which an error turns read-only.

    Nothing that has a file open is spared. `run`: runs a command where it is mounted. A namespace that was made
    meanwhile, of another lab, has it too, so it is taken away without waiting for that, and mended in a copy.
    """

    def __init__(self, run: Callable[..., object], image: Path, at: str) -> None:
        self._run, self._image, self.at = run, image, at

    def mount(self) -> None:
        """Mount it, with nothing in it the first time."""
        self._run("mount", "-o", "loop,errors=remount-ro", str(self._image), self.at)

    def unmount(self) -> None:
        """Take it away."""
        self._run("umount", "--lazy", self.at)

    def fill(self) -> None:
        """Leave no room."""
        self._run("sh", "-c", f"! dd if=/dev/zero of={self.at}/filler bs=1024 status=none 2>/dev/null")

    def fail(self) -> None:
        """Have the system meet an error in it, by which it takes no writes any more; what was written is kept."""
        self._run("sync", "-f", self.at)
        told = subprocess.run(
            ["losetup", "-j", str(self._image), "-n", "-O", "NAME"], check=True, capture_output=True, text=True
        )
        (device,) = told.stdout.split()
        (Path("/sys/fs/ext4") / Path(device).name / "trigger_fs_error").write_text("1")

    def make_room(self) -> None:
        """Have room again after `fill`."""
        self._run("rm", f"{self.at}/filler")

    def mend(self) -> None:
        """Check it after `fail`: it takes writes again."""
        mended = self._image.with_suffix(".mended")
        self.unmount()
        shutil.copy(self._image, mended)
        checked = subprocess.run(["e2fsck", "-fy", str(mended)], check=False, capture_output=True)
        assert checked.returncode in (0, 1), checked
        self._image = mended
        self.mount()


@contextmanager
def small_disk(run: Callable[..., object], image: Path, at: str, size_mib: int) -> Iterator[SmallDisk]:
    """Mount a small file system of its own over a directory. `run`: runs a command there; it has to succeed."""
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", str(image)], check=True)
    disk = SmallDisk(run, image, at)
    disk.mount()
    try:
        yield disk
    finally:
        disk.unmount()


class Fault(NamedTuple):
    """What happens to such a file system, and how it is undone."""

    does: Callable[[SmallDisk], None]
    undo: Callable[[SmallDisk], None]


SMALL_DISK_FAULTS = {
    "full": Fault(SmallDisk.fill, SmallDisk.make_room),
    "read-only": Fault(SmallDisk.fail, SmallDisk.mend),
}
