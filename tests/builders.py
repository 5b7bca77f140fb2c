"""Healthy facts, plans and ledgers, from which a test takes away what it is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from refimpl.model.events import Event, Kind
from refimpl.model.facts import (
    AddressFact,
    CertificateFact,
    ClockFact,
    CopySeen,
    CpuFact,
    DiskFact,
    Evidence,
    Facts,
    HostFacts,
    LeaseFact,
    NicFact,
    VmFacts,
    VmState,
)
from refimpl.model.ledger import Ledger
from refimpl.model.request import HandOver, MigrationRequest, Plan
from refimpl.model.settings import HostSettings, MigrationSubnet

NOW_S = 1_800_000_000.0
OPERATION = "0a1b2c3d"
PATH = "/shared/disks/web.raw"
MACHINE = "pc-q35-10.0"
FEATURES = frozenset({"sse2", "avx"})
ROLES = ("control-server", "control-client", "migration-server", "migration-client")


def certificate(role: str, host: str, **changes: Any) -> CertificateFact:
    good = CertificateFact(role, (host, f"{host}.lab"), NOW_S - 3600, NOW_S + 86400, True, True)
    return replace(good, **changes)


def vm(**changes: Any) -> VmFacts:
    good = VmFacts(
        name="web",
        id="11111111-2222-4333-8444-555555555555",
        state=VmState.RUNNING,
        memory_mib=256,
        disks=(DiskFact(PATH, "fs7:42", 1 << 26),),
        lease=LeaseFact("/shared/leases/web", True),
        nics=(NicFact("adapter 1", "52:54:00:00:00:01", "lan"),),
        cpu=CpuFact("Intel", "Skylake", FEATURES),
        machine=MACHINE,
        accelerator="kvm",
    )
    return replace(good, **changes)


def host(name: str, **changes: Any) -> HostFacts:
    good = HostFacts(
        name=name,
        reachable=True,
        uuid=f"uuid-{name}",
        names=(name, f"10.0.0.{ord(name[-1])}"),
        memory_mib=2048,
        memory_used_mib=256,
        disks={PATH: DiskFact(PATH, "fs7:42", 1 << 26, probed=True)},
        certificates=tuple(certificate(role, name) for role in ROLES),
        lock_daemon_alive=True,
        addresses=(AddressFact("10.1.0.2", 24, "mig0"), AddressFact("10.2.0.2", 24, "mig1")),
        routes=("10.1.0.0/24", "10.2.0.0/24"),
        compression=("zstd", "xbzrle"),
        switches=frozenset({"lan"}),
        cpu=CpuFact("Intel", "Cascadelake", FEATURES | {"avx512f"}),
        machine_types=frozenset({MACHINE, "pc-q35-9.2"}),
        accelerators=frozenset({"kvm", "tcg"}),
        clock=ClockFact(NOW_S, 0.001),
        clock_reference_s=NOW_S,
        versions={"libvirt": "12.6.0", "qemu": "11.0.0"},
    )
    return replace(good, **changes)


NETWORKS = (MigrationSubnet("10.1.0.0/24", 1), MigrationSubnet("10.2.0.0/24", 2))


def settings(**changes: Any) -> HostSettings:
    return replace(HostSettings(migration_enabled=True, networks=NETWORKS), **changes)


SETTINGS = {"a": settings(), "b": settings()}


def facts(*hosts: HostFacts, **changes: Any) -> Facts:
    shown = {h.name: h for h in hosts or (host("a", vms=(vm(),)), host("b"))}
    return replace(Facts(hosts=shown, now_s=NOW_S, settings=SETTINGS, hand_overs=(HandOver.STRICT,)), **changes)


def request(**changes: Any) -> MigrationRequest:
    return replace(MigrationRequest(vm="web", destination="b"), **changes)


def plan(**changes: Any) -> Plan:
    good = Plan(vm="web", vm_id=vm().id, source="a", destination="b", networks=("10.1.0.2", "10.2.0.2"), memory_mib=256)
    return replace(good, **changes)


def ledger(**changes: Any) -> Ledger:
    bare = Ledger(OPERATION, "lab", changes.pop("request", request()), plan=plan())
    return replace(bare, **{"claimed": changes.get("plan", bare.plan) is not None, **changes})


def event(kind: Kind, **values: Any) -> Event:
    return Event(kind, 1, values)


def source(state: VmState = VmState.RUNNING, **changes: Any) -> CopySeen:
    return replace(CopySeen("a", True, state, lease_held=state is VmState.RUNNING), **changes)


def destination(state: VmState = VmState.ABSENT, **changes: Any) -> CopySeen:
    return replace(CopySeen("b", True, state, arrived=state is VmState.PAUSED), **changes)


def evidence(here: CopySeen, there: CopySeen) -> Event:
    return event(Kind.EVIDENCE_SEEN, evidence=Evidence(here, there))
