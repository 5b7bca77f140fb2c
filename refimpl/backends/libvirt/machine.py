"""What VMs a host can have, as its daemon tells: machine types, accelerators, processor, methods of compression.

None of it changes while a process looks, so it is kept for the process as long as the daemon is the same.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from refimpl.backends.libvirt import connection, definition
from refimpl.backends.libvirt.look import Look
from refimpl.model.facts import CpuFact

ZSTD_SINCE_LIBVIRT = 9_004_000
"""libvirt has no question to which *zstd* is an answer; it takes the method since 9.4.0."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a host can have. None: could not be seen. `expanded`: the processor with all features of its model.

    `qemu_user`: user and group as which QEMU runs; root where libvirt does not say.
    """

    uuid: str
    emulator: str
    arch: str
    machine_types: frozenset[str] | None
    accelerators: frozenset[str] | None
    cpu: CpuFact | None
    compression: tuple[str, ...]
    qemu_user: tuple[int, int] = (0, 0)


_known: dict[tuple[Any, ...], Machine] = {}
_lock = threading.Lock()


def machine(fresh: Any, uri: str, look: Look) -> Machine:
    """Return what the host can have. libvirtError or OSError when it does not answer."""
    text = fresh.getCapabilities()
    key = (uri, fresh.getLibVersion(), fresh.getVersion(), text)
    with _lock:
        known = _known.get(key)
    if known is None:
        known = _read(fresh, ET.fromstring(text), look)
        with _lock:
            _known[key] = known
    return known


def _read(fresh: Any, root: ET.Element, look: Look) -> Machine:
    arch = root.findtext("host/cpu/arch", "")
    guests = root.findall(f"guest[os_type='hvm']/arch[@name='{arch}']")
    emulator = next((found for guest in guests if (found := guest.findtext("emulator"))), "")
    accelerators = _accelerators(guests)
    return Machine(
        uuid=root.findtext("host/uuid", ""),
        emulator=emulator,
        arch=arch,
        machine_types=_machine_types(guests),
        accelerators=accelerators,
        cpu=_host_cpu(fresh, root, emulator, arch, "kvm" in (accelerators or ())),
        compression=compression(fresh.getLibVersion(), look.ask("needed", path=emulator) if emulator else None),
        qemu_user=_qemu_user(root),
    )


def _qemu_user(root: ET.Element) -> tuple[int, int]:
    """Return user and group of libvirt's label for QEMU, `+UID:+GID`."""
    for model in root.iterfind("host/secmodel"):
        found = re.fullmatch(r"\+(\d+):\+(\d+)", model.findtext("baselabel[@type='qemu']", ""))
        if model.findtext("model") == "dac" and found:
            return int(found[1]), int(found[2])
    return 0, 0


def _machine_types(guests: list[ET.Element]) -> frozenset[str] | None:
    found = [element for guest in guests for element in guest.iter("machine")]
    names = {element.text or "" for element in found} | {element.get("canonical", "") for element in found}
    return frozenset(names - {""}) or None


def _accelerators(guests: list[ET.Element]) -> frozenset[str] | None:
    return frozenset(definition.accelerator(domain) for guest in guests for domain in guest.iter("domain")) or None


def compression(libvirt: int, libraries: Iterable[str] | None) -> tuple[str, ...]:
    """Return the methods that a host has, best first. `libraries`: what its QEMU is linked with, None: not seen.

    QEMU has one switch for zstd when it is built, for the migration as for everything else, and links the library
    with it. Asking QEMU itself would mean to start one, which takes longer than the rest of the look together.
    """
    zstd = libvirt >= ZSTD_SINCE_LIBVIRT and any(name.startswith("libzstd.") for name in libraries or ())
    return ("zstd", "xbzrle") if zstd else ("xbzrle",)


def _host_cpu(fresh: Any, root: ET.Element, emulator: str, arch: str, kvm: bool) -> CpuFact | None:
    """Return what a VM can be given at most: under KVM the host's model there, else the hardware's own."""
    lv = connection.module()
    with contextlib.suppress(lv.libvirtError):
        if kvm:
            capabilities = ET.fromstring(fresh.getDomainCapabilities(emulator, arch, None, "kvm", 0))
            mode = capabilities.find("cpu/mode[@name='host-model']")
            return None if mode is None else expanded(fresh, mode, emulator, arch)
        element = root.find("host/cpu")
        if element is not None and element.find("model") is not None:
            text = ET.tostring(element, encoding="unicode")
            whole = fresh.baselineCPU([text], lv.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES)
            return definition.cpu(ET.fromstring(whole))
    return None


def vm_cpu(fresh: Any, root: ET.Element, known: Machine) -> CpuFact | None:
    """Return what the guest of a running VM sees; of an emulated processor only what its definition spells out.

    None when it cannot be told, as two lists of features compare only when both are whole.
    """
    element = root.find("cpu")
    if definition.accelerator(root) != "kvm" or element is None:
        return definition.cpu(element)
    if element.get("mode") == "host-passthrough":
        return known.cpu
    with contextlib.suppress(connection.module().libvirtError):
        return expanded(fresh, element, known.emulator, known.arch)
    return None


def expanded(fresh: Any, element: ET.Element, emulator: str, arch: str) -> CpuFact | None:
    """Return a processor for KVM with all features of its model written out. libvirtError when libvirt cannot."""
    lv = connection.module()
    cpu = ET.Element("cpu", {"mode": "custom", "match": "exact"})
    cpu.extend(child for child in element if child.tag in ("model", "vendor", "feature"))
    flags = lv.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES
    text = ET.tostring(cpu, encoding="unicode")
    return definition.cpu(ET.fromstring(fresh.baselineHypervisorCPU(emulator, arch, None, "kvm", [text], flags)))
