"""Domain XML: what is made is what is meant, whatever the names are; and the mark survives any text."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from refimpl.backends.libvirt import domain as d
from refimpl.backends.libvirt import stamp
from tests.unit.backends.libvirt.recorded import GROUP, PLAN, VM_ID, host

SPEC = d.VmSpec("odd <&> \"'name", VM_ID, 96, "/g/shared/a & b.raw", "/k", "/i", "quiet a=<b>")


def made(**other: object) -> ET.Element:
    return d.parse(d.domain_xml(replace(SPEC, **other), GROUP, GROUP.hosts[0]))  # type: ignore[arg-type]


def test_what_is_made_is_described_as_it_was_meant() -> None:
    described = d.describe(d.domain_xml(SPEC, GROUP, GROUP.hosts[0]))
    assert described == d.Described(SPEC.name, VM_ID, 96, 1, (SPEC.disk_path,), f"/g/shared/leases/{VM_ID}")


@pytest.mark.rule("R1")
def test_the_lease_space_is_the_lock_daemons() -> None:
    lease = made().find("devices/lease")
    assert lease is not None
    target = lease.find("target")
    assert target is not None
    assert f"{target.get('path')}/{lease.findtext('lockspace')}" == GROUP.lease_directory
    assert lease.findtext("key") == VM_ID


def test_the_disk_is_written_through_and_stops_the_vm_on_errors() -> None:
    driver = made().find("devices/disk/driver")
    assert driver is not None
    wanted = {"type": "raw", "cache": "none", "error_policy": "stop"}
    assert wanted.items() <= driver.attrib.items()


def test_serial_ports_are_appended_to_and_stand_in_the_hosts_log_directory() -> None:
    sources = made().findall("devices/serial/source")
    assert [s.get("append") for s in sources] == ["on", "on"]
    assert [s.get("path") for s in sources] == [
        f"/var/log/libvirt/{d.console_file(SPEC.name)}",
        f"/var/log/libvirt/{d.line_file(SPEC.name)}",
    ]


@pytest.mark.parametrize(("accelerator", "kind", "mode"), [("kvm", "kvm", "host-model"), ("tcg", "qemu", "custom")])
def test_the_accelerator_decides_type_and_cpu(accelerator: str, kind: str, mode: str) -> None:
    root = made(accelerator=accelerator)
    cpu = root.find("cpu")
    assert cpu is not None
    assert (root.get("type"), cpu.get("mode")) == (kind, mode)


def test_a_mac_address_depends_on_the_id_alone() -> None:
    assert d.mac_address(VM_ID) == d.mac_address(VM_ID)
    assert d.mac_address(VM_ID) != d.mac_address(VM_ID[::-1])
    assert d.mac_address(VM_ID).startswith("52:54:00:")


def test_only_another_virtual_switch_is_edited() -> None:
    xml = d.domain_xml(SPEC, GROUP, GROUP.hosts[0])
    assert d.moved_to(xml, host("h1"), host("h2")) is None
    edited = d.moved_to(xml, host("h1"), host("h2", switch="other"))
    assert edited is not None
    source = d.parse(edited).find("devices/interface/source")
    assert source is not None
    assert source.get("bridge") == "other"
    assert d.describe(edited) == d.describe(xml)


@pytest.mark.parametrize(("unit", "number"), [("KiB", "98304"), ("MiB", "96"), ("bytes", "100663296")])
def test_memory_is_read_in_any_unit(unit: str, number: str) -> None:
    assert d.describe(f"<domain><memory unit='{unit}'>{number}</memory></domain>").memory_mib == 96


def test_what_is_not_xml_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="not XML"):
        d.describe("<domain>")


def marked(mark: str) -> str:
    return f"<domain><metadata>{mark}</metadata></domain>"


def test_the_mark_comes_back_whole() -> None:
    mark = stamp.Stamp("op<1>&\"'", PLAN)
    element = ET.fromstring(stamp.to_xml(mark))
    element.tag = f"{{{stamp.NAMESPACE}}}operation"
    assert stamp.from_domain_xml(marked(ET.tostring(element, encoding="unicode"))) == mark


@pytest.mark.parametrize(
    "mark",
    [
        "",
        "<operation id='1'>{}</operation>",
        f"<operation xmlns='{stamp.NAMESPACE}' id='1'>not json</operation>",
        f"<operation xmlns='{stamp.NAMESPACE}' id='1'>{{}}</operation>",
    ],
)
def test_what_is_no_mark_of_ours_is_none(mark: str) -> None:
    assert stamp.from_domain_xml(marked(mark)) is None


OWN = replace(
    SPEC,
    disk_path="",
    kernel="",
    more_disks=(d.DiskSpec("/g/shared/1.qcow2", "qcow2"), d.DiskSpec("/g/shared/2.raw")),
    cards=(d.NicSpec("52:54:00:00:00:01", "one"), d.NicSpec("52:54:00:00:00:02", "two")),
    dvd="/g/shared/seed.iso",
    nvram="/g/shared/nvram.fd",
    line_channel=False,
    baseline=True,
)


def own(**other: object) -> ET.Element:
    return d.parse(d.domain_xml(replace(OWN, **other), GROUP, GROUP.hosts[0]))  # type: ignore[arg-type]


def test_a_guest_of_ones_own_has_what_was_asked_for() -> None:
    root = own()
    assert d.describe(ET.tostring(root, encoding="unicode")).disks == ("/g/shared/1.qcow2", "/g/shared/2.raw")
    assert [e.get("type") for e in root.findall("devices/disk[@device='disk']/driver")] == ["qcow2", "raw"]
    assert [e.get("dev") for e in root.findall("devices/disk[@device='disk']/target")] == ["vda", "vdb"]
    assert [e.get("bridge") for e in root.findall("devices/interface/source")] == ["one", "two"]
    assert [e.get("file") for e in root.findall("devices/disk[@device='cdrom']/source")] == ["/g/shared/seed.iso"]
    assert len(root.findall("devices/serial")) == 1
    assert (root.find("os/kernel"), root.findtext("os/nvram")) == (None, "/g/shared/nvram.fd")
    assert [e.get("dev") for e in root.findall("os/boot")] == ["hd"]
    assert own(nvram=None).find("os/nvram") is None


def test_without_adapters_there_is_none_and_the_built_in_guest_has_one() -> None:
    assert own(cards=()).findall("devices/interface") == []
    assert len(made().findall("devices/interface")) == 1


def test_a_panic_of_the_guest_is_notified() -> None:
    assert [e.get("model") for e in made().findall("devices/panic")] == ["isa"]


@pytest.mark.rule("R20")
@pytest.mark.parametrize(("accelerator", "models"), [("kvm", [None, "kvm64", None]), ("tcg", ["qemu64"] * 3)])
def test_processor_compatibility_is_kept_in_the_vm_itself(accelerator: str, models: list[str | None]) -> None:
    root = made(accelerator=accelerator)
    seen, processors = [d.processor_compatibility(root)], [root.findtext("cpu/model")]
    for on in (True, False):
        d.set_processor_compatibility(root, on)
        root = d.parse(ET.tostring(root, encoding="unicode"))
        seen.append(d.processor_compatibility(root))
        processors.append(root.findtext("cpu/model"))
    assert (seen, processors) == ([False, True, False], models)
    assert len(root.findall("cpu")) == 1
    assert len(root.findall("metadata")) == 1


def test_each_adapter_has_a_mac_address_of_its_own() -> None:
    macs = [d.mac_address(VM_ID, number) for number in (1, 2, 3)]
    assert len(set(macs)) == 3
    assert macs[0] == d.mac_address(VM_ID)
