"""The doctor: findings with mends, the exit code, and KVM believed only after a boot."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from refimpl.app import doctor
from refimpl.app.accelerator import choose
from refimpl.app.home import Home
from refimpl.backends.libvirt.domain import VmSpec, domain_xml
from refimpl.cli import main
from refimpl.guest import GuestImage, accelerator
from refimpl.guest.accelerator import KvmProbe, boot_with_kvm
from refimpl.lab import features, requirements
from refimpl.lab.requirements import Finding, program
from refimpl.model.errors import RefimplError
from refimpl.model.group import ChannelSpec, Group, HostEntry, ProcessRef

GOOD, LACKING = Finding("ip", True, "there"), Finding("gcc", False, "not installed", "ci/setup")


@pytest.mark.parametrize(("findings", "code"), [([GOOD], 0), ([GOOD, LACKING], 8)])
def test_the_exit_code_says_whether_something_is_lacking(findings, code, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda _: iter(findings))
    assert main(["doctor"]) == code
    assert ("mend: ci/setup" in capsys.readouterr().out) is (code == 8)


def test_json_has_all_findings(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda _: iter([GOOD, LACKING]))
    assert main(["doctor", "--json"]) == 8
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], [finding["ok"] for finding in told["findings"]]) == (False, [True, False])


def test_elsewhere_than_on_linux_it_stops_at_the_system(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "darwin")
    (finding,) = doctor.examine(Home(tmp_path))
    assert not finding.ok
    assert "simulated" in finding.mend


def test_a_program_that_is_not_there_and_one_that_fails(monkeypatch):
    assert program("no-such-program") == Finding("no-such-program", False, "not installed", "ci/setup", "packages")
    monkeypatch.setattr(doctor, "PROGRAMS", ("false", "true"))
    assert not doctor._with_version(program("false")).ok
    assert doctor._with_version(program("true")).ok


def test_a_program_that_is_too_old_is_lacking(monkeypatch, tmp_path):
    old = tmp_path / "libvirtd"
    old.write_text("#!/bin/sh\necho 'libvirtd (libvirt) 9.0.0'\n")
    old.chmod(0o755)
    found = doctor._with_version(Finding("libvirtd", True, str(old)))
    assert (found.ok, found.repair) == (False, "packages")
    assert "at least 10.0" in found.text
    old.write_text("#!/bin/sh\necho 'libvirtd (libvirt) 11.3.0'\n")
    assert doctor._with_version(Finding("libvirtd", True, str(old))).ok


def test_programs_that_are_hidden_are_found_lacking(monkeypatch, tmp_path):
    for name in ("ip", "unshare"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setattr(requirements, "SEARCH_PATH", str(tmp_path))
    found = {f.name: f.ok for f in doctor._needed() if f.name in (*requirements.PROGRAMS, *doctor.OTHER_PROGRAMS)}
    assert {name for name, ok in found.items() if ok} == {"ip", "unshare"}
    assert len(found) > 10


@pytest.mark.parametrize(("free_mib", "ok"), [(100, False), (5000, True)])
def test_too_little_room_is_lacking(monkeypatch, free_mib, ok):
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: SimpleNamespace(available=free_mib << 20))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=free_mib << 20))
    assert [finding.ok for finding in doctor._room()] == [ok] * 3


def test_a_forward_whose_port_another_program_has_is_lacking(monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setattr(doctor, "_recorded_forwards", lambda: [("web", port, False)])
        assert "web" in doctor._forwards().text
        assert not doctor._forwards().ok
        monkeypatch.setattr(doctor, "_recorded_forwards", lambda: [("web", port, True)])
        assert doctor._forwards().ok


def test_a_feature_that_fails_says_why_and_one_whose_program_is_missing_too():
    said = features._tried("x", ["sh", "-c", "echo first >&2; echo no such thing >&2; exit 2"], "good", "mend it")
    assert (said.ok, said.text, said.mend) == (False, "no such thing", "mend it")
    assert features._tried("x", ["no-such-program"], "good", "mend it").repair == "packages"
    assert features._tried("x", ["true"], "good", "mend it") == Finding("x", True, "good")


def test_whatever_lab_up_would_refuse_the_doctor_finds_too(monkeypatch, tmp_path):
    lacking = Finding("overlay", False, "the kernel has no file system overlay", "another kernel")
    monkeypatch.setattr(doctor, "requirements", lambda root: iter([GOOD, lacking]))
    monkeypatch.setattr(doctor, "_kvm", lambda: GOOD)
    assert lacking in list(doctor.examine(Home(tmp_path)))


IMAGE = GuestImage(Path("kernel"), Path("initramfs"), "1")


def qemu(tmp_path: Path, script: str) -> str:
    program = tmp_path / "qemu"
    program.write_text(f"#!/bin/sh\nfor last; do :; done\nout=${{last#file:}}\n{script}\n")
    program.chmod(0o755)
    return str(program)


def test_kvm_is_believed_when_the_guest_was_heard(tmp_path):
    found = boot_with_kvm(IMAGE, program=qemu(tmp_path, 'echo "~line" > "$out"; exec sleep 30'))
    assert found.usable


def test_kvm_that_ends_with_a_complaint_is_not_believed(tmp_path):
    found = boot_with_kvm(IMAGE, program=qemu(tmp_path, "echo assertion failed >&2; exit 1"))
    assert not found.usable
    assert "assertion failed" in found.why


def test_kvm_is_tried_on_the_machine_type_that_vms_get(tmp_path):
    found = boot_with_kvm(IMAGE, program=qemu(tmp_path, 'echo "asked for $2" >&2; exit 1'))
    host = HostEntry(
        "h1", "u", "control", "peer", "10.90.0.11", (), 1024, ChannelSpec("namespace", ProcessRef(1, 1, "b"))
    )
    group = Group("g", "g", (host,), "store", "/shared", "/leases")
    spec = VmSpec("vm", "id", 128, "/disk", "/kernel", "/initramfs", "", accelerator="kvm")
    machine = ElementTree.fromstring(domain_xml(spec, group, host)).find("os/type").get("machine")
    assert f"asked for {machine},accel=kvm" in found.why


def test_kvm_under_which_nothing_is_heard_is_not_believed(tmp_path):
    found = boot_with_kvm(IMAGE, deadline_s=0.2, program=qemu(tmp_path, "exec sleep 30"))
    assert not found.usable
    assert "nothing was heard" in found.why


@pytest.fixture
def probed(tmp_path, monkeypatch) -> list[GuestImage]:
    boots: list[GuestImage] = []
    monkeypatch.setattr(accelerator, "DEVICE", tmp_path / "kvm")
    monkeypatch.setattr(accelerator, "build", lambda _: IMAGE)
    monkeypatch.setattr(accelerator, "cache_directory", lambda: tmp_path)
    monkeypatch.setattr(accelerator, "boot_with_kvm", lambda image: boots.append(image) or KvmProbe(True, "booted"))
    return boots


def test_without_the_device_nothing_is_booted(probed):
    assert not accelerator.probe().usable
    assert probed == []


def test_the_probe_is_made_once_per_boot_of_the_machine(probed, monkeypatch):
    accelerator.DEVICE.touch()
    assert accelerator.probe() == accelerator.probe() == KvmProbe(True, "booted")
    assert len(probed) == 1
    monkeypatch.setattr(accelerator, "boot_id", lambda: "another")
    accelerator.probe()
    assert len(probed) == 2


@pytest.mark.error("accelerator.absent")
def test_kvm_on_demand_fails_loudly_and_auto_degrades(probed):
    assert choose("auto").name == "tcg"
    with pytest.raises(RefimplError, match=r"accelerator\.absent"):
        choose("kvm")
    accelerator.DEVICE.touch()
    assert choose("kvm").name == "kvm"
    assert choose("tcg").name == "tcg"


def test_labs_of_root_are_no_lack_for_others(monkeypatch):
    def closed() -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("refimpl.lab.list_labs", closed)
    found = doctor._as_root("labs", doctor._labs)
    assert (found.ok, found.mend) == (True, "sudo refimpl doctor")
