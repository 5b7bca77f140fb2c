"""Guests of one's own: what cannot be used is found as a whole before anything is made, what can be is put in place."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pycdlib
import pytest

from refimpl.app import seed, vm_disks
from refimpl.app.own_guest import OwnGuest, examine, put
from refimpl.app.vm_disks import Image
from refimpl.model.errors import Problem, RefimplError

needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img (ci/setup installs it)")
SECTORS = b"\x55" * 1024
KERNEL = SECTORS[:0x202] + b"HdrS" + SECTORS[0x206:]
"""Begins as a kernel for x86 does."""
PARTS = {"k": KERNEL, "i": SECTORS, "raw": SECTORS}
USER_DATA = b"#cloud-config\nhostname: x\n"


def problems(wish: OwnGuest, shared: Path) -> tuple[Problem, ...]:
    with pytest.raises(RefimplError) as caught:
        examine(wish, "shop", shared)
    return caught.value.problems


def image(path: Path, format: str, *options: str) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", format, *options, str(path), "4M"], check=True)
    return path


def written(path: Path, data: bytes = SECTORS) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture(autouse=True)
def _on_x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


@needs_qemu_img
@pytest.mark.error("vm.image_format")
@pytest.mark.parametrize(
    ("format", "options", "called"),
    [
        ("vhdx", (), "VHDX"),
        ("vpc", (), "VHD"),
        ("vpc", ("-o", "subformat=fixed"), "VHD"),
        ("vmdk", (), "VMDK"),
    ],
)
def test_formats_that_qemu_cannot_move_are_refused_with_the_conversion(
    format: str, options: tuple[str, ...], called: str, tmp_path: Path
) -> None:
    (problem,) = problems(OwnGuest(image=image(tmp_path / "a disk", format, *options)), tmp_path)
    assert (problem.id, problem.values["format"]) == ("vm.image_format", called)
    assert f"qemu-img convert -p -O qcow2 '{tmp_path}/a disk' " in problem.mend


@needs_qemu_img
@pytest.mark.error("vm.image_based")
def test_an_image_that_names_another_file_is_never_followed(tmp_path: Path) -> None:
    secret = written(tmp_path / "secret")
    based = tmp_path / "based"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(secret), "-F", "raw", str(based)], check=True)
    outside = image(tmp_path / "outside", "qcow2", "-o", f"data_file={tmp_path}/data,data_file_raw=on")
    for path, named in ((based, "secret"), (outside, "data")):
        (problem,) = problems(OwnGuest(image=path), tmp_path)
        assert problem.id == "vm.image_based"
        assert named in problem.text


@needs_qemu_img
@pytest.mark.error("vm.file_unusable", "vm.seed_invalid", "vm.device_refused")
def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    wish = OwnGuest(
        image=written(tmp_path / "text", b"no disk"),
        disks=(tmp_path / "nothing", 16),
        kernel=tmp_path,
        initrd=written(tmp_path / "empty", b""),
        user_data=written(tmp_path / "user", b"hostname: x\n"),
        network_config=tmp_path / "network",
        refused=("--vtpm", "--host-device", "--shared-folder"),
    )
    found = problems(wish, tmp_path)
    assert [problem.id for problem in found] == [
        *["vm.device_refused"] * 3,
        *["vm.file_unusable"] * 4,
        "vm.seed_invalid",
        "vm.file_unusable",
    ]
    assert "no whole number of sectors" in found[3].text
    assert "no such file" in found[4].text
    assert "directory" in found[5].text
    assert "empty" in found[6].text
    assert "hostname: x" in found[7].text


@needs_qemu_img
@pytest.mark.error("vm.image_not_shared")
def test_a_disk_stays_in_place_only_where_all_hosts_see_it(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    elsewhere, here = written(tmp_path / "elsewhere"), written(shared / "here")
    (shared / "link").symlink_to(elsewhere)
    for path in (elsewhere, shared / "link", shared / ".." / "elsewhere"):
        (problem,) = problems(OwnGuest(image=path, in_place=True), shared)
        assert problem.id == "vm.image_not_shared"
    found = examine(OwnGuest(image=here, in_place=True, disks=(8,)), "shop", shared)
    assert found.kept == (str(here),)
    folder = tmp_path / "folder"
    folder.mkdir()
    placed = put(found, folder, "shop", "id")
    assert placed.disks == (Image(here, "raw"), Image(folder / "disk2.raw", "raw"))


@needs_qemu_img
def test_what_is_copied_is_equal_and_no_longer_needed(tmp_path: Path) -> None:
    kernel, initrd, raw = (written(tmp_path / name, data) for name, data in PARTS.items())
    user = written(tmp_path / "user", USER_DATA)
    wish = OwnGuest(
        image=image(tmp_path / "q", "qcow2"), disks=(raw, 8), kernel=kernel, initrd=initrd, uefi=True, user_data=user
    )
    found = examine(wish, "shop", tmp_path)
    for path in (kernel, initrd):
        assert path.exists()
    folder = tmp_path / "folder"
    folder.mkdir()
    placed = put(found, folder, "shop", "id")
    assert [(disk.path.name, disk.format) for disk in placed.disks] == [
        ("disk1.qcow2", "qcow2"),
        ("disk2.raw", "raw"),
        ("disk3.raw", "raw"),
    ]
    assert (folder / "disk2.raw").read_bytes() == SECTORS
    assert (folder / "disk3.raw").stat().st_size == 8 << 20
    assert [(folder / name).read_bytes() for name in ("kernel", "initrd")] == [KERNEL, SECTORS]
    assert placed.nvram == folder / "nvram.fd"
    assert placed.dvd is not None
    assert placed.dvd.stat().st_mode & 0o077 == 0


@needs_qemu_img
@pytest.mark.error("vm.copy_failed")
def test_a_copy_that_fails_says_where_and_why(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    found = examine(
        OwnGuest(kernel=written(tmp_path / "k", KERNEL), user_data=written(tmp_path / "u", USER_DATA)), "shop", tmp_path
    )
    for work in (
        lambda: put(found, nowhere, "shop", "id"),
        lambda: vm_disks.make(8, nowhere / "disk", "shop"),
        lambda: vm_disks.copy(Image(tmp_path / "k", "raw"), nowhere / "disk", "shop"),
    ):
        with pytest.raises(RefimplError) as caught:
            work()
        assert caught.value.problems[0].id == "vm.copy_failed"
        assert "No such file" in caught.value.problems[0].text


@pytest.mark.parametrize(("vm", "host_name"), [("shop-1", "shop-1"), ("ü b", "vm-0f0f0f0f")])
def test_the_seed_is_a_disc_as_cloud_init_wants_it(vm: str, host_name: str, tmp_path: Path) -> None:
    path = written(tmp_path / "seed.iso", seed.seed(USER_DATA, b"version: 2\n", vm=vm, vm_id="0f0f0f0f-1111"))
    disc = pycdlib.PyCdlib()
    disc.open(str(path))
    assert disc.pvd.volume_identifier.decode().strip() == "cidata"
    read = {}
    for name in ("user-data", "meta-data", "network-config"):
        for kind in ("joliet_path", "rr_path"):
            disc.get_file_from_iso(str(tmp_path / "out"), **{kind: f"/{name}"})
            read[name] = (tmp_path / "out").read_bytes()
    assert read["user-data"] == USER_DATA
    assert read["network-config"] == b"version: 2\n"
    assert f'"local-hostname": "{host_name}"'.encode() in read["meta-data"]
    assert b'"instance-id": "0f0f0f0f-1111"' in read["meta-data"]


def test_a_seed_that_is_too_large_is_refused(tmp_path: Path) -> None:
    large = written(tmp_path / "user", USER_DATA + b"#" * (1 << 20))
    with pytest.raises(RefimplError, match=r"vm\.seed_invalid"):
        seed.read_user_data(large, "shop")
