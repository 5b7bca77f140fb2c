from __future__ import annotations

import threading
from pathlib import Path

import pytest

from refimpl.guest import image, kernel
from refimpl.guest.initramfs import write_cpio

PACKAGES = (kernel.KernelPackage("linux-image-1-test", "1.0"),)


@pytest.fixture
def builds(monkeypatch) -> list[Path]:
    """A build without apt and compiler; the list holds the directories in which one took place."""
    seen: list[Path] = []

    def unpack(packages, directory: Path) -> Path:
        seen.append(directory)
        (directory / "root/boot").mkdir(parents=True)
        (directory / "root/boot/vmlinuz-1").write_bytes(b"kernel")
        return directory / "root"

    monkeypatch.setattr(kernel, "resolve_packages", lambda: PACKAGES)
    monkeypatch.setattr(kernel, "unpack", unpack)
    monkeypatch.setattr(image, "_contents", lambda root, work: {"init": (b"program", 0o755)})
    return seen


def test_it_is_built_once_and_then_taken_from_the_cache(tmp_path, builds):
    first, second = image.build(tmp_path), image.build(tmp_path)
    assert (first, len(builds)) == (second, 1)
    assert first.kernel.read_bytes() == b"kernel"
    assert b"program" in first.initramfs.read_bytes()


def test_another_kernel_is_another_image(tmp_path, builds, monkeypatch):
    first = image.build(tmp_path)
    monkeypatch.setattr(kernel, "resolve_packages", lambda: (kernel.KernelPackage("linux-image-1-test", "1.1"),))
    assert image.build(tmp_path).kernel != first.kernel


def test_builders_at_the_same_time_build_once(tmp_path, builds):
    threads = [threading.Thread(target=image.build, args=(tmp_path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert len(list(tmp_path.iterdir())) == 2  # the image and the lock


def test_a_build_that_fails_leaves_nothing_behind(tmp_path, builds, monkeypatch):
    def fail(root, work):
        raise kernel.GuestBuildError("no compiler", "install one")

    monkeypatch.setattr(image, "_contents", fail)
    with pytest.raises(kernel.GuestBuildError):
        image.build(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["guest.lock"]


def test_the_cache_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("REFIMPL_CACHE", str(tmp_path))
    assert image.cache_directory() == tmp_path


def test_the_archive_is_the_same_for_the_same_input_and_well_formed():
    archive = write_cpio({"init": (b"abc", 0o755)})
    assert archive == write_cpio({"init": (b"abc", 0o755)})
    entries = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = archive[at + 110 : at + 110 + fields[11] - 1].decode()
        body = -(-(at + 110 + fields[11]) // 4) * 4
        if name == "TRAILER!!!":
            break
        entries[name] = (oct(fields[1]), archive[body : body + fields[6]])
        at = -(-(body + fields[6]) // 4) * 4
    assert entries["init"] == ("0o100755", b"abc")
    assert entries["dev/console"][0] == "0o20600"
    assert entries["proc"][0] == "0o40755"
