"""Domain XML: the project's guest, what a domain says about itself, and the edits that another host needs.

All XML is made and read with ElementTree, never by putting strings together: names may hold any character.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from refimpl.backends.libvirt import monitor
from refimpl.model.group import Group, HostEntry

MACHINE = "pc"
"""The machine type of a VM that is made here."""
LOG_DIRECTORY = "/var/log/libvirt"
"""Where a host sees the directory that its `HostEntry.log_directory` names as the controller sees it."""


SETTINGS_NAMESPACE = "urn:refimpl:settings:1"
"""The namespace of the element in a domain's metadata that holds Hyper-V's settings of the VM; it moves with it."""
_SETTINGS = f"{{{SETTINGS_NAMESPACE}}}settings"
_COMPATIBILITY = "processor-compatibility"
# What x86-64-v2 has beyond kvm64 and qemu64: the least that present distributions start with, and any host has it.
_BASELINE_FEATURES = ("cx16", "lahf_lm", "popcnt", "ssse3", "sse4.1", "sse4.2")


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """A disk image on the shared directory: path, and format `raw` or `qcow2`."""

    path: str
    format: str = "raw"


@dataclass(frozen=True, slots=True)
class NicSpec:
    """A network card: its MAC address, and the bridge that is the virtual switch to which it is connected."""

    mac: str
    bridge: str


@dataclass(frozen=True, slots=True)
class VmSpec:
    """A VM to be made. The built-in guest: direct kernel boot, one raw disk, one network card, a lease by its id.

    `accelerator`: `kvm` or `tcg`. All paths are the same on every host of the group. The rest is for guests of one's
    own: without a `kernel` the first disk is booted, by BIOS or, with an `nvram` file, by UEFI. `disk_path` may be
    empty. `cards` None: one card on the host's virtual switch. `dvd`: image in the DVD drive, None: no drive.
    `line_channel`: the second serial port, to which only the built-in guest writes. `baseline`: the processor has what
    present distributions need at least, which the built-in guest does not.
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
    disk_format: str = "raw"
    more_disks: tuple[DiskSpec, ...] = ()
    cards: tuple[NicSpec, ...] | None = None
    dvd: str | None = None
    nvram: str | None = None
    line_channel: bool = True
    baseline: bool = False

    @property
    def disks(self) -> tuple[DiskSpec, ...]:
        """All disks, the one that is booted first."""
        first = (DiskSpec(self.disk_path, self.disk_format),) if self.disk_path else ()
        return first + self.more_disks


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
    root.append(_cpu(spec.accelerator, baseline=spec.baseline))
    for name, value in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(root, name, value)
    _devices(ET.SubElement(root, "devices"), spec, group, host)
    monitor.add_to(root, spec.id)
    return ET.tostring(root, encoding="unicode")


def console_file(vm: str) -> str:
    """Return the name of the file, in a host's log directory, that holds what a VM's first serial port says."""
    return f"{vm}.console.log"


def line_file(vm: str) -> str:
    """Return the name of the file, in a host's log directory, to which a VM's line channel is appended."""
    return f"{vm}.lines"


def mac_address(vm_id: str, number: int = 1) -> str:
    """Return the MAC address of a VM's card: QEMU's prefix and three bytes by the VM's id and the card's number."""
    digest = hashlib.sha256((vm_id if number == 1 else f"{vm_id}/{number}").encode()).hexdigest()
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


def processor_compatibility(root: ET.Element) -> bool:
    """Tell whether a domain carries Hyper-V's setting *processor compatibility* (-CompatibilityForMigrationEnabled)."""
    element = root.find(f"metadata/{_SETTINGS}")
    return element is not None and element.get(_COMPATIBILITY) == "on"


def set_processor_compatibility(root: ET.Element, on: bool) -> None:
    """Write the setting, and the processor that follows from it: under KVM a baseline or the host's own.

    Under TCG the processor is made by software and the same everywhere, so nothing else changes.
    """
    metadata = root.find("metadata")
    metadata = ET.SubElement(root, "metadata") if metadata is None else metadata
    element = metadata.find(_SETTINGS)
    element = ET.SubElement(metadata, _SETTINGS) if element is None else element
    element.set(_COMPATIBILITY, "on" if on else "off")
    if root.get("type") == "kvm":
        for cpu in root.findall("cpu"):
            root.remove(cpu)
        root.append(_cpu("kvm", baseline=on))


def parse(xml: str) -> ET.Element:
    """Return the root of an XML text; ValueError when it is none."""
    try:
        return ET.fromstring(xml)
    except ET.ParseError as error:
        raise ValueError(f"not XML: {error}") from error


def _boot(root: ET.Element, spec: VmSpec) -> None:
    os = ET.SubElement(root, "os")
    _text(os, "type", "hvm", {"arch": "x86_64", "machine": MACHINE})
    if spec.nvram is not None:
        os.set("firmware", "efi")
        features = ET.SubElement(os, "firmware")
        for name in ("enrolled-keys", "secure-boot"):
            ET.SubElement(features, "feature", {"enabled": "no", "name": name})
        _text(os, "nvram", spec.nvram)
    if spec.kernel:
        for name, value in (("kernel", spec.kernel), ("initrd", spec.initramfs), ("cmdline", spec.command_line)):
            if value:
                _text(os, name, value)
    else:
        ET.SubElement(os, "boot", {"dev": "hd"})
    ET.SubElement(ET.SubElement(root, "features"), "acpi")
    ET.SubElement(root, "clock", {"offset": "utc"})


def _cpu(accelerator: str, *, baseline: bool) -> ET.Element:
    if accelerator == "kvm" and not baseline:
        return ET.Element("cpu", {"mode": "host-model"})
    cpu = ET.Element("cpu", {"mode": "custom", "match": "exact", "check": "none"})
    _text(cpu, "model", "kvm64" if accelerator == "kvm" else "qemu64", {"fallback": "forbid"})
    for name in _BASELINE_FEATURES if baseline else ():
        ET.SubElement(cpu, "feature", {"policy": "require", "name": name})
    return cpu


def _devices(devices: ET.Element, spec: VmSpec, group: Group, host: HostEntry) -> None:
    for number, disk in enumerate(spec.disks):
        _disk(devices, disk, f"vd{string.ascii_lowercase[number]}")
    if spec.dvd is not None:
        _dvd_drive(devices, spec.dvd)
    ET.SubElement(devices, "controller", {"type": "usb", "model": "none"})
    for card in _cards(spec, host):
        interface = ET.SubElement(devices, "interface", {"type": "bridge"})
        ET.SubElement(interface, "mac", {"address": card.mac})
        ET.SubElement(interface, "source", {"bridge": card.bridge})
        ET.SubElement(interface, "model", {"type": "virtio"})
    _serial(devices, 0, f"{LOG_DIRECTORY}/{console_file(spec.name)}")
    if spec.line_channel:
        _serial(devices, 1, f"{LOG_DIRECTORY}/{line_file(spec.name)}")
    ET.SubElement(devices, "memballoon", {"model": "none"})
    ET.SubElement(devices, "panic", {"model": "isa"})
    _lease(devices, spec, group)


def _cards(spec: VmSpec, host: HostEntry) -> tuple[NicSpec, ...]:
    if spec.cards is not None:
        return spec.cards
    return (NicSpec(mac_address(spec.id), host.virtual_switch),) if host.virtual_switch else ()


def _disk(devices: ET.Element, disk: DiskSpec, target: str) -> None:
    element = ET.SubElement(devices, "disk", {"type": "file", "device": "disk"})
    driver = {"name": "qemu", "type": disk.format, "cache": "none", "error_policy": "stop", "rerror_policy": "stop"}
    ET.SubElement(element, "driver", driver)
    ET.SubElement(element, "source", {"file": disk.path})
    ET.SubElement(element, "target", {"dev": target, "bus": "virtio"})


def _dvd_drive(devices: ET.Element, path: str) -> None:
    # On SCSI and not on IDE: kernels made for clouds have no driver for the latter.
    ET.SubElement(devices, "controller", {"type": "scsi", "index": "0", "model": "virtio-scsi"})
    element = ET.SubElement(devices, "disk", {"type": "file", "device": "cdrom"})
    ET.SubElement(element, "driver", {"name": "qemu", "type": "raw", "cache": "none"})
    ET.SubElement(element, "source", {"file": path})
    ET.SubElement(element, "target", {"dev": "sda", "bus": "scsi"})
    ET.SubElement(element, "readonly")


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
