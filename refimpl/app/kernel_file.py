"""Whether a file is a kernel that QEMU can boot here, told by its header before a VM is made with it.

QEMU starts a VM with whatever it is given; one that cannot boot stands still without a word until the wait for its
guest ends. Headers: Linux's Documentation/arch (x86/boot.rst, arm64/booting.rst, riscv/boot-image-header.rst), ELF, and
Multiboot 3.1.1.
"""

from __future__ import annotations

import platform
import zlib
from pathlib import Path

from refimpl.app.vm_disks import require_file
from refimpl.model.errors import error

_HEAD_BYTES = 1 << 16
_X86, _ARM = frozenset({"x86_64", "i386"}), frozenset({"aarch64"})
_MULTIBOOT, _MULTIBOOT_BYTES, _MULTIBOOT_ALIGNMENT = (0x1BADB002).to_bytes(4, "little"), 8192, 4
_HEADERS = ((0x202, b"HdrS", _X86), (0x38, b"ARM\x64", _ARM), (0x38, b"RSC\x05", frozenset({"riscv64"})))
_ELF_BYTES, _ELF_ORDER, _ELF_BIG = 20, 5, 2
_ELF_MACHINES = {
    3: _X86,
    21: frozenset({"ppc64le", "ppc64"}),
    22: frozenset({"s390x"}),
    62: frozenset({"x86_64"}),
    183: _ARM,
    243: frozenset({"riscv64"}),
    258: frozenset({"loongarch64"}),
}
_GZIP, _GZIP_MODE = b"\x1f\x8b", 31
_UNPACKED_BY_QEMU = frozenset({"aarch64"})


def require_kernel(path: Path, vm: str, machine: str | None = None) -> None:
    """Check that a file is a kernel for this machine's processor: `vm.file_unusable`, `vm.kernel_unusable`."""
    require_file(path, "kernel", vm)
    machine = platform.machine() if machine is None else machine
    with path.open("rb") as file:
        detail = _objection(file.read(_HEAD_BYTES), machine)
    if detail:
        raise error("vm.kernel_unusable", path=str(path), vm=vm, detail=detail, machine=machine)


def _objection(head: bytes, machine: str) -> str:
    """Return why a file that begins like this cannot be booted, empty when nothing speaks against it."""
    if head.startswith(_GZIP):
        inside = processors(_unpacked(head))
        if inside is None:
            return "it is packed with gzip, and what is in it does not begin as a kernel does"
        if machine not in _UNPACKED_BY_QEMU:
            return f"it is a kernel packed with gzip, which QEMU does not unpack on {machine}: unpack it with gunzip"
        return _other(inside, machine)
    found = processors(head)
    if found is None:
        return "it does not begin as a kernel does"
    return _other(found, machine)


def _other(found: frozenset[str], machine: str) -> str:
    return "" if not found or machine in found else f"it is a kernel for {' or '.join(sorted(found))}"


def processors(head: bytes) -> frozenset[str] | None:
    """Return for which processors the kernel is that begins like this; empty: not said there, None: it is no kernel."""
    for offset, magic, found in _HEADERS:
        if head[offset : offset + len(magic)] == magic:
            return found
    if head.startswith(b"\x7fELF") and len(head) >= _ELF_BYTES:
        number = int.from_bytes(head[18:20], "big" if head[_ELF_ORDER] == _ELF_BIG else "little")
        return _ELF_MACHINES.get(number, frozenset({f"ELF machine {number}"}))
    if head.startswith(b"MZ") and head[4:8] == b"zimg":
        return frozenset()
    at = head.find(_MULTIBOOT, 0, _MULTIBOOT_BYTES)
    return _X86 if at >= 0 and at % _MULTIBOOT_ALIGNMENT == 0 else None


def _unpacked(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(_GZIP_MODE).decompress(head, _HEAD_BYTES)
    except zlib.error:
        return b""
