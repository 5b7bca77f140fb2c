"""Mounts on one host of a lab, in its own mount namespace, so that it sees other files under a path than the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
