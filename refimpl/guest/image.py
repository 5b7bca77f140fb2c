"""Build the guest's kernel and initramfs into a cache, once for each kernel package and state of the sources.

Builders may run at the same time: one builds under a lock in a directory of its own, which gets its final name by one
rename when it is complete; whoever sees the name has a whole image.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from refimpl.guest import kernel
from refimpl.guest.initramfs import write_cpio
from refimpl.hosts.lock import locked

_HERE = Path(__file__).parent
_SOURCES = ("init.c", "tools.h", "kernel.py", "initramfs.py", "image.py")


@dataclass(frozen=True, slots=True)
class GuestImage:
    """What a virtual machine boots: paths of kernel and initramfs, and the version by which results name them."""

    kernel: Path
    initramfs: Path
    version: str


def cache_directory() -> Path:
    """Return $REFIMPL_CACHE, or /var/cache/refimpl for root, or refimpl in the user's own cache directory."""
    if chosen := os.environ.get("REFIMPL_CACHE"):
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/cache/refimpl")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refimpl"


def build(cache: Path | None = None) -> GuestImage:
    """Return the guest's image, built now if the cache does not hold it (about ten seconds; downloads the kernel).

    Raises `kernel.GuestBuildError`. Needs apt, dpkg-deb and gcc with the static C library.
    """
    packages = kernel.resolve_packages()
    directory = cache or cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"guest-{_key(packages)}"
    if not target.is_dir():
        with locked(directory / "guest.lock"):
            if not target.is_dir():
                _build_into(target, packages)
    return GuestImage(target / "vmlinuz", target / "initramfs", f"{packages[0].version}-{_key(packages)}")


def _key(packages: Sequence[kernel.KernelPackage]) -> str:
    digest = hashlib.sha256(" ".join(map(str, packages)).encode())
    for name in _SOURCES:
        digest.update((_HERE / name).read_bytes())
    return digest.hexdigest()[:12]


def _build_into(target: Path, packages: Sequence[kernel.KernelPackage]) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="building-") as work_name:
        work = Path(work_name)
        root = kernel.unpack(packages, work)
        image = work / "image"
        image.mkdir(mode=0o755)
        shutil.copyfile(kernel.find_kernel(root)[1], image / "vmlinuz")
        (image / "initramfs").write_bytes(write_cpio(_contents(root, work)))
        for path in image.iterdir():
            path.chmod(0o644)
        image.rename(target)


def _contents(root: Path, work: Path) -> dict[str, tuple[bytes, int]]:
    modules = kernel.modules_in_order(root)
    files = {f"modules/{name}.ko": (content, 0o644) for name, content in modules.items()}
    files["modules/order"] = ("".join(f"{name}.ko\n" for name in modules).encode(), 0o644)
    return files | {"init": (compile_program(_HERE / "init.c", work / "init"), 0o755)}


def compile_program(source: Path, target: Path) -> bytes:
    """Compile the guest's one program, static and stripped, and return its bytes; GuestBuildError if that fails."""
    kernel.run(["gcc", "-static", "-s", "-O2", "-Wall", "-o", str(target), str(source), "-lpthread"])
    return target.read_bytes()
