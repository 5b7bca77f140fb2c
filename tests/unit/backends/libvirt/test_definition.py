"""What a definition says: disks and media, adapters, processor, and every device that ties a VM to its host."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from refimpl.backends.libvirt import definition
from refimpl.backends.libvirt.facts import busy
from refimpl.backends.libvirt.status import parse_status
from refimpl.model.facts import CpuFact, DiskFact, NicFact
from tests.unit.backends.libvirt.recorded import BOOTED, SOURCE_SENDS, status_file


def domain(devices: str, head: str = "", kind: str = "kvm") -> ET.Element:
    return ET.fromstring(f"<domain type='{kind}'>{head}<devices>{devices}</devices></domain>")


def test_disks_and_media_are_listed_as_they_are_defined() -> None:
    root = domain(
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/><source file='/a'/></disk>"
        "<disk type='block'><driver name='qemu' type='raw'/><source dev='/dev/b'/><transient/></disk>"
        "<disk type='file' device='cdrom'><driver type='raw' cache='default'/><source file='/c.iso'/></disk>"
        "<disk type='file' device='cdrom'><target dev='sdb'/></disk>"
        "<disk type='file' device='floppy'><source file='/d'/><readonly/></disk>"
        "<disk type='network' device='disk'><source protocol='rbd' name='pool/e'/></disk>"
    )
    assert definition.disks(root) == (
        DiskFact("/a", None, format="qcow2", cache="none"),
        DiskFact("/dev/b", None, format="raw", cache="writeback", transient=True),
        DiskFact("/c.iso", None, device="cdrom", format="raw", cache="writeback", read_only=True),
        DiskFact("/d", None, device="floppy", format="raw", cache="writeback", read_only=True),
    )


def test_adapters_have_a_name_and_the_switch_that_they_are_on() -> None:
    root = domain(
        "<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='vmswitch'/>"
        "<target dev='vnet3'/><alias name='net0'/></interface>"
        "<interface type='bridge'><source bridge='vmswitch'/><link state='down'/><target dev='vnet4'/></interface>"
        "<interface type='network'><source network='default'/></interface>"
        "<interface type='network'><source network='default' bridge='virbr0'/></interface>"
        "<interface type='user'/>"
    )
    assert definition.nics(root) == (
        NicFact("net0", "52:54:00:00:00:01", "vmswitch"),
        NicFact("vnet4", "", None),
        NicFact("net2", "", "default"),
        NicFact("net3", "", "virbr0"),
        NicFact("net4", "", None),
    )


def test_machine_accelerator_and_processor() -> None:
    root = domain("", "<os><type machine='pc-i440fx-10.0'>hvm</type></os>", "qemu")
    assert (definition.machine(root), definition.accelerator(root)) == ("pc-i440fx-10.0", "tcg")
    assert (definition.machine(domain("")), definition.accelerator(domain(""))) == ("", "kvm")
    cpu = ET.fromstring(
        "<cpu><model>Skylake</model><vendor>Intel</vendor><feature policy='require' name='vmx'/>"
        "<feature name='ss'/><feature policy='disable' name='hle'/></cpu>"
    )
    assert definition.cpu(cpu) == CpuFact("Intel", "Skylake", frozenset({"vmx", "ss"}))
    assert definition.cpu(ET.fromstring("<cpu mode='host-passthrough'/>")) is definition.cpu(None) is None


@pytest.mark.rule("R5")
@pytest.mark.parametrize(
    ("device", "kind", "name"),
    [
        ("<hostdev mode='subsystem' type='pci'><alias name='hostdev0'/></hostdev>", "host device (pci)", "hostdev0"),
        ("<hostdev mode='subsystem' type='mdev'/>", "host device (mdev)", "hostdev"),
        ("<interface type='hostdev'><alias name='net1'/></interface>", "network adapter passed through", "net1"),
        ("<interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface>", "vDPA network adapter", "interface"),
        ("<disk type='nvme'><target dev='vdb'/></disk>", "NVMe disk passed through", "vdb"),
        ("<disk type='vhostvdpa'><target dev='vdb'/></disk>", "vDPA disk", "vdb"),
        ("<tpm model='tpm-crb'><backend type='emulator'/></tpm>", "virtual TPM", "tpm"),
        ("<tpm><backend type='passthrough'/></tpm>", "TPM passed through", "tpm"),
        (
            "<filesystem type='mount'><driver type='virtiofs'/><target dir='share'/></filesystem>",
            "shared folder (virtiofs)",
            "share",
        ),
        ("<filesystem type='mount'><target dir='share'/></filesystem>", "shared folder (9p)", "share"),
        ("<shmem name='glass'><model type='ivshmem-plain'/></shmem>", "shared memory (ivshmem)", "ivshmem-plain"),
        ("<serial type='dev'><source path='/dev/ttyS0'/></serial>", "port on a device of the host", "/dev/ttyS0"),
        ("<channel type='pipe'><source path='/tmp/p'/></channel>", "port on a device of the host", "/tmp/p"),
        ("<input type='evdev'><source dev='/dev/input/event1'/></input>", "input device of the host", "input"),
        (
            "<video><model type='virtio'><acceleration accel3d='yes'/></model></video>",
            "video adapter with 3D",
            "virtio",
        ),
    ],
)
def test_devices_that_tie_a_vm_to_its_host(device: str, kind: str, name: str) -> None:
    (found,) = definition.unmovable(domain(device))
    assert (found.kind, found.name) == (kind, name)
    assert found.why


def test_a_clock_rate_that_is_promised_and_sealed_memory_tie_it_too() -> None:
    feature = "<cpu><feature policy='require' name='invtsc'/></cpu>"
    assert [f.name for f in definition.unmovable(domain("", feature))] == ["invtsc"]
    assert definition.unmovable(domain("", feature.replace("require", "disable"))) == ()
    fixed = "<clock><timer name='tsc' frequency='3000000000'/></clock>"
    assert definition.unmovable(domain("", feature + fixed)) == ()
    assert [f.kind for f in definition.unmovable(domain("", "<launchSecurity type='sev'/>"))] == ["sealed memory"]


def test_ordinary_devices_move() -> None:
    root = domain(
        "<disk type='file' device='disk'><source file='/a'/></disk><interface type='bridge'/>"
        "<serial type='pty'><source path='/dev/pts/1'/></serial><serial type='file'><source path='/l'/></serial>"
        "<console type='dev'><target type='serial' port='0'/></console>"
        "<shmem name='s' role='master'/><input type='tablet' bus='usb'/><video><model type='vga'/></video>"
        "<channel type='unix'/><memballoon model='virtio'/><rng model='virtio'/><panic model='isa'/>"
    )
    assert definition.unmovable(root) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOOTED, ""),
        (SOURCE_SENDS, ""),
        (status_file("running", "booted", 38, "  <job type='none' async='backup'/>\n"), "backup"),
        (status_file("running", "booted", 38, "  <job type='modify' async='none'/>\n"), ""),
        (status_file("running", "booted", 38, "  <blockjobs active='yes'/>\n"), "block job"),
        (status_file("running", "booted", 38, "  <blockjobs active='no'/>\n"), ""),
        (None, ""),
    ],
)
def test_another_job_on_the_vm_is_told(text: bytes | None, expected: str) -> None:
    assert busy(None if text is None else parse_status(text), text) == expected
