"""Settings in a domain's XML: read, and edited so that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

from refimpl.backends.libvirt import domain as d
from refimpl.backends.libvirt import vm_settings as v
from tests.unit.backends.libvirt.recorded import GROUP
from tests.unit.backends.libvirt.test_domain import OWN


def made(**other: object) -> ET.Element:
    return d.parse(d.domain_xml(replace(OWN, **other), GROUP, GROUP.hosts[0]))  # type: ignore[arg-type]


def read(root: ET.Element) -> v.Settings:
    return v.settings_of(ET.tostring(root, encoding="unicode"))


def test_settings_are_read_as_they_were_made() -> None:
    assert read(made()) == v.Settings(
        processor_compatibility=False,
        firmware="bios",  # the system below writes which firmware it has chosen when the VM is defined
        disks=("/g/shared/1.qcow2", "/g/shared/2.raw"),
        dvd="/g/shared/seed.iso",
        adapters=(v.Adapter("52:54:00:00:00:01", "one"), v.Adapter("52:54:00:00:00:02", "two")),
    )
    root = made()
    os = root.find("os")
    assert os is not None
    ET.SubElement(os, "loader", {"type": "pflash"})
    assert read(root).firmware == "uefi"


def test_an_adapter_is_disconnected_and_connected_and_the_others_stay() -> None:
    root = made()
    v._adapter(root, 2, None)
    assert [a.bridge for a in read(root).adapters] == ["one", None]
    v._adapter(root, 2, "three")
    assert [a.bridge for a in read(root).adapters] == ["one", "three"]
    assert read(root).to_json()["adapters"][1] == {"number": 2, "mac": "52:54:00:00:00:02", "switch": "three"}


def test_a_dvd_is_taken_out_and_the_drive_stays() -> None:
    root = made()
    assert v._emptied(root) is not None
    assert read(root).dvd is None
    assert root.find("devices/disk[@device='cdrom']") is not None
    assert v._emptied(root) is None
    assert v._emptied(made(dvd=None)) is None


def test_memory_and_processors_are_written_as_a_whole() -> None:
    root = d.parse(
        "<domain><memory unit='GiB'>1</memory><currentMemory>7</currentMemory><vcpu current='1'>2</vcpu></domain>"
    )
    v.set_memory(root, 512)
    v.set_vcpus(root, 4)
    described = d.describe(ET.tostring(root, encoding="unicode"))
    assert (described.memory_mib, described.vcpus) == (512, 4)
    assert root.findtext("currentMemory") == "512"
    assert [e.attrib for e in root.findall("vcpu")] == [{}]
