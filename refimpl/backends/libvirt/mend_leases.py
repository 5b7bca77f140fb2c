"""Taking leases again that a lock daemon has lost, in the one order that works (handover 3).

The lock daemon, then libvirtd, which makes the lease space known to it, then each running VM is paused and resumed: a
lease is taken when a VM begins to run. Paused before libvirtd was started anew, a VM could not be resumed.

What was taken so is bound to no process and outlives its VM: nothing but a new lock daemon gives it back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from refimpl.backends.libvirt import connection, lease
from refimpl.backends.libvirt.running import MENDING_NAMESPACE, RunningVm, mending_xml, running_vms
from refimpl.backends.libvirt.tap import Taps
from refimpl.backends.libvirt.watch import NativeEvent
from refimpl.hosts.channel import HostChannel
from refimpl.hosts.stops import stop_point
from refimpl.hosts.wait import until
from refimpl.model.errors import Problem
from refimpl.model.facts import VmState
from refimpl.model.group import HostEntry

_PREFIX = "refimpl-lease"
_HEARD_S = 2.0
_HELD_S = 2.0
_PAUSE_S = 0.02
_LEASE_BUSY = 87


class Order(Protocol):
    """Whether the daemons of one host are such that a lease can be taken there."""

    def in_order(self) -> bool:
        """Whether libvirtd runs and began after the lock daemon: only then that knows the lease space."""
        ...


class Daemons(Order, Protocol):
    """The daemons of one host, whatever starts them there. What does not work is a RefimplError or OSError."""

    def lock_daemon_runs(self) -> bool:
        """Whether the lock daemon runs."""
        ...

    def start(self) -> None:
        """Start those daemons that do not run, the lock daemon first."""
        ...

    def end_lock_daemon(self) -> None:
        """End the lock daemon; the VMs run on, without their leases."""
        ...

    def restart_libvirtd(self) -> None:
        """End libvirtd and start it again; the VMs run on."""
        ...


class Did(StrEnum):
    """What became of a VM's lease: it was held, was taken again, or why not."""

    HELD = "held"
    TAKEN = "taken again"
    SPARED = "left alone"
    REFUSED = "not taken"


@dataclass(frozen=True, slots=True)
class VmMended:
    """One VM: what was done. `pause_ms`: how long it stood still, by QEMU's own times; None when it did not, or unseen.

    `resumed`: it was found paused by a mending that was interrupted.
    """

    vm: str
    did: Did
    pause_ms: float | None = None
    resumed: bool = False
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class HostMended:
    """One host: what was done to its daemons and to its VMs that run.

    `released`: ids of VMs that are not on there and whose leases were given back; `left_locked`: those that were not.
    """

    host: str
    lock_daemon_started: bool
    libvirtd_restarted: bool
    vms: tuple[VmMended, ...]
    released: tuple[str, ...] = ()
    left_locked: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether every running VM of the host has its lease now, and no other VM's lease is locked there."""
        return all(vm.did in (Did.HELD, Did.TAKEN) for vm in self.vms) and not self.left_locked


@dataclass(frozen=True, slots=True)
class Place:
    """The host to be mended, the other hosts by name, and who must not be touched.

    `leases`: their directory. `spares` returns why a VM is left alone, None when it may be paused.
    """

    host: HostEntry
    channel: HostChannel
    others: Mapping[str, HostChannel]
    leases: str
    spares: Callable[[RunningVm], Problem | None]


def mend(place: Place, daemons: Daemons) -> HostMended:
    """Put a host's daemons in order, then take each lease again that is not held. Done again, it does what is left.

    What stands in the way of one VM is its `problem`; a host or daemon that fails is raised as `connection.failures()`.
    """
    left = _left_locked(place)
    if left and not any(vm.held and place.spares(vm) for vm in running_vms(place.channel)):
        daemons.end_lock_daemon()
        stop_point("mend.lock_daemon_ended")
    started = not daemons.lock_daemon_runs()
    ordered = daemons.in_order()
    daemons.start()
    stop_point("mend.started")
    if not daemons.in_order():
        daemons.restart_libvirtd()
    concerned = [vm for vm in running_vms(place.channel) if vm.state is VmState.RUNNING or vm.mending]
    vms = tuple(mend_vm(place, daemons, vm) for vm in concerned)
    still = _left_locked(place)
    return HostMended(place.host.name, started, not ordered, vms, tuple(i for i in left if i not in still), still)


def _left_locked(place: Place) -> tuple[str, ...]:
    return lease.left_locked(place.channel, place.leases, {vm.id for vm in running_vms(place.channel)})


def mend_vm(place: Place, daemons: Order, vm: RunningVm) -> VmMended:
    """Take the lease of one VM again, if it is not held and nothing stands in the way."""
    if vm.held:
        if vm.mending:
            with connection.fresh(place.host) as fresh:
                unmark(_domain(fresh, vm))
        return VmMended(vm.name, Did.HELD)
    spared = place.spares(vm)
    if spared is not None:
        return VmMended(vm.name, Did.SPARED, problem=spared)
    problem = _stands_in_the_way(place, daemons, vm)
    if problem is not None:
        return VmMended(vm.name, Did.REFUSED, problem=problem)
    return _take(place, vm)


def _stands_in_the_way(place: Place, daemons: Order, vm: RunningVm) -> Problem | None:
    """Return why a VM must be neither paused nor resumed: it would then not run, or be a second copy."""
    named = {"vm": vm.name, "host": place.host.name}
    if vm.lease is None:
        return Problem("lease.absent", named, host=place.host.name)
    for other, channel in place.others.items():
        if lease.held(channel, vm.lease):
            return Problem("lease.held_elsewhere", {**named, "other": other}, host=place.host.name)
    if not daemons.in_order():
        return Problem("lock_daemon.down", named, host=place.host.name)
    try:
        lease.make(place.channel, vm.lease)
    except OSError as error:
        return _not_mended(place, vm, error)
    return None


def _take(place: Place, vm: RunningVm) -> VmMended:
    """Pause and resume a VM, marked in between: who finds the mark on a paused VM knows that it may be resumed."""
    assert vm.lease is not None
    file, resumed = vm.lease, vm.state is not VmState.RUNNING
    paused = _Paused()
    try:
        with _listening(place.host, vm, paused) as domain:
            if not resumed:
                _mark(domain, vm)
                stop_point("mend.marked")
                domain.suspend()
                stop_point("mend.paused")
            domain.resume()
            if not until(lambda: lease.held(place.channel, file) is True, _HELD_S, _PAUSE_S):
                raise OSError("it runs, and the lock daemon does not hold its lease")
            until(lambda: paused.ended, _HEARD_S, _PAUSE_S)
            unmark(domain)
    except connection.failures() as error:
        return VmMended(vm.name, Did.REFUSED, paused.ms, resumed, _not_mended(place, vm, error))
    return VmMended(vm.name, Did.TAKEN, paused.ms, resumed)


class _Paused:
    """When QEMU stopped and ran again, as it says itself. Told in the event thread."""

    def __init__(self) -> None:
        self._stop_ns: int | None = None
        self._resume_ns: int | None = None

    def tell(self, native: NativeEvent) -> None:
        if native.name == "STOP":
            self._stop_ns, self._resume_ns = native.at_ns, None
        elif native.name == "RESUME":
            self._resume_ns = native.at_ns

    @property
    def ended(self) -> bool:
        return self._resume_ns is not None

    @property
    def ms(self) -> float | None:
        if self._stop_ns is None or self._resume_ns is None:
            return None
        return (self._resume_ns - self._stop_ns) / 1e6


@contextmanager
def _listening(host: HostEntry, vm: RunningVm, paused: _Paused) -> Iterator[Any]:
    """Give the VM's domain, with QEMU's events told. OSError when the host does not have it any more."""
    taps = Taps(time.time_ns)
    taps.listen(host.name, vm.id, paused.tell)
    with connection.fresh(host) as fresh:
        taps.attach(host, fresh)
        yield _domain(fresh, vm)


def _domain(fresh: Any, vm: RunningVm) -> Any:
    domain = connection.find(fresh, vm.id)
    if domain is None:
        raise OSError(f"there is no VM {vm.name!r} any more")
    return domain


def _mark(domain: Any, vm: RunningVm) -> None:
    lv = connection.module()
    element = lv.VIR_DOMAIN_METADATA_ELEMENT
    domain.setMetadata(element, mending_xml(vm.pid), _PREFIX, MENDING_NAMESPACE, lv.VIR_DOMAIN_AFFECT_LIVE)


def unmark(domain: Any) -> None:
    """Take the mark of a mending off a VM that is on; nothing when it carries none."""
    lv = connection.module()
    element = lv.VIR_DOMAIN_METADATA_ELEMENT
    try:
        domain.setMetadata(element, None, _PREFIX, MENDING_NAMESPACE, lv.VIR_DOMAIN_AFFECT_LIVE)
    except lv.libvirtError as error:
        if connection.code(error) != lv.VIR_ERR_NO_DOMAIN_METADATA:
            raise


def _not_mended(place: Place, vm: RunningVm, error: Exception) -> Problem:
    values = {"vm": vm.name, "host": place.host.name, "detail": str(error)}
    id = "lease.held_elsewhere" if connection.code(error) == _LEASE_BUSY else "lease.not_mended"
    return Problem(id, {**values, "other": "another host"}, host=place.host.name, native=connection.native(error))
