"""What is named as a kernel is looked at before a VM is made with it: it would stand still and say nothing."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from refimpl.app import kernel_file
from refimpl.app.own_guest import OwnGuest, examine
from refimpl.model.errors import RefimplError


def head(offset: int, magic: bytes) -> bytes:
    return (b"MZ" + bytes(1000))[:offset] + magic + bytes(1000)


def elf(number: int, order: str = "little") -> bytes:
    kind = 2 if order == "big" else 1
    return b"\x7fELF\x02" + bytes([kind]) + bytes(12) + number.to_bytes(2, order) + bytes(100)  # type: ignore[arg-type]


BZ_IMAGE, ARM, RISCV = head(0x202, b"HdrS"), head(0x38, b"ARM\x64"), head(0x38, b"RSC\x05")
KERNELS = {
    "bzImage": (BZ_IMAGE, "x86_64"),
    "arm64 Image": (ARM, "aarch64"),
    "arm64 Image.gz": (gzip.compress(ARM), "aarch64"),
    "RISC-V Image": (RISCV, "riscv64"),
    "ELF": (elf(62), "x86_64"),
    "ELF of another order": (elf(22, "big"), "s390x"),
    "EFI zboot": (b"MZ\0\0zimg" + bytes(1000), "aarch64"),
    "Multiboot": (head(0x40, b"\x02\xb0\xad\x1b"), "x86_64"),
}
OTHERS = {
    "text": (b"#cloud-config\n" * 100, "does not begin as a kernel does"),
    "short": (b"x", "does not begin as a kernel does"),
    "EFI program": (head(0x3C, b"\x80\0\0\0PE"), "does not begin as a kernel does"),
    "half an ELF": (b"\x7fELF", "does not begin as a kernel does"),
    "arm64 Image": (ARM, "for aarch64"),
    "ELF for arm64": (elf(183), "for aarch64"),
    "ELF for what nobody knows": (elf(9999), "ELF machine 9999"),
    "initial RAM disk": (gzip.compress(b"070701" * 1000), "packed with gzip, and what is in it"),
    "broken gzip": (b"\x1f\x8b\x08broken", "packed with gzip, and what is in it"),
    "bzImage.gz": (gzip.compress(BZ_IMAGE), "gunzip"),
    "Multiboot out of place": (head(0x41, b"\x02\xb0\xad\x1b"), "does not begin as a kernel does"),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_let_in(name: str, tmp_path: Path) -> None:
    data, machine = KERNELS[name]
    path = tmp_path / "kernel"
    path.write_bytes(data)
    kernel_file.require_kernel(path, "shop", machine)


@pytest.mark.error("vm.kernel_unusable")
@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_kernel_for_this_machine_is_refused_before_a_vm_is_made(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, said = OTHERS[name]
    path = tmp_path / "kernel"
    path.write_bytes(data)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(RefimplError) as caught:
        examine(OwnGuest(kernel=path), "shop", tmp_path)
    (problem,) = caught.value.problems
    assert problem.id == "vm.kernel_unusable"
    assert said in problem.text
    assert "for x86_64" in problem.mend
    assert [found.name for found in tmp_path.iterdir()] == ["kernel"]


def test_a_packed_kernel_for_another_processor_is_told(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(gzip.compress(BZ_IMAGE))
    with pytest.raises(RefimplError, match="for i386 or x86_64"):
        kernel_file.require_kernel(path, "shop", "aarch64")
