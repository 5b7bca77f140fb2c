"""How a simulated world looks from outside: the facts that checks judge and the evidence of both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address

from refimpl.backends.simulated.stages import Stage
from refimpl.backends.simulated.transfer import Transfer
from refimpl.backends.simulated.world import MIB, Copy, World
from refimpl.backends.simulated.worldfile import VmSpec
from refimpl.backends.simulated.worldparts import CpuSpec, DiskSpec, HostSpec
from refimpl.model.errors import Native
from refimpl.model.facts import (
    AddressFact,
    CertificateFact,
    ClockFact,
    CopySeen,
    CpuFact,
    DeviceFact,
    DiskFact,
    Facts,
    HostFacts,
    LeaseFact,
    LeaseSpaceFact,
    NicFact,
    Scope,
    TargetFact,
    VmFacts,
    VmState,
)
from refimpl.model.request import MigrationRequest
from refimpl.model.settings import HostSettings, MigrationSubnet
from refimpl.model.storage import targets

ROLES = ("control-server", "control-client", "migration-server", "migration-client")
"""What each host has a certificate for."""

BASELINE = frozenset({"sse2"})
"""What a simulated guest sees of its host's processor with processor compatibility."""

_DAY_S = 86_400.0


def look(world: World, scope: Scope) -> Facts:
    """Return the facts of the hosts in the scope."""
    names = [name for name in world.spec.hosts if not scope.hosts or name in scope.hosts]
    return Facts({name: _host(world, name, scope.vm, scope.request) for name in names}, world.now_ns() / 1e9)


def host_settings(world: World) -> Mapping[str, HostSettings]:
    """Return the settings of a world's hosts: migration enabled, on their own networks by the networks' priority.

    What the world's file names is in its place.
    """
    return {name: _settings(world, spec) for name, spec in world.spec.hosts.items()}


def _settings(world: World, spec: HostSpec) -> HostSettings:
    priorities = {address: world.spec.networks[network].priority for network, address in spec.networks.items()}
    subnets = tuple(MigrationSubnet(address, priority) for address, priority in sorted(priorities.items()))
    return spec.settings.over(HostSettings(migration_enabled=True, networks=subnets))


def _reached(world: World, spec: HostSpec) -> tuple[str, ...]:
    """Return every address on the networks that a host is on."""
    return tuple(a for other in world.spec.hosts.values() for n, a in other.networks.items() if n in spec.networks)


def seen(world: World, host: str, vm: str, as_source: bool) -> CopySeen:
    """Return what an inspection of one side sees."""
    copy, job = world.copy(host, vm), world.job_of(vm)
    if not world.hosts[host].answers or (copy is not None and copy.stopped):
        return CopySeen(host, reachable=False)
    closed_there = job is not None and (job.stage is Stage.BOUND or job.finished_there)
    open_here = job is not None and (as_source or not closed_there)
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
        half=job.half(host) if job else None,
    )


def _waits_to_run(world: World, copy: Copy | None) -> bool:
    return copy is not None and copy.state is VmState.PAUSED and copy.operation not in world.let_go_ns


def _cannot_run_again(copy: Copy | None, job: Transfer | None) -> bool:
    return copy is None or not copy.alive or (job is not None and job.stage is Stage.BOUND)


def _host(world: World, name: str, vm: str | None, request: MigrationRequest | None) -> HostFacts:
    if not world.hosts[name].answers:
        return HostFacts(name, reachable=False, native=Native("simulated", 38, f"no answer from host {name}"))
    spec, now_s = world.spec.hosts[name], world.now_ns() / 1e9
    wanted = [copy.vm for copy in world.copies.values() if vm in (None, copy.vm.name)]
    return HostFacts(
        name=name,
        reachable=True,
        uuid=f"simulated-{name}",
        names=(name, *spec.networks.values()),
        memory_mib=spec.memory_mib,
        memory_used_mib=world.memory_used_mib(name),
        vms=tuple(_vm(world, copy) for (host, _), copy in world.copies.items() if host == name),
        disks={d.path: _disk(world, d, name) for v in wanted for d in v.disks},
        certificates=_certificates(world, name, spec),
        lock_daemon_alive=world.hosts[name].lock_daemon,
        addresses=tuple(AddressFact(a, ip_address(a).max_prefixlen, n) for n, a in spec.networks.items()),
        routes=_reached(world, spec),
        switches=spec.switches,
        cpu=_cpu(spec.cpu),
        machine_types=spec.machine_types,
        accelerators=spec.accelerators,
        compression=spec.compression,
        clock=ClockFact(now_s + spec.clock_skew_ms / 1000, spec.clock_uncertainty_ms / 1000),
        clock_reference_s=now_s,
        versions=spec.versions,
        storage_directories=spec.storage_directories,
        targets=_targets(world, name, request),
        lease_space=_lease_space(world, name, vm),
        user_faults=spec.user_faults,
    )


def _vm(world: World, copy: Copy) -> VmFacts:
    vm = copy.vm
    return VmFacts(
        name=vm.name,
        id=vm.id,
        state=copy.state,
        memory_mib=vm.memory_mib,
        vcpus=vm.vcpus,
        disks=tuple(_disk(world, disk, copy.host) for disk in vm.disks),
        lease=_lease(world, copy.host, vm),
        operation=copy.operation,
        plan=copy.plan,
        epoch=copy.epoch,
        nics=tuple(NicFact(nic.name, nic.mac, nic.switch) for nic in vm.nics),
        cpu=_seen_cpu(world, vm),
        processor_compatibility=vm.processor_compatibility,
        machine=vm.machine,
        accelerator=vm.accelerator,
        unmovable=tuple(DeviceFact(device.kind, device.name, device.why) for device in vm.unmovable),
        snapshots=vm.snapshots,
        busy=vm.busy,
        autostart=copy.autostart,
        second_socket=vm.second_socket,
        memory_backing=vm.memory_backing,
    )


def _cpu(spec: CpuSpec | None) -> CpuFact | None:
    return CpuFact(spec.vendor, spec.model, spec.features) if spec else None


def _seen_cpu(world: World, vm: VmSpec) -> CpuFact | None:
    """Return what a guest sees: its own processor, that of the host on which it began, or a baseline of that."""
    whole = _cpu(vm.cpu or world.spec.hosts[vm.host].cpu)
    if whole is None or vm.cpu is not None or not vm.processor_compatibility:
        return whole
    return replace(whole, model="baseline", features=whole.features & BASELINE)


def _lease(world: World, host: str, vm: VmSpec) -> LeaseFact | None:
    return LeaseFact(f"/leases/{vm.id}", world.holds_lease(host, vm)) if vm.lease else None


def _lease_space(world: World, host: str, vm: str | None) -> LeaseSpaceFact | None:
    """Return where the lease of the VM in question is, as a host sees it; None when it has none."""
    found = next((c.vm for c in world.copies.values() if c.vm.name == vm and c.vm.lease), None)
    if found is None:
        return None
    path, sees = f"/leases/{found.id}", world.spec.hosts[host].lease_space
    if sees == "missing":
        return LeaseSpaceFact(path, wrong="there is no such directory")
    return LeaseSpaceFact(path, f"{host if sees == 'own' else sees}:{path}", probed=sees == "shared")


def _targets(world: World, host: str, request: MigrationRequest | None) -> dict[str, TargetFact]:
    """Return the places at a destination to which disks of the requested move would go."""
    if request is None or request.storage is None or request.destination != host:
        return {}
    copies = [copy.vm for copy in world.copies.values() if copy.vm.name == request.vm and copy.host != host]
    disks = [disk.path for vm in copies for disk in vm.disks if disk.device == "disk"]
    default = next(iter(world.spec.hosts[host].storage_directories), "")
    places = targets(request.storage, disks, default).values()
    return {path: world.disks.target(host, path) for path in places}


def _disk(world: World, disk: DiskSpec, host: str) -> DiskFact:
    where = host if host in disk.different_on else "shared"
    identity = world.disks.identity(host, disk.path) if disk.local else f"{where}:{disk.path}"
    if host in disk.missing_on or identity is None:
        return DiskFact(disk.path, None)
    medium = disk.device != "disk"
    return DiskFact(
        path=disk.path,
        identity=identity,
        size_bytes=disk.size_mib * MIB,
        device=disk.device,
        format=disk.format,
        content=disk.content or disk.format,
        cache=disk.cache,
        read_only=medium,
        transient=disk.transient,
        probed=None if medium else host not in disk.unshared_with,
        content_hash=(host if host in disk.other_content_on else "same") if medium else None,
        shared_file_system=disk.shared_file_system and not disk.local,
        writable=host not in disk.read_only_on,
        chain=disk.chain,
        virtual_size_bytes=disk.size_mib * MIB,
        allocated_bytes=disk.size_mib * MIB,
        broken=disk.broken,
    )


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
