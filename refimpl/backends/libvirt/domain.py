"""Domain XML: the project's guest, what a domain says about itself, and the edits that another host needs.

All XML is made and read with ElementTree, never by putting strings together: names may hold any character.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from refimpl.model.group import Group, HostEntry

MACHINE = "pc"
"""The machine type of a VM that is made here."""
LOG_DIRECTORY = "/var/log/libvirt"
"""Where a host sees the directory that its `HostEntry.log_directory` names as the controller sees it."""


@dataclass(frozen=True, slots=True)
class VmSpec:
    """A VM to be made: direct kernel boot, one raw disk on the shared directory, one network card, a lease by its id.

    `accelerator`: `kvm` or `tcg`. `disk_path` and the boot files are the same on every host of the group.
    """

    name: str
    id: str
    memory_mib: int
    disk_path: str
    kernel: str
    initramfs: str
    command_line: str
    accelerator: str = "tcg"
    vcpus: int = 1


@dataclass(frozen=True, slots=True)
class Described:
    """What a domain's XML says: name, id, memory in MiB, vCPUs, disk paths, path of the lease file if it has one."""

    name: str
    id: str
    memory_mib: int
    vcpus: int
    disks: tuple[str, ...]
    lease: str | None


def domain_xml(spec: VmSpec, group: Group, host: HostEntry) -> str:
    """Return the XML by which a VM is defined on a host of the group."""
    root = ET.Element("domain", {"type": "kvm" if spec.accelerator == "kvm" else "qemu"})
    _text(root, "name", spec.name)
    _text(root, "uuid", spec.id)
    _text(root, "memory", str(spec.memory_mib), {"unit": "MiB"})
    _text(root, "vcpu", str(spec.vcpus))
    _boot(root, spec)
    _cpu(root, spec)
    for name, value in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(root, name, value)
    _devices(ET.SubElement(root, "devices"), spec, group, host)
    return ET.tostring(root, encoding="unicode")


def console_file(vm: str) -> str:
    """Return the name of the file, in a host's log directory, that holds what a VM's first serial port says."""
    return f"{vm}.console.log"


def line_file(vm: str) -> str:
    """Return the name of the file, in a host's log directory, to which a VM's line channel is appended."""
    return f"{vm}.lines"


def mac_address(vm_id: str) -> str:
    """Return the MAC address of a VM: QEMU's prefix and three bytes that depend on the VM's id only."""
    digest = hashlib.sha256(vm_id.encode()).hexdigest()
    return "52:54:00:" + ":".join(digest[i : i + 2] for i in (0, 2, 4))


def describe(xml: str) -> Described:
    """Read what a domain's XML says; ValueError when it is not a domain."""
    root = parse(xml)
    disks = (
        disk.find("source")
        for disk in root.findall("devices/disk")
        if disk.get("device", "disk") == "disk" and disk.get("type") in ("file", "block")
    )
    paths = (source.get("file") or source.get("dev") for source in disks if source is not None)
    return Described(
        name=root.findtext("name", ""),
        id=root.findtext("uuid", ""),
        memory_mib=_kib(root.find("memory")) // 1024,
        vcpus=int(root.findtext("vcpu", "1")),
        disks=tuple(path for path in paths if path),
        lease=_lease_path(root),
    )


def moved_to(xml: str, source: HostEntry, destination: HostEntry) -> str | None:
    """Return the XML with the virtual switch of the destination, None when nothing differs there."""
    if source.virtual_switch == destination.virtual_switch:
        return None
    root = parse(xml)
    for element in root.iterfind("devices/interface/source[@bridge]"):
        if element.get("bridge") == source.virtual_switch:
            element.set("bridge", destination.virtual_switch)
    return ET.tostring(root, encoding="unicode")


def parse(xml: str) -> ET.Element:
    """Return the root of an XML text; ValueError when it is none."""
    try:
        return ET.fromstring(xml)
    except ET.ParseError as error:
        raise ValueError(f"not XML: {error}") from error


def _boot(root: ET.Element, spec: VmSpec) -> None:
    os = ET.SubElement(root, "os")
    _text(os, "type", "hvm", {"arch": "x86_64", "machine": MACHINE})
    _text(os, "kernel", spec.kernel)
    _text(os, "initrd", spec.initramfs)
    _text(os, "cmdline", spec.command_line)
    ET.SubElement(ET.SubElement(root, "features"), "acpi")
    ET.SubElement(root, "clock", {"offset": "utc"})


def _cpu(root: ET.Element, spec: VmSpec) -> None:
    if spec.accelerator == "kvm":
        ET.SubElement(root, "cpu", {"mode": "host-model"})
        return
    cpu = ET.SubElement(root, "cpu", {"mode": "custom", "match": "exact", "check": "none"})
    _text(cpu, "model", "qemu64", {"fallback": "forbid"})


def _devices(devices: ET.Element, spec: VmSpec, group: Group, host: HostEntry) -> None:
    disk = ET.SubElement(devices, "disk", {"type": "file", "device": "disk"})
    driver = {"name": "qemu", "type": "raw", "cache": "none", "error_policy": "stop", "rerror_policy": "stop"}
    ET.SubElement(disk, "driver", driver)
    ET.SubElement(disk, "source", {"file": spec.disk_path})
    ET.SubElement(disk, "target", {"dev": "vda", "bus": "virtio"})
    ET.SubElement(devices, "controller", {"type": "usb", "model": "none"})
    if host.virtual_switch:
        card = ET.SubElement(devices, "interface", {"type": "bridge"})
        ET.SubElement(card, "mac", {"address": mac_address(spec.id)})
        ET.SubElement(card, "source", {"bridge": host.virtual_switch})
        ET.SubElement(card, "model", {"type": "virtio"})
    _serial(devices, 0, f"{LOG_DIRECTORY}/{console_file(spec.name)}")
    _serial(devices, 1, f"{LOG_DIRECTORY}/{line_file(spec.name)}")
    ET.SubElement(devices, "memballoon", {"model": "none"})
    _lease(devices, spec, group)


def _serial(devices: ET.Element, port: int, path: str) -> None:
    serial = ET.SubElement(devices, "serial", {"type": "file"})
    ET.SubElement(serial, "source", {"path": path, "append": "on"})
    ET.SubElement(serial, "target", {"port": str(port)})


def _lease(devices: ET.Element, spec: VmSpec, group: Group) -> None:
    # The lock daemon knows one lock space: target path + "/" + lockspace has to be that directory.
    directory, _, space = group.lease_directory.rstrip("/").rpartition("/")
    lease = ET.SubElement(devices, "lease")
    _text(lease, "lockspace", space)
    _text(lease, "key", spec.id)
    ET.SubElement(lease, "target", {"path": directory or "/"})


def _lease_path(root: ET.Element) -> str | None:
    lease = root.find("devices/lease")
    target = lease.find("target") if lease is not None else None
    if lease is None or target is None:
        return None
    return "/".join((target.get("path", "").rstrip("/"), lease.findtext("lockspace", ""), lease.findtext("key", "")))


def _kib(element: ET.Element | None) -> int:
    if element is None:
        return 0
    factors: Mapping[str, float] = {"b": 1 / 1024, "bytes": 1 / 1024, "KiB": 1, "MiB": 1024, "GiB": 1024**2}
    return int(int(element.text or "0") * factors[element.get("unit", "KiB")])


def _text(parent: ET.Element, name: str, text: str, attributes: Mapping[str, str] | None = None) -> ET.Element:
    element = ET.SubElement(parent, name, dict(attributes or {}))
    element.text = text
    return element
