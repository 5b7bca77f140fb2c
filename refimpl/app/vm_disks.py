"""Disk images for guests of one's own: what a file is, whether a VM with it can be moved, and copying it.

qemu-img reads and writes them. An image is never trusted with another file of this machine: one that names a base or a
data file is refused, as whoever made it could have named anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refimpl.hosts.command import run_local
from refimpl.model.errors import Problem, RefimplError, error

FORMATS = ("raw", "qcow2")
_LOOK_S = 30.0
_COPY_S = 3600.0
_SECTOR_BYTES = 512
_FIXED_VHD = b"conectix"


@dataclass(frozen=True, slots=True)
class Image:
    """A disk image: where it is and its format, `raw` or `qcow2`."""

    path: Path
    format: str


def examine(path: Path, what: str, vm: str) -> Image:
    """Return what a file is. `vm.file_unusable`, `vm.image_format` or `vm.image_based` when no VM here can have it."""
    require_file(path, what, vm)
    info = _info(path, what, vm)
    found, target = str(info["format"]), str(path.with_suffix(".converted.qcow2"))
    if found == "raw" and _is_fixed_vhd(path):
        found = "vpc"
    if found not in FORMATS:
        raise _wrong("vm.image_format", path=str(path), format=_NAMES.get(found, found), target=target)
    size_bytes = path.stat().st_size
    if found == "raw" and size_bytes % _SECTOR_BYTES:
        detail = f"it has {size_bytes} bytes, no whole number of sectors of {_SECTOR_BYTES}: it is no disk"
        raise _wrong("vm.file_unusable", path=str(path), what=what, vm=vm, detail=detail)
    base = info.get("backing-filename") or _data_file(info)
    if base:
        raise _wrong("vm.image_based", path=str(path), base=str(base), target=target)
    return Image(path.resolve(), found)


def require_file(path: Path, what: str, vm: str) -> None:
    """Check that a file can be read and is not empty: `vm.file_unusable`."""
    try:
        if not path.is_file():
            detail = "it is a directory or a device" if path.exists() else "there is no such file"
        else:
            with path.open("rb") as file:
                detail = "" if file.read(1) else "it is empty"
    except OSError as failure:
        detail = failure.strerror or str(failure)
    if detail:
        raise error("vm.file_unusable", path=str(path), what=what, vm=vm, detail=detail)


def copy(image: Image, target: Path, vm: str) -> Image:
    """Copy an image, as sparse as it can be, in its own format: `vm.copy_failed`."""
    command = ["qemu-img", "convert", "-f", image.format, "-O", image.format, str(image.path), str(target)]
    _run(command, f"disk image {str(image.path)!r}", target, vm)
    return Image(target, image.format)


def make(size_mib: int, target: Path, vm: str) -> Image:
    """Make an empty raw disk that takes space only for what is written to it: `vm.copy_failed`."""
    try:
        with target.open("xb") as file:
            file.truncate(size_mib << 20)
    except OSError as failure:
        raise _not_put(f"a disk of {size_mib} MiB", target, vm, failure.strerror or str(failure)) from failure
    return Image(target, "raw")


def copy_file(source: Path, target: Path, what: str, vm: str) -> Path:
    """Copy any other file: `vm.copy_failed`."""
    _run(["cp", "--sparse=auto", "--reflink=auto", "--", str(source), str(target)], what, target, vm)
    return target


_NAMES = {"vpc": "VHD", "vhdx": "VHDX", "vmdk": "VMDK", "vdi": "VDI"}


def _info(path: Path, what: str, vm: str) -> dict[str, Any]:
    try:
        done = run_local(["qemu-img", "info", "--output=json", str(path.absolute())], timeout_s=_LOOK_S)
    except OSError as failure:
        raise error("vm.file_unusable", path=str(path), what=what, vm=vm, detail=str(failure)) from failure
    if done.status != 0:
        detail = done.stderr.strip().removeprefix("qemu-img: ") or f"qemu-img ended with {done.status}"
        raise error("vm.file_unusable", path=str(path), what=what, vm=vm, detail=detail)
    info: dict[str, Any] = json.loads(done.stdout)
    return info


def _data_file(info: dict[str, Any]) -> str | None:
    found = info.get("format-specific", {}).get("data", {}).get("data-file")
    return None if found is None else str(found)


def _is_fixed_vhd(path: Path) -> bool:
    """Tell whether a file ends as a VHD of fixed size does, which begins like a raw disk."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size_bytes - _SECTOR_BYTES), os.SEEK_SET)
        return file.read(len(_FIXED_VHD)) == _FIXED_VHD


def _run(command: Sequence[str], what: str, target: Path, vm: str) -> None:
    try:
        done = run_local(command, timeout_s=_COPY_S)
    except OSError as failure:
        raise _not_put(what, target, vm, str(failure)) from failure
    if done.status != 0:
        raise _not_put(what, target, vm, (done.stderr or done.stdout).strip())


def _not_put(what: str, target: Path, vm: str, detail: str) -> RefimplError:
    return error("vm.copy_failed", what=what, vm=vm, detail=detail.rstrip("."), directory=str(target.parent))


def _wrong(id: str, **values: str) -> RefimplError:
    return RefimplError(Problem(id, values))
