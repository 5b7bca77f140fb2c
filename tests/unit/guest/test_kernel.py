"""Finding kernel packages and modules, with an apt and a package tree made up here (Ubuntu's names too)."""

from __future__ import annotations

import gzip
import lzma
import os
from pathlib import Path

import pytest

from refimpl.guest import kernel
from refimpl.guest.kernel import GuestBuildError

RECORDS = {
    "debian": {
        "linux-image-cloud-amd64": ("6.1.9-2", "linux-image-6.1.0-9-cloud-amd64 (= 6.1.9-2)"),
        "linux-image-6.1.0-9-cloud-amd64": (
            "6.1.9-2",
            "kmod, linux-base (>= 4.3~), initramfs-tools | linux-initramfs-tool",
        ),
    },
    "ubuntu": {
        "linux-image-virtual": ("6.8.0-50.51", "linux-image-6.8.0-50-generic | linux-image-unsigned-6.8.0-50-generic"),
        "linux-image-6.8.0-50-generic": ("6.8.0-50.51", "kmod, linux-base, linux-modules-6.8.0-50-generic"),
        "linux-modules-6.8.0-50-generic": ("6.8.0-50.51", ""),
    },
    "none": {},
}


@pytest.fixture
def apt(tmp_path, monkeypatch):
    def install(records: dict[str, tuple[str, str]]) -> None:
        for name, (version, depends) in records.items():
            text = f"Package: {name}\nVersion: {version}\nDepends: {depends}\nDescription: x\n Version: 0\n\n"
            (tmp_path / f"{name}.txt").write_text(text)
        program = tmp_path / "apt-cache"
        program.write_text(f'#!/bin/sh\nexec cat "{tmp_path}/$3.txt"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return install


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        ("debian", ["linux-image-6.1.0-9-cloud-amd64=6.1.9-2"]),
        ("ubuntu", ["linux-image-6.8.0-50-generic=6.8.0-50.51", "linux-modules-6.8.0-50-generic=6.8.0-50.51"]),
    ],
)
def test_the_concrete_packages_are_found(apt, monkeypatch, distribution, expected):
    apt(RECORDS[distribution])
    monkeypatch.setattr(kernel, "distribution", lambda: distribution)
    assert [str(package) for package in kernel.resolve_packages()] == expected


def test_an_apt_that_knows_nothing_is_told_with_its_mend(apt):
    apt(RECORDS["none"])
    with pytest.raises(GuestBuildError, match="apt-get update"):
        kernel.resolve_packages(["linux-image-cloud-amd64"])


def test_another_distribution_is_refused(monkeypatch):
    monkeypatch.setattr(kernel.platform, "freedesktop_os_release", lambda: {"ID": "other", "ID_LIKE": "strange"})
    with pytest.raises(GuestBuildError, match="other"):
        kernel.distribution()


def test_a_derivative_counts_as_what_it_is_made_from(monkeypatch):
    monkeypatch.setattr(kernel.platform, "freedesktop_os_release", lambda: {"ID": "mint", "ID_LIKE": "ubuntu debian"})
    assert kernel.distribution() == "ubuntu"


def make_tree(root: Path) -> None:
    top = root / "usr/lib/modules/6.12"
    files = {
        "kernel/drivers/virtio-ring.ko": b"ELF\0depends=\0",
        "kernel/drivers/virtio.ko.gz": gzip.compress(b"ELF\0depends=virtio-ring\0name=virtio\0"),
        "kernel/drivers/virtio_pci.ko.xz": lzma.compress(b"ELF\0depends=virtio,virtio_ring\0"),
    }
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
    (top / "modules.builtin").write_text("kernel/drivers/block/virtio_blk.ko\n")


def test_modules_come_after_those_they_need_and_built_in_ones_are_left_out(tmp_path):
    make_tree(tmp_path)
    ordered = kernel.modules_in_order(tmp_path, ["virtio_pci", "virtio_blk"])
    assert list(ordered) == ["virtio_ring", "virtio", "virtio_pci"]
    assert ordered["virtio_pci"].startswith(b"ELF")


def test_a_module_that_the_kernel_lacks_is_an_error(tmp_path):
    make_tree(tmp_path)
    with pytest.raises(GuestBuildError, match="virtio_net"):
        kernel.modules_in_order(tmp_path, ["virtio_net"])


def test_a_program_that_is_missing_or_fails_is_an_error():
    with pytest.raises(GuestBuildError, match="not installed"):
        kernel.run(["refimpl-no-such-program"])
    with pytest.raises(GuestBuildError, match="status 3"):
        kernel.run(["sh", "-c", "exit 3"])
