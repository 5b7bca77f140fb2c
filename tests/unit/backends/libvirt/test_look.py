"""What the helper on a host tells: files by what they begin like and are based on, links, locks, libraries."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from refimpl.backends.libvirt import hostside, links
from refimpl.backends.libvirt.look import Look
from refimpl.model.facts import AddressFact, DiskFact
from tests.unit.backends.libvirt.here import HereChannel, image
from tests.unit.backends.libvirt.recorded import FakeChannel


@pytest.mark.parametrize(
    ("offset", "data", "content"),
    [
        (0, b"vhdxfile", "vhdx"),
        (0, b"conectix", "vpc"),
        (4096 - 512, b"conectix", "vpc"),
        (0, b"QFI\xfb\0\0\0\3", "qcow2"),
        (0, b"QFI\xfb\0\0\0\1", "qcow"),
        (0, b"KDMV", "vmdk"),
        (64, b"\x7f\x10\xda\xbe", "vdi"),
        (1, b"vhdxfile", "raw"),
        (0, b"", "raw"),
    ],
)
def test_a_file_is_known_by_its_magic_bytes(tmp_path: Path, offset: int, data: bytes, content: str) -> None:
    path = image(tmp_path / "disk", (offset, data))
    with open(path, "rb") as file:
        assert hostside.content(file, 4096) == content


@pytest.fixture
def look() -> Look:
    here = Look(HereChannel({"/etc/libvirt/qemu.conf": b'shared_filesystems = [ "/elsewhere", "/srv/shared" ]\n'}))
    yield here
    here.close()


def test_a_disk_has_the_identity_of_its_file_and_what_is_not_there_has_none(tmp_path: Path, look: Look) -> None:
    path, missing = image(tmp_path / "a disk\nof two lines"), str(tmp_path / "missing")
    link = tmp_path / "link"
    link.symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    paths = (path, missing, str(link), str(tmp_path / "pipe"))
    found = {p: s.fact for p, s in look.disks({p: DiskFact(p, None, format="raw") for p in paths}).items()}
    assert found[path].identity is not None
    assert found[str(link)].identity == found[path].identity
    assert (found[path].size_bytes, found[path].content, found[path].shared_file_system) == (4096, "raw", False)
    assert (found[missing].identity, found[missing].content, found[missing].shared_file_system) == (None, None, None)
    assert found[str(tmp_path / "pipe")].content is None
    os.replace(image(tmp_path / "other"), path)
    assert look.disks({path: DiskFact(path, None)})[path].fact.identity != found[path].identity


def test_a_disk_says_whether_it_can_be_written_where_it_is_mounted(
    tmp_path: Path, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = image(tmp_path / "disk")
    assert look.disks({path: DiskFact(path, None)})[path].fact.writable is True
    assert look.disks({"/nowhere": DiskFact("/nowhere", None)})["/nowhere"].fact.writable is None
    here = os.statvfs(path)
    flagged = os.statvfs_result([*here[:8], here.f_flag | os.ST_RDONLY, here.f_namemax])
    monkeypatch.setattr(os, "statvfs", lambda _: flagged)
    assert hostside.writable(path, os.stat(path)) is False


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
def test_an_image_shows_what_it_is_based_on_only_if_it_is_defined_as_one(tmp_path: Path, look: Look) -> None:
    base, top = str(tmp_path / "base.raw"), str(tmp_path / "top.qcow2")
    image(tmp_path / "base.raw", size=1 << 20)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top], check=True)
    alone = str(tmp_path / "alone.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", alone, "1M"], check=True)
    found = look.disks({p: DiskFact(p, None, format="qcow2") for p in (top, alone)})
    assert (found[top].fact.chain, found[alone].fact.chain) == ((base,), ())
    # A guest can write such a header to a raw disk of its own, and name any file of the host in it.
    assert look.disks({top: DiskFact(top, None, format="raw")})[top].fact.chain == ()


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
def test_an_image_shows_how_long_a_guest_sees_it_and_what_is_broken_in_what_it_is_based_on(
    tmp_path: Path, look: Look
) -> None:
    base, top = str(tmp_path / "base.raw"), str(tmp_path / "top.qcow2")
    image(tmp_path / "base.raw", size=3 << 20)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top, "5M"], check=True)
    asked = {top: DiskFact(top, None, format="qcow2"), base: DiskFact(base, None, format="raw")}
    found = look.disks(asked)
    assert (found[top].fact.virtual_size_bytes, found[base].fact.virtual_size_bytes) == (5 << 20, 3 << 20)
    assert (found[base].fact.allocated_bytes, found[top].fact.broken) == (0, "")
    assert look.disks({top: DiskFact(top, None, format="vpc")})[top].fact.virtual_size_bytes is None
    os.unlink(base)
    assert "base.raw" in look.disks({top: asked[top]})[top].fact.broken


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
@pytest.mark.parametrize(
    ("based_on", "said"),
    [("itself", "loop"), ("of another format", "not in qcow2 format"), ("a directory", "regular file")],
)
def test_a_chain_that_leads_nowhere_is_broken_and_says_why(
    tmp_path: Path, look: Look, based_on: str, said: str
) -> None:
    base, top = tmp_path / "base", str(tmp_path / "top.qcow2")
    if based_on == "of another format":
        image(base, size=1 << 20)
    elif based_on == "a directory":
        base.mkdir()
    else:
        command = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", top, "-F", "qcow2", str(base), "1M"]
        subprocess.run(command, check=True)
    overlay = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", str(base), "-F", "qcow2", top, "1M"]
    subprocess.run(overlay, check=True)
    fact = look.disks({top: DiskFact(top, None, format="qcow2")})[top].fact
    assert fact.chain == ()
    assert said in fact.broken.lower() or said in fact.broken


def test_a_place_for_a_disk_shows_what_is_there_and_whether_its_directory_is_one(tmp_path: Path, look: Look) -> None:
    image(tmp_path / "taken.raw")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "dangling.raw").symlink_to(tmp_path / "nothing")
    here = str(tmp_path)
    names = ("free.raw", "taken.raw", "dangling.raw", "link/free.raw", "taken.raw/x", "nowhere/x")
    found = look.targets([f"{here}/{name}" for name in names])
    free, taken, dangling, linked, file, nowhere = (found[f"{here}/{name}"] for name in names)
    assert (free.identity, free.directory, free.real, free.writable) == (None, "", here, True)
    assert (taken.identity is not None, dangling.identity is not None) == (True, True)
    assert (linked.real, linked.file_system) == (here, free.file_system)
    assert (file.directory, nowhere.directory) == ("it is no directory", "there is no such directory")
    about = os.statvfs(here)
    assert free.free_bytes is not None
    assert 0 < free.free_bytes <= about.f_blocks * about.f_frsize
    assert look.targets([]) == {}


def test_storage_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostside, "FILES_S", 0.05)
    never = hostside.threading.Event()
    try:
        assert hostside.each(["good", "hangs"], lambda path: path == "good" or never.wait()) == {"good": True}
    finally:
        never.set()


def test_settings_of_the_host_say_which_directories_are_shared(look: Look) -> None:
    from refimpl.backends.libvirt import look as module

    shared = module._shared_directories(look.channel)
    assert shared == ["/elsewhere", "/srv/shared"]
    assert module._is_shared("/srv/shared/disk", "ext4", shared)
    assert not module._is_shared("/srv/shared2/disk", "ext4", shared)
    assert module._is_shared("/mnt/disk", "nfs4", [])
    assert module._shared_directories(FakeChannel()) == []


def test_modes_places_and_the_clock(tmp_path: Path, look: Look) -> None:
    path = image(tmp_path / "key")
    os.chmod(path, 0o640)
    assert look.modes([path, "/nowhere"]) == {path: 0o640}
    assert look.place(path) == (os.stat(path).st_dev, os.stat(path).st_ino)
    assert look.place("/nowhere") is None
    clock, reference_s = look.clock()
    assert abs(clock.now_s - reference_s) <= clock.uncertainty_s + 0.001


def test_libraries_of_a_program_and_of_what_is_none(tmp_path: Path, look: Look) -> None:
    names = look.ask("needed", path=os.path.realpath(sys.executable))
    assert names is not None
    assert any(name.startswith("libc.so") for name in names)
    assert look.ask("needed", path=image(tmp_path / "script", (0, b"#!/bin/sh\n"))) is None
    assert look.ask("needed", path=image(tmp_path / "torn", (0, b"\x7fELF\2\1"), size=70)) is None


LINKS = json.dumps(
    [
        {"ifname": "lo", "flags": ["UP"], "addr_info": [{"local": "127.0.0.1", "prefixlen": 8, "scope": "host"}]},
        {"ifname": "m0", "flags": ["UP"], "addr_info": [{"local": "192.0.2.1", "prefixlen": 24, "scope": "global"}]},
        {"ifname": "m1", "flags": [], "addr_info": [{"local": "192.0.2.9", "prefixlen": 24, "scope": "global"}]},
        {"ifname": "vmswitch", "flags": ["UP"], "linkinfo": {"info_kind": "bridge"}},
        {"ifname": "ovs", "flags": [], "linkinfo": {"info_kind": "openvswitch"}},
        {"ifname": "vnet0", "flags": ["UP"], "linkinfo": {"info_kind": "tun", "info_slave_kind": "bridge"}},
        {},
    ]
)


def test_links_tell_addresses_that_are_up_and_switches() -> None:
    assert links.addresses(LINKS) == (AddressFact("192.0.2.1", 24, "m0"),)
    assert links.switches(LINKS) == {"vmswitch", "ovs"}
    routes = links.routes('[{"dst": "default"}, {"dst": "192.0.2.0/24"}]', '[{"dst": "default"}]')
    assert routes == ("0.0.0.0/0", "192.0.2.0/24", "::/0")
    assert links.routes("", "") == ()
