"""Changing the settings of a VM: its definition while it is off, its adapters and its DVD drive at any time.

What a host refuses, or that it does not answer, is raised as `connection.failures()`. Whether a change is allowed, as
while the VM is being moved, is for the caller to know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from refimpl.backends.libvirt import connection
from refimpl.backends.libvirt.domain import describe, parse, processor_compatibility, set_processor_compatibility
from refimpl.model.group import HostEntry


@dataclass(frozen=True, slots=True)
class Adapter:
    """A network adapter: its MAC address and the bridge that is its virtual switch (None: it is connected to none)."""

    mac: str
    bridge: str | None


@dataclass(frozen=True, slots=True)
class Settings:
    """What a VM's definition says beyond the facts that checks judge. `firmware`: `bios` or `uefi`."""

    processor_compatibility: bool
    firmware: str
    disks: tuple[str, ...]
    dvd: str | None
    adapters: tuple[Adapter, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, under Hyper-V's words; adapters are numbered from 1."""
        rows = [{"number": n, "mac": a.mac, "switch": a.bridge} for n, a in enumerate(self.adapters, 1)]
        return {
            "processor_compatibility": self.processor_compatibility,
            "firmware": self.firmware,
            "disks": list(self.disks),
            "dvd": self.dvd,
            "adapters": rows,
        }


def read(host: HostEntry, vm: str) -> Settings:
    """Return the settings of a VM as they are now."""
    with connection.fresh(host) as fresh:
        return settings_of(fresh.lookupByName(vm).XMLDesc(0))


def settings_of(xml: str) -> Settings:
    """Return the settings that a domain's XML says."""
    root = parse(xml)
    dvd = root.find("devices/disk[@device='cdrom']/source")
    return Settings(
        processor_compatibility=processor_compatibility(root),
        firmware="uefi" if root.find("os/loader[@type='pflash']") is not None else "bios",
        disks=describe(xml).disks,
        dvd=None if dvd is None else dvd.get("file"),
        adapters=tuple(_seen(element) for element in root.iterfind("devices/interface")),
    )


def _seen(interface: ET.Element) -> Adapter:
    mac, source, link = (interface.find(name) for name in ("mac", "source", "link"))
    down = link is not None and link.get("state") == "down"
    bridge = None if source is None or down else source.get("bridge")
    return Adapter("" if mac is None else mac.get("address", ""), bridge)


def define(
    host: HostEntry,
    vm: str,
    *,
    memory_mib: int | None = None,
    vcpus: int | None = None,
    compatible: bool | None = None,
) -> None:
    """Change the definition of a VM that is off; None leaves a setting as it is. `compatible`: with all processors."""
    lv = connection.module()
    with connection.fresh(host) as fresh:
        domain = fresh.lookupByName(vm)
        if domain.isActive():
            raise OSError(f"VM {vm!r} is on; its definition is not changed")
        root = parse(domain.XMLDesc(lv.VIR_DOMAIN_XML_SECURE | lv.VIR_DOMAIN_XML_INACTIVE))
        if memory_mib is not None:
            set_memory(root, memory_mib)
        if vcpus is not None:
            set_vcpus(root, vcpus)
        if compatible is not None:
            set_processor_compatibility(root, compatible)
        fresh.defineXML(ET.tostring(root, encoding="unicode"))


def set_memory(root: ET.Element, memory_mib: int) -> None:
    """Write the memory of a domain, all of it present from the start."""
    for name in ("memory", "currentMemory"):
        for element in root.findall(name):
            element.text = str(memory_mib)
            element.set("unit", "MiB")


def set_vcpus(root: ET.Element, vcpus: int) -> None:
    """Write the number of virtual processors of a domain."""
    for element in root.findall("vcpu"):
        element.text = str(vcpus)
        element.attrib.pop("current", None)


def connect(host: HostEntry, vm: str, number: int, bridge: str | None) -> None:
    """Connect an adapter (numbered from 1) to a bridge, or with None take its link down; now and in the definition."""
    _update(host, vm, lambda root: _adapter(root, number, bridge))


def eject(host: HostEntry, vm: str) -> bool:
    """Take the medium out of the DVD drive, now and in the definition; False when there was none."""
    return _update(host, vm, _emptied, force=True)


def _adapter(root: ET.Element, number: int, bridge: str | None) -> ET.Element:
    element = root.findall("devices/interface")[number - 1]
    for link in element.findall("link"):
        element.remove(link)
    ET.SubElement(element, "link", {"state": "down" if bridge is None else "up"})
    source = element.find("source")
    if bridge is not None and source is not None:
        source.set("bridge", bridge)
    return element


def _emptied(root: ET.Element) -> ET.Element | None:
    for drive in root.iterfind("devices/disk[@device='cdrom']"):
        source = drive.find("source")
        if source is not None:
            drive.remove(source)
            return drive
    return None


def _update(
    host: HostEntry, vm: str, change: Callable[[ET.Element], ET.Element | None], *, force: bool = False
) -> bool:
    """Change one device, which `change` takes out of the XML and edits; in the running VM first, if it runs."""
    lv = connection.module()
    forced = lv.VIR_DOMAIN_DEVICE_MODIFY_FORCE if force else 0
    with connection.fresh(host) as fresh:
        domain: Any = fresh.lookupByName(vm)
        live = ((lv.VIR_DOMAIN_AFFECT_LIVE | forced, 0),) if domain.isActive() else ()
        done = False
        for target, which in (*live, (lv.VIR_DOMAIN_AFFECT_CONFIG, lv.VIR_DOMAIN_XML_INACTIVE)):
            element = change(parse(domain.XMLDesc(lv.VIR_DOMAIN_XML_SECURE | which)))
            if element is not None:
                domain.updateDeviceFlags(ET.tostring(element, encoding="unicode"), target)
                done = True
        return done
