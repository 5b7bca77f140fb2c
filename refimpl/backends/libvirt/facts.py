"""What the hosts of a group show before a move: the facts that checks judge. Nothing is changed by looking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree as ET

from refimpl.backends.libvirt import connection, lease, stamp
from refimpl.backends.libvirt.certificates import certificates
from refimpl.backends.libvirt.domain import Described, describe
from refimpl.backends.libvirt.evidence import vm_state
from refimpl.backends.libvirt.links import addresses, routes
from refimpl.backends.libvirt.parallel import in_parallel
from refimpl.backends.libvirt.status import domain_part, parse_status, read_text
from refimpl.hosts.channel import HostChannel
from refimpl.hosts.factory import channel_for
from refimpl.model.facts import DiskFact, Facts, HostFacts, LeaseFact, Scope, VmFacts, VmState
from refimpl.model.group import Group, HostEntry

LOOK_TIMEOUT_S = 12.0
_OCCUPYING = (VmState.RUNNING, VmState.PAUSED, VmState.PLANNED)


@dataclass(frozen=True, slots=True)
class _Looked:
    """One host and the disks of the VM in question that were seen in its definition there."""

    host: HostEntry
    channel: HostChannel
    facts: HostFacts


def observe(group: Group, scope: Scope, now_s: float) -> Facts:
    """Look at the hosts of the scope at the same time. A host that is down is a fact, not an error."""
    hosts = [h for h in group.hosts if not scope.hosts or h.name in scope.hosts]
    looked = in_parallel(lambda host: _look(host, scope), hosts)
    paths = sorted({d.path for one in looked for v in _asked(one.facts.vms, scope) for d in v.disks})
    complete = in_parallel(lambda one: _with_disks(one, paths, scope), looked)
    return Facts(hosts={facts.name: facts for facts in complete}, now_s=now_s)


def disk_facts(channel: HostChannel, paths: Sequence[str]) -> Mapping[str, DiskFact]:
    """Return how a host sees files. The identity is of the file itself: file system, inode, time of birth."""
    return {path: _disk(channel, path) for path in paths}


def _look(host: HostEntry, scope: Scope) -> _Looked:
    channel = channel_for(host)
    try:
        facts = connection.bounded(lambda: _ask(host, channel, scope), LOOK_TIMEOUT_S, f"look at host {host.name}")
        looked = replace(facts, certificates=certificates(host, channel), lock_daemon_alive=lease.daemon_alive(channel))
    except connection.failures() as error:
        looked = _silent(host, channel, error)
    return _Looked(host, channel, looked)


def _silent(host: HostEntry, channel: HostChannel, error: Exception) -> HostFacts:
    """Return the facts of a host that does not answer: a certificate that nobody takes may be why, so it is shown."""
    silent = HostFacts(host.name, reachable=False, native=connection.native(error), names=_names(host, host.name))
    try:
        return replace(silent, certificates=certificates(host, channel))
    except OSError:
        return silent


def _ask(host: HostEntry, channel: HostChannel, scope: Scope) -> HostFacts:
    with connection.fresh(host) as fresh:
        vms = tuple(vm for vm in (_vm(domain, channel, scope) for domain in fresh.listAllDomains()) if vm is not None)
        return HostFacts(
            name=host.name,
            reachable=True,
            uuid=ET.fromstring(fresh.getCapabilities()).findtext("host/uuid", ""),
            names=_names(host, fresh.getHostname()),
            memory_mib=host.memory_mib,
            memory_used_mib=sum(vm.memory_mib for vm in vms if vm.state in _OCCUPYING),
            vms=vms,
            addresses=addresses(channel),
            routes=routes(channel),
            compression=("zstd", "xbzrle"),
            versions={"libvirt": _version(fresh.getLibVersion()), "qemu": _version(fresh.getVersion())},
        )


def _vm(domain: Any, channel: HostChannel, scope: Scope) -> VmFacts | None:
    """Return one VM's facts; None when it went away while it was looked at.

    While a migration has it, its status file is read instead: the daemon may not answer about it until the end.
    """
    lv = connection.module()
    text = read_text(channel, domain.name())
    seen = parse_status(text) if text is not None else None
    try:
        if text is not None and seen is not None and seen.job.startswith("migration"):
            xml, state = domain_part(text), seen.vm_state
        else:
            xml, state = domain.XMLDesc(0), vm_state(domain.state()[0])
    except lv.libvirtError as error:
        if connection.code(error) == lv.VIR_ERR_NO_DOMAIN:
            return None
        raise
    described, marked = describe(xml), stamp.from_domain_xml(xml)
    if state is VmState.PAUSED and seen is not None:
        state = seen.vm_state
    return VmFacts(
        name=described.name,
        id=described.id,
        state=state,
        memory_mib=described.memory_mib,
        vcpus=described.vcpus,
        disks=tuple(DiskFact(path, None) for path in described.disks),
        lease=_lease(described, channel, scope),
        operation=marked.operation if marked else None,
        plan=marked.plan if marked else None,
    )


def _lease(described: Described, channel: HostChannel, scope: Scope) -> LeaseFact | None:
    if described.lease is None:
        return None
    asked = scope.vm in (None, described.name)
    return LeaseFact(described.lease, lease.held(channel, described.lease) if asked else None)


def _asked(vms: Iterable[VmFacts], scope: Scope) -> list[VmFacts]:
    return [vm for vm in vms if scope.vm in (None, vm.name)]


def _with_disks(looked: _Looked, paths: Sequence[str], scope: Scope) -> HostFacts:
    facts = looked.facts
    if not facts.reachable:
        return facts
    try:
        disks = disk_facts(looked.channel, paths)
    except OSError as error:
        return HostFacts(facts.name, reachable=False, native=connection.native(error))
    asked = _asked(facts.vms, scope)
    seen = (replace(vm, disks=tuple(disks[d.path] for d in vm.disks)) if vm in asked else vm for vm in facts.vms)
    return replace(facts, disks=disks, vms=tuple(seen))


def _disk(channel: HostChannel, path: str) -> DiskFact:
    file = channel.run(["stat", "-L", "-c", "%i %W %s", "--", path])
    system = channel.run(["stat", "-L", "-f", "-c", "%i", "--", path])
    if file.status != 0 or system.status != 0:
        return DiskFact(path, None)
    inode, born, size = file.stdout.split()
    return DiskFact(path, f"{system.stdout.strip()}:{inode}:{born}", int(size))


def _names(host: HostEntry, hostname: str) -> tuple[str, ...]:
    addresses = (network.address for network in host.migration_networks)
    return tuple(dict.fromkeys((host.name, hostname, host.management_address, *addresses)))


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
