"""How a simulated world looks from outside: the facts that checks judge and the evidence of both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address

from refimpl.backends.simulated.transfer import Stage, Transfer
from refimpl.backends.simulated.world import MIB, Copy, World
from refimpl.backends.simulated.worldfile import DiskSpec, HostSpec, VmSpec
from refimpl.model.errors import Native
from refimpl.model.facts import (
    AddressFact,
    CertificateFact,
    CopySeen,
    DiskFact,
    Facts,
    HostFacts,
    LeaseFact,
    Scope,
    VmFacts,
    VmState,
)
from refimpl.model.settings import HostSettings, MigrationSubnet

ROLES = ("control-server", "control-client", "migration-server", "migration-client")
"""What each host has a certificate for."""

_DAY_S = 86_400.0


def look(world: World, scope: Scope) -> Facts:
    """Return the facts of the hosts in the scope."""
    names = [name for name in world.spec.hosts if not scope.hosts or name in scope.hosts]
    return Facts({name: _host(world, name, scope.vm) for name in names}, world.now_ns() / 1e9)


def host_settings(world: World) -> Mapping[str, HostSettings]:
    """Return the settings of a world's hosts: migration enabled, on their own networks by the networks' priority."""
    return {name: _settings(world, spec) for name, spec in world.spec.hosts.items()}


def _settings(world: World, spec: HostSpec) -> HostSettings:
    priorities = {address: world.spec.networks[network].priority for network, address in spec.networks.items()}
    subnets = tuple(MigrationSubnet(address, priority) for address, priority in sorted(priorities.items()))
    return HostSettings(migration_enabled=True, networks=subnets)


def _reached(world: World, spec: HostSpec) -> tuple[str, ...]:
    """Return every address on the networks that a host is on."""
    return tuple(a for other in world.spec.hosts.values() for n, a in other.networks.items() if n in spec.networks)


def seen(world: World, host: str, vm: str, as_source: bool) -> CopySeen:
    """Return what an inspection of one side sees."""
    if not world.hosts[host].answers:
        return CopySeen(host, reachable=False)
    copy, job = world.copy(host, vm), world.job_of(vm)
    open_here = job is not None and not (job.stage is Stage.BOUND and not as_source)
    return CopySeen(
        host=host,
        reachable=True,
        state=copy.state if copy else VmState.ABSENT,
        reason=copy.reason if copy else "",
        job_open=open_here,
        job_phase=job.phase_name if job and open_here else "",
        bound=as_source and _cannot_run_again(copy, job),
        arrived=not as_source and _waits_to_run(world, copy),
        ended_by_guest=copy.ended_by_guest if copy else False,
        operation=copy.operation if copy else None,
        lease_held=world.holds_lease(host, copy.vm) if copy and copy.vm.lease else None,
    )


def _waits_to_run(world: World, copy: Copy | None) -> bool:
    return copy is not None and copy.state is VmState.PAUSED and copy.operation not in world.let_go_ns


def _cannot_run_again(copy: Copy | None, job: Transfer | None) -> bool:
    return copy is None or not copy.alive or (job is not None and job.stage is Stage.BOUND)


def _host(world: World, name: str, vm: str | None) -> HostFacts:
    if not world.hosts[name].answers:
        return HostFacts(name, reachable=False, native=Native("simulated", 38, f"no answer from host {name}"))
    spec = world.spec.hosts[name]
    wanted = [v for v in world.spec.vms if vm in (None, v.name)]
    return HostFacts(
        name=name,
        reachable=True,
        uuid=f"simulated-{name}",
        names=(name, *spec.networks.values()),
        memory_mib=spec.memory_mib,
        memory_used_mib=world.memory_used_mib(name),
        vms=tuple(_vm(world, copy) for (host, _), copy in world.copies.items() if host == name),
        disks={d.path: _disk(d, name) for v in wanted for d in v.disks},
        certificates=_certificates(world, name, spec),
        lock_daemon_alive=spec.lock_daemon,
        addresses=tuple(AddressFact(a, ip_address(a).max_prefixlen, n) for n, a in spec.networks.items()),
        routes=_reached(world, spec),
        compression=("zstd",),
        versions={"simulated": "1"},
    )


def _vm(world: World, copy: Copy) -> VmFacts:
    vm = copy.vm
    return VmFacts(
        name=vm.name,
        id=vm.id,
        state=copy.state,
        memory_mib=vm.memory_mib,
        vcpus=vm.vcpus,
        disks=tuple(_disk(disk, copy.host) for disk in vm.disks),
        lease=_lease(world, copy.host, vm),
        operation=copy.operation,
        plan=copy.plan,
    )


def _lease(world: World, host: str, vm: VmSpec) -> LeaseFact | None:
    return LeaseFact(f"/leases/{vm.id}", world.holds_lease(host, vm)) if vm.lease else None


def _disk(disk: DiskSpec, host: str) -> DiskFact:
    if host in disk.missing_on:
        return DiskFact(disk.path, None)
    where = host if host in disk.different_on else "shared"
    return DiskFact(disk.path, f"{where}:{disk.path}", disk.size_mib * MIB)


def _certificates(world: World, name: str, spec: HostSpec) -> tuple[CertificateFact, ...]:
    now_s = world.now_ns() / 1e9
    good = CertificateFact(
        role="",
        names=("elsewhere",) if spec.certificate == "wrong-name" else (name, *spec.networks.values()),
        not_before_s=world.start_ns / 1e9 - _DAY_S,
        not_after_s=now_s + (-1.0 if spec.certificate == "expired" else 365 * _DAY_S),
        trusted=spec.certificate != "untrusted",
        key_private=spec.certificate != "key-readable",
    )
    return tuple(replace(good, role=role) for role in (ROLES[:-1] if spec.certificate == "missing" else ROLES))
