"""What a domain's XML says about its disks, adapters and processor, and which of its devices tie it to its host.

The list of such devices is libvirt's and QEMU's (libvirt-qemu 1.6). They would be refused late, or move and fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from xml.etree import ElementTree as ET

from refimpl.model.facts import CpuFact, DeviceFact, DiskFact, NicFact

_ACCELERATORS = {"kvm": "kvm", "qemu": "tcg"}
QEMU_DEFAULT_CACHE = "writeback"


def disks(root: ET.Element) -> tuple[DiskFact, ...]:
    """Return the disks and media that are files or devices of the host, as they are defined; an empty drive is none."""
    found = (_disk(element) for element in root.iterfind("devices/disk"))
    return tuple(disk for disk in found if disk is not None)


def _disk(element: ET.Element) -> DiskFact | None:
    source = element.find("source")
    path = None if source is None else source.get("file") or source.get("dev")
    if not path or element.get("type") not in ("file", "block"):
        return None
    driver = element.find("driver")
    attributes = {} if driver is None else driver.attrib
    cache = attributes.get("cache", "default")
    device = element.get("device", "disk")
    return DiskFact(
        path=path,
        identity=None,
        device="disk" if device == "lun" else device,
        format=attributes.get("type", "raw"),
        cache=QEMU_DEFAULT_CACHE if cache == "default" else cache,
        read_only=element.find("readonly") is not None or device == "cdrom",
        transient=element.find("transient") is not None,
    )


def nics(root: ET.Element) -> tuple[NicFact, ...]:
    """Return the adapters. The switch is a bridge or a network of libvirt; None with the link down or without one."""
    return tuple(_nic(element, number) for number, element in enumerate(root.iterfind("devices/interface"), 1))


def _nic(element: ET.Element, number: int) -> NicFact:
    mac, source, link = (element.find(name) for name in ("mac", "source", "link"))
    alias, target = element.find("alias"), element.find("target")
    names = (e.get(key) for e, key in ((alias, "name"), (target, "dev")) if e is not None)
    down = link is not None and link.get("state") == "down"
    return NicFact(
        name=next((name for name in names if name), f"net{number - 1}"),
        mac="" if mac is None else mac.get("address", ""),
        switch=None if source is None or down else source.get("bridge") or source.get("network"),
    )


def machine(root: ET.Element) -> str:
    """Return the machine type, empty when none is named."""
    kind = root.find("os/type")
    return "" if kind is None else kind.get("machine", "")


def accelerator(root: ET.Element) -> str:
    """Return kvm or tcg, libvirt's own word for anything else."""
    kind = root.get("type", "")
    return _ACCELERATORS.get(kind, kind)


def cpu(element: ET.Element | None) -> CpuFact | None:
    """Return a processor from a `cpu` element, as far as it is spelt out; None when it names no model."""
    model = None if element is None else element.findtext("model")
    if element is None or not model:
        return None
    wanted = (f for f in element.iterfind("feature") if f.get("policy", "require") in ("require", "force"))
    return CpuFact(element.findtext("vendor", ""), model, frozenset(f.get("name", "") for f in wanted))


_BACKINGS = {"hugepages": "huge pages", "nosharepages": "", "locked": "", "allocation": ""}


def memory_backing(root: ET.Element) -> str:
    """Return what a VM's memory is made of when that is not plain memory of QEMU's own, empty when it is."""
    found = []
    for element in root.iterfind("memoryBacking/*"):
        kind = element.get("type") or element.get("mode") or ""
        words = {"source": f"{kind} memory", "access": f"{kind} access"}
        plain = element.tag in ("source", "access") and kind in ("anonymous", "private")
        found.append("" if plain else words.get(element.tag, _BACKINGS.get(element.tag, element.tag)))
    devices = ("a memory device" for _ in root.iterfind("devices/memory"))
    return ", ".join(dict.fromkeys([*filter(None, found), *devices]))


def unmovable(root: ET.Element) -> tuple[DeviceFact, ...]:
    """Return the devices of a running VM that cannot move to another host, with the reason."""
    devices = root.find("devices")
    found = [] if devices is None else [fact for element in devices for fact in _judge(element)]
    return (*found, *_processor(root), *_sealed(root))


def _judge(element: ET.Element) -> Iterator[DeviceFact]:
    rule = _RULES.get(element.tag)
    reason = None if rule is None else rule(element)
    if reason is not None:
        yield DeviceFact(reason[0], _name(element), reason[1])


Reason = tuple[str, str]


def _hostdev(element: ET.Element) -> Reason:
    kind = element.get("type", element.get("mode", ""))
    return f"host device ({kind})", "it is a piece of the source's hardware"


def _interface(element: ET.Element) -> Reason | None:
    if element.get("type") == "hostdev":
        return "network adapter passed through", "it is a piece of the source's hardware"
    if element.get("type") == "vdpa":
        return "vDPA network adapter", "its state is in the source's hardware"
    return None


def _disk_device(element: ET.Element) -> Reason | None:
    if element.get("type") == "nvme":
        return "NVMe disk passed through", "it is a piece of the source's hardware"
    if element.get("type") == "vhostvdpa":
        return "vDPA disk", "its state is in the source's hardware"
    if element.get("device") == "lun" and element.find("source/reservations") is not None:
        return "disk with persistent reservations", "the reservations are the source's"
    return None


def _tpm(element: ET.Element) -> Reason | None:
    backend = element.find("backend")
    kind = "" if backend is None else backend.get("type", "")
    if kind == "passthrough":
        return "TPM passed through", "it is a piece of the source's hardware"
    if kind == "emulator":
        return "virtual TPM", "its state is kept in files of the source; that it is carried whole was not shown"
    return None


def _filesystem(element: ET.Element) -> Reason | None:
    driver = element.find("driver")
    if driver is not None and driver.get("type") == "virtiofs":
        return "shared folder (virtiofs)", "what the guest has open in it is known to a process of the source only"
    if element.get("type", "mount") == "mount":
        return "shared folder (9p)", "QEMU does not migrate while the guest has it mounted"
    return None


def _shmem(element: ET.Element) -> Reason | None:
    if element.get("role") == "master":
        return None
    return "shared memory (ivshmem)", "the source's copy is not its master, so its content stays there"


def _character(element: ET.Element) -> Reason | None:
    target = element.find("target")
    if element.tag == "console" and target is not None and target.get("type") == "serial":
        return None  # the same port as its serial element
    if element.get("type") in ("dev", "pipe"):
        return "port on a device of the host", "the other end is on the source"
    return None


def _input(element: ET.Element) -> Reason | None:
    if element.get("type") in ("passthrough", "evdev"):
        return "input device of the host", "it is a piece of the source's hardware"
    return None


def _video(element: ET.Element) -> Reason | None:
    acceleration = element.find("model/acceleration")
    if acceleration is not None and acceleration.get("accel3d") == "yes":
        return "video adapter with 3D", "what is in the source's graphics hardware cannot be read back"
    return None


_RULES: dict[str, Callable[[ET.Element], Reason | None]] = {
    "hostdev": _hostdev,
    "interface": _interface,
    "disk": _disk_device,
    "tpm": _tpm,
    "filesystem": _filesystem,
    "shmem": _shmem,
    "serial": _character,
    "parallel": _character,
    "console": _character,
    "channel": _character,
    "input": _input,
    "video": _video,
}


def _processor(root: ET.Element) -> Iterator[DeviceFact]:
    timer = root.find("clock/timer[@name='tsc']")
    fixed = timer is not None and timer.get("frequency")
    for feature in root.iterfind("cpu/feature[@name='invtsc']"):
        if feature.get("policy") in ("require", "force") and not fixed:
            yield DeviceFact("processor feature", "invtsc", "the source's clock rate is promised to the guest")


def _sealed(root: ET.Element) -> Iterator[DeviceFact]:
    for element in root.iterfind("launchSecurity"):
        yield DeviceFact("sealed memory", element.get("type", ""), "only the source's processor can read it")


def _name(element: ET.Element) -> str:
    """Return how a person finds the device in the definition."""
    for path, key in (("alias", "name"), ("target", "dir"), ("target", "dev"), ("source", "path"), ("model", "type")):
        found = element.find(path)
        if found is not None and found.get(key):
            return str(found.get(key))
    return element.get("name") or element.tag
