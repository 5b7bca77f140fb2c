"""What the hosts of a group show before a move: the facts that checks judge. Nothing is changed by looking.

Each host is asked twice: what it and its VMs are, and then how it sees the files of all the VMs in question, as a disk
is compared on hosts that have no definition with it. Both times all hosts are asked at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from refimpl.backends.libvirt import connection, definition, lease, links, monitor, stamp
from refimpl.backends.libvirt.certificates import certificates
from refimpl.backends.libvirt.domain import describe, parse, processor_compatibility
from refimpl.backends.libvirt.evidence import vm_state
from refimpl.backends.libvirt.look import Look, Seen
from refimpl.backends.libvirt.machine import Machine, machine, vm_cpu
from refimpl.backends.libvirt.parallel import in_parallel
from refimpl.backends.libvirt.status import Status, domain_part, parse_status, read_text
from refimpl.hosts.channel import HostChannel
from refimpl.hosts.factory import channel_for
from refimpl.model.facts import (
    SAVED_MEMORY,
    DeviceFact,
    DiskFact,
    Facts,
    HostFacts,
    LeaseFact,
    LeaseSpaceFact,
    Scope,
    VmFacts,
    VmState,
)
from refimpl.model.group import Group, HostEntry
from refimpl.model.request import PostCopy
from refimpl.model.storage import targets

LOOK_TIMEOUT_S = 12.0
_OCCUPYING = (VmState.RUNNING, VmState.PAUSED, VmState.PLANNED)
_MIGRATION = "migration"
_NETWORK_DRIVER = ("/run/libvirt/network/driver.pid", "/run/libvirt/virtnetworkd-sock")
"""What shows that libvirt's network driver is there: in libvirtd, or in a daemon of its own."""
_BLOCK_JOB = b"<blockjobs active='yes'"


@dataclass(slots=True)
class Looked:
    """One host while it is looked at. `look` is None when it is down; `seen`: the files of disks, by path."""

    host: HostEntry
    look: Look | None
    facts: HostFacts
    seen: Mapping[str, Seen]


def observe(group: Group, scope: Scope, now_s: float) -> Facts:
    """Look at the hosts of the scope at the same time. A host that is down is a fact, not an error."""
    with looking(group, scope) as looked:
        return gathered(looked, now_s)


def gathered(looked: Iterable[Looked], now_s: float) -> Facts:
    """Return the facts of the hosts that were looked at."""
    return Facts(hosts={one.host.name: one.facts for one in looked}, now_s=now_s)


@contextmanager
def looking(group: Group, scope: Scope) -> Iterator[list[Looked]]:
    """Give the hosts of the scope with all facts that need no writing; they can be asked more until the end."""
    hosts = [h for h in group.hosts if not scope.hosts or h.name in scope.hosts]
    looked = in_parallel(lambda host: _look(group, host, scope), hosts)
    try:
        wanted = _defined(looked, scope)
        in_parallel(lambda one: _see_disks(one, wanted), looked)
        _see_chains(looked)
        for one in looked:
            _put_together(one, scope)
        _see_targets(looked, scope)
        _see_lease_space(looked, scope)
        yield looked
    finally:
        in_parallel(_close, looked)


def _close(one: Looked) -> None:
    if one.look is not None:
        one.look.close()


def _look(group: Group, host: HostEntry, scope: Scope) -> Looked:
    channel = channel_for(host)
    look = None
    try:
        look = Look(channel)
        return Looked(host, look, _ask(group, host, look, scope), {})
    except connection.failures() as error:
        silent = _silent(host, channel, look, error)
        if look is not None:
            look.close()
        return Looked(host, None, silent, {})


def _silent(host: HostEntry, channel: HostChannel, look: Look | None, error: Exception) -> HostFacts:
    """Return the facts of a host that does not answer: a certificate that nobody takes may be why, so it is shown."""
    silent = HostFacts(host.name, reachable=False, native=connection.native(error), names=_names(host, host.name))
    try:
        return silent if look is None else replace(silent, certificates=certificates(host, channel, look.modes))
    except OSError:
        return silent


def _ask(group: Group, host: HostEntry, look: Look, scope: Scope) -> HostFacts:
    what = f"look at host {host.name}"
    facts = connection.bounded(lambda: _ask_daemon(host, look, scope), LOOK_TIMEOUT_S, what)
    clock, reference_s = look.clock()
    shown, v4, v6 = look.ask("network")
    return replace(
        facts,
        certificates=certificates(host, look.channel, look.modes),
        lock_daemon_alive=lease.daemon_alive(look.channel),
        addresses=links.addresses(shown),
        routes=links.routes(v4, v6),
        switches=(facts.switches or frozenset()) | _switches(group, host, links.switches(shown)),
        clock=clock,
        clock_reference_s=reference_s,
    )


def _switches(group: Group, host: HostEntry, found: frozenset[str]) -> frozenset[str]:
    """Return the names of switches. The group's own has its other names too: an adapter on it is connected anew."""
    if host.virtual_switch not in found:
        return found
    return found | {other.virtual_switch for other in group.hosts if other.virtual_switch}


def _ask_daemon(host: HostEntry, look: Look, scope: Scope) -> HostFacts:
    with connection.fresh(host) as fresh:
        known = machine(fresh, host.control_uri, look)
        seen = (_Domain(fresh, domain, look, known).facts(scope) for domain in fresh.listAllDomains())
        vms = tuple(vm for vm in seen if vm is not None)
        return HostFacts(
            name=host.name,
            reachable=True,
            uuid=known.uuid,
            names=_names(host, fresh.getHostname()),
            storage_directories=host.storage_directories,
            memory_mib=host.memory_mib,
            memory_used_mib=sum(vm.memory_mib for vm in vms if vm.state in _OCCUPYING),
            vms=vms,
            cpu=known.cpu,
            machine_types=known.machine_types,
            accelerators=known.accelerators,
            compression=known.compression,
            user_faults=_user_faults(known, look, scope),
            switches=_networks(fresh, look),
            versions={"libvirt": _version(fresh.getLibVersion()), "qemu": _version(fresh.getVersion())},
        )


def _user_faults(known: Machine, look: Look, scope: Scope) -> bool | None:
    """Return whether QEMU's user can be told of missing pages; None when that is not asked for or cannot be seen."""
    if scope.request is None or scope.request.post_copy is PostCopy.OFF:
        return None
    uid, gid = known.qemu_user
    with contextlib.suppress(OSError):
        return bool(look.ask("user_faults", uid=uid, gid=gid))
    return None


def _networks(fresh: Any, look: Look) -> frozenset[str]:
    """Return libvirt's own networks that are up: an adapter can be connected to one by its name, too."""
    # A daemon without the driver for them would write an error into its log at each look.
    if not look.modes(_NETWORK_DRIVER):
        return frozenset()
    with contextlib.suppress(connection.module().libvirtError):
        return frozenset(fresh.listNetworks())
    return frozenset()


class _Domain:
    """One domain while it is looked at.

    While a migration has it, its status file is read instead: the daemon may not answer about it until the end.
    """

    def __init__(self, fresh: Any, domain: Any, look: Look, known: Machine) -> None:
        self._fresh, self._domain, self._look, self._known = fresh, domain, look, known
        self._text = read_text(look.channel, domain.name())
        self._seen = parse_status(self._text) if self._text is not None else None

    def facts(self, scope: Scope) -> VmFacts | None:
        """Return the VM's facts, of one that is not asked for only the first; None when it has gone away."""
        lv = connection.module()
        try:
            facts, xml = self._plain()
            return self._whole(facts, xml) if scope.vm in (None, facts.name) else facts
        except lv.libvirtError as error:
            if connection.code(error) == lv.VIR_ERR_NO_DOMAIN:
                return None
            raise

    @property
    def _migrates(self) -> bool:
        return self._seen is not None and self._seen.job.startswith(_MIGRATION)

    def _plain(self) -> tuple[VmFacts, str]:
        if self._migrates and self._text is not None and self._seen is not None:
            xml, state = domain_part(self._text), self._seen.vm_state
        else:
            xml, state = self._domain.XMLDesc(0), vm_state(self._domain.state()[0])
        described, marked = describe(xml), stamp.from_domain_xml(xml)
        if state is VmState.PAUSED and self._seen is not None:
            state = self._seen.vm_state
        facts = VmFacts(
            name=described.name,
            id=described.id,
            state=state,
            memory_mib=described.memory_mib,
            vcpus=described.vcpus,
            disks=definition.disks(parse(xml)),
            lease=LeaseFact(described.lease, None) if described.lease is not None else None,
            operation=marked.operation if marked else None,
            plan=marked.plan if marked else None,
            epoch=stamp.epoch(xml),
        )
        return facts, xml

    def _whole(self, facts: VmFacts, xml: str) -> VmFacts:
        root = parse(xml)
        return replace(
            facts,
            lease=None if facts.lease is None else LeaseFact(facts.lease.path, self._lease_held(facts.lease.path)),
            nics=definition.nics(root),
            cpu=None if facts.state is VmState.OFF else vm_cpu(self._fresh, root, self._known),
            processor_compatibility=processor_compatibility(root),
            machine=definition.machine(root),
            accelerator=definition.accelerator(root),
            unmovable=(*definition.unmovable(root), *self._saved_memory()),
            snapshots=() if self._migrates else tuple(self._domain.snapshotListNames(0)),
            busy=busy(self._seen, self._text),
            second_socket=monitor.has_socket(root),
            memory_backing=definition.memory_backing(root),
            autostart=not self._migrates and bool(self._domain.isPersistent() and self._domain.autostart()),
        )

    def _saved_memory(self) -> tuple[DeviceFact, ...]:
        if self._migrates or not self._domain.hasManagedSaveImage(0):
            return ()
        return (DeviceFact(SAVED_MEMORY, "(virsh managedsave)", "it is in a file of the source and would stay behind"),)

    def _lease_held(self, path: str) -> bool | None:
        try:
            place = self._look.place(path)
        except OSError:
            return None
        return None if place is None else lease.held_file(self._look.channel, *place)


def busy(seen: Status | None, text: bytes | None) -> str:
    """Return what other than a migration has a VM, from its status file; empty without."""
    if seen is not None and seen.job and not seen.job.startswith(_MIGRATION):
        return seen.job
    return "block job" if text is not None and _BLOCK_JOB in text else ""


def _defined(looked: Iterable[Looked], scope: Scope) -> dict[str, DiskFact]:
    """Return the disks of the VMs in question as they are defined, by path."""
    vms = (vm for one in looked for vm in one.facts.vms if scope.vm in (None, vm.name))
    return {disk.path: disk for vm in vms for disk in vm.disks}


def _see_disks(one: Looked, wanted: Mapping[str, DiskFact]) -> None:
    if one.look is None:
        return
    try:
        one.seen = {**one.seen, **one.look.disks(wanted)}
    except OSError as error:
        one.facts = HostFacts(one.host.name, reachable=False, native=connection.native(error))
        one.look.close()
        one.look = None


def _see_chains(looked: list[Looked]) -> None:
    """Look everywhere for the files on which disks turned out to be based."""
    named = {path for one in looked for seen in one.seen.values() for path in seen.fact.chain}
    known = {path for one in looked for path in one.seen}
    bases = {path: DiskFact(path, None, read_only=True) for path in sorted(named - known)}
    if bases:
        in_parallel(lambda one: _see_disks(one, bases), looked)


def _put_together(one: Looked, scope: Scope) -> None:
    """Put what was seen of files into the facts of the host and of its VMs, each VM's by its own definition."""
    if one.look is None:
        return
    disks = {path: seen.fact for path, seen in one.seen.items()}
    vms = (
        replace(vm, disks=tuple(_as_defined(disk, disks[disk.path]) for disk in vm.disks))
        if scope.vm in (None, vm.name)
        else vm
        for vm in one.facts.vms
    )
    one.facts = replace(one.facts, disks=disks, vms=tuple(vms))


def _see_targets(looked: Sequence[Looked], scope: Scope) -> None:
    """Look at the places at the destination to which the disks of the requested move would go."""
    wish = scope.request.storage if scope.request else None
    there = next((one for one in looked if scope.request and one.host.name == scope.request.destination), None)
    if wish is None or there is None or there.look is None:
        return
    vms = (vm for one in looked if one is not there for vm in one.facts.vms if vm.name == scope.vm)
    moving = [disk.path for vm in vms for disk in vm.disks if disk.moves]
    default = next(iter(there.host.storage_directories), "")
    paths = dict.fromkeys(targets(wish, moving, default).values())
    try:
        there.facts = replace(there.facts, targets=there.look.targets(list(paths)))
    except OSError as error:
        there.facts = HostFacts(there.host.name, reachable=False, native=connection.native(error))


def _see_lease_space(looked: Sequence[Looked], scope: Scope) -> None:
    """Look from every host at where the lease of the VM in question is."""
    vms = [vm for one in looked for vm in one.facts.vms if vm.name == scope.vm and vm.lease is not None]
    path = next((vm.lease.path for vm in vms if vm.lease is not None), None)
    if path is not None:
        in_parallel(lambda one: _see_lease(one, path), looked)


def _see_lease(one: Looked, path: str) -> None:
    if one.look is None:
        return
    try:
        place = one.look.targets([path])[path]
    except OSError as error:
        one.facts = HostFacts(one.host.name, reachable=False, native=connection.native(error))
        return
    wrong = place.directory or ("it takes no writes there" if place.writable is False else "")
    one.facts = replace(one.facts, lease_space=LeaseSpaceFact(path, place.identity, wrong))


def _as_defined(defined: DiskFact, seen: DiskFact) -> DiskFact:
    own = ("device", "format", "cache", "read_only", "transient")
    return replace(seen, **{name: getattr(defined, name) for name in own})


def put_disks(one: Looked, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Put more into a host's facts of disks: by path, new values of fields."""
    disks = {path: replace(disk, **changes.get(path, {})) for path, disk in one.facts.disks.items()}
    vms = (
        replace(vm, disks=tuple(replace(disk, **changes.get(disk.path, {})) for disk in vm.disks))
        for vm in one.facts.vms
    )
    one.facts = replace(one.facts, disks=disks, vms=tuple(vms))


def _names(host: HostEntry, hostname: str) -> tuple[str, ...]:
    addresses = (network.address for network in host.migration_networks)
    return tuple(dict.fromkeys((host.name, hostname, host.management_address, *addresses)))


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
