"""What VMs a host can have: from a daemon's answers as libvirt 11.3 gives them, shortened."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import pytest

from refimpl.backends.libvirt import machine
from refimpl.model.facts import CpuFact

libvirt = pytest.importorskip("libvirt")

KVM = "<domain type='kvm'/>"
CAPABILITIES = """<capabilities><host><uuid>u-1</uuid>
<cpu><arch>x86_64</arch><model>Broadwell</model><vendor>Intel</vendor><feature name='vmx'/></cpu></host>
<guest><os_type>hvm</os_type><arch name='i686'><emulator>/usr/bin/qemu-system-i386</emulator>
<machine>old</machine><domain type='qemu'/></arch></guest>
<guest><os_type>hvm</os_type><arch name='x86_64'><emulator>/usr/bin/qemu-system-x86_64</emulator>
<machine maxCpus='255' canonical='pc-i440fx-10.0'>pc</machine><machine canonical='pc-q35-10.0'>q35</machine>
<domain type='qemu'/>{kvm}</arch></guest></capabilities>"""
DOMAIN_CAPABILITIES = """<domainCapabilities><cpu><mode name='host-passthrough' supported='yes'/>
<mode name='host-model' supported='yes'><model>Skylake</model><vendor>Intel</vendor>
<feature policy='require' name='ss'/></mode></cpu></domainCapabilities>"""


class Look:
    def __init__(self, libraries: list[str] | None) -> None:
        self.libraries = libraries

    def ask(self, do: str, **values: Any) -> Any:
        assert (do, values) == ("needed", {"path": "/usr/bin/qemu-system-x86_64"})
        return self.libraries


class Daemon:
    """Writes a processor out by adding the feature `of-<model>`."""

    def __init__(self, kvm: bool = True, version: int = 11_003_000, cannot: bool = False) -> None:
        self.kvm, self.version, self.cannot = kvm, version, cannot
        self.asked = 0

    def getCapabilities(self) -> str:
        return CAPABILITIES.format(kvm=KVM if self.kvm else "")

    def getLibVersion(self) -> int:
        return self.version

    def getVersion(self) -> int:
        return 10_000_002

    def getDomainCapabilities(self, emulator: str, arch: str, _machine: None, kind: str, _flags: int) -> str:
        self.asked += 1
        assert (emulator, arch, kind) == ("/usr/bin/qemu-system-x86_64", "x86_64", "kvm")
        return DOMAIN_CAPABILITIES

    def baselineHypervisorCPU(self, _e: str, _a: str, _m: None, _k: str, cpus: list[str], flags: int) -> str:
        return self.baselineCPU(cpus, flags)

    def baselineCPU(self, cpus: list[str], flags: int) -> str:
        if self.cannot:
            raise libvirt.libvirtError("cannot")
        assert flags == libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES
        (text,) = cpus
        root = ET.fromstring(text)
        ET.SubElement(root, "feature", {"policy": "require", "name": f"of-{root.findtext('model')}"})
        return ET.tostring(root, encoding="unicode")


def seen(daemon: Daemon, uri: str, libraries: list[str] | None = None) -> machine.Machine:
    return machine.machine(daemon, uri, Look(libraries))  # type: ignore[arg-type]


def test_types_accelerators_and_processor_are_of_the_hosts_own_kind() -> None:
    found = seen(Daemon(), "kvm", ["libzstd.so.1"])
    assert found.machine_types == {"pc", "pc-i440fx-10.0", "q35", "pc-q35-10.0"}
    assert found.accelerators == {"kvm", "tcg"}
    assert found.cpu == CpuFact("Intel", "Skylake", frozenset({"ss", "of-Skylake"}))
    assert (found.uuid, found.compression) == ("u-1", ("zstd", "xbzrle"))


def test_without_kvm_the_processor_is_the_hardware() -> None:
    found = seen(Daemon(kvm=False), "tcg")
    assert found.accelerators == {"tcg"}
    assert found.cpu == CpuFact("Intel", "Broadwell", frozenset({"vmx", "of-Broadwell"}))


def test_what_cannot_be_written_out_is_not_seen() -> None:
    assert seen(Daemon(cannot=True), "cannot").cpu is None


def test_a_daemon_is_asked_once_until_it_is_another() -> None:
    daemon = Daemon()
    assert seen(daemon, "once") is seen(daemon, "once")
    assert daemon.asked == 1
    daemon.version += 1
    seen(daemon, "once")
    assert daemon.asked == 2


@pytest.mark.parametrize(
    ("version", "libraries", "expected"),
    [
        (9_004_000, ["libc.so.6", "libzstd.so.1"], ("zstd", "xbzrle")),
        (9_003_000, ["libzstd.so.1"], ("xbzrle",)),
        (11_003_000, ["libc.so.6"], ("xbzrle",)),
        (11_003_000, None, ("xbzrle",)),
    ],
)
def test_zstd_is_there_when_both_systems_have_it(version: int, libraries: list[str] | None, expected: Any) -> None:
    assert machine.compression(version, libraries) == expected


def test_what_a_guest_sees() -> None:
    known = seen(Daemon(), "guest")

    def cpu(daemon: Daemon, kind: str, text: str) -> CpuFact | None:
        return machine.vm_cpu(daemon, ET.fromstring(f"<domain type='{kind}'>{text}</domain>"), known)

    custom = "<cpu mode='custom' check='full'><model>kvm64</model><vendor>AMD</vendor><topology cores='2'/></cpu>"
    assert cpu(Daemon(), "kvm", custom) == CpuFact("AMD", "kvm64", frozenset({"of-kvm64"}))
    assert cpu(Daemon(cannot=True), "kvm", custom) is None
    assert cpu(Daemon(), "kvm", "<cpu mode='host-passthrough'/>") == known.cpu
    assert cpu(Daemon(), "qemu", custom) == CpuFact("AMD", "kvm64")
    assert cpu(Daemon(), "kvm", "") is None
