"""A simulated world: hosts, copies of VMs, leases, links, and what happens to them. It knows no controller.

What is here is the truth that backends look at and act on. Nothing in it is removed when a backend object is lost, so
a second one on the same world finds what the first has left, as on real hosts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from refimpl.backends.simulated.clock import EPOCH_NS, WorldClock
from refimpl.backends.simulated.disks import Disks, moved
from refimpl.backends.simulated.faults import Faults
from refimpl.backends.simulated.worldfile import VmSpec, WorldSpec, default_world
from refimpl.engine.timeline import VirtualTimeline
from refimpl.model.facts import VmState
from refimpl.model.request import Plan

if TYPE_CHECKING:
    from refimpl.backends.simulated.transfer import Transfer

MS_NS = 1_000_000
MIB = 1 << 20
BY_MIGRATION = "migration"
RESUME_REFUSED = "resume refused"
PAUSED_BY_SYSTEM = frozenset({BY_MIGRATION, RESUME_REFUSED})
"""Reasons of a pause that nobody asked for: such a copy may be resumed when it is the VM."""

_IN_MEMORY = (VmState.RUNNING, VmState.PAUSED, VmState.PLANNED)


@dataclass
class Copy:
    """One copy of a VM on one host. `operation` and `plan`: the mark of the migration that works on it.

    `epoch`: of the owner record, as the copy carries it. `stopped`: its process stands still, as somebody has stopped
    it; `held_back` is what its system does with it as soon as it goes on.
    """

    vm: VmSpec
    host: str
    state: VmState
    reason: str = ""
    operation: str | None = None
    plan: Plan | None = None
    epoch: int = 0
    autostart: bool = False
    ended_by_guest: bool = False
    stopped: bool = False
    held_back: list[Callable[[], None]] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Whether it has a process, and so memory."""
        return self.state in _IN_MEMORY


@dataclass
class HostNow:
    """Present state of a host. `queued`: what its system does as soon as it answers again.

    `lock_daemon`: whether what holds its leases lives; `lock_watchers` are told when it ends.
    """

    alive: bool = True
    lock_daemon: bool = True
    lock_watchers: list[Callable[[], None]] = field(default_factory=list)
    frozen: bool = False
    queued: list[Callable[[], None]] = field(default_factory=list)

    @property
    def answers(self) -> bool:
        """Whether a connection to it gets an answer."""
        return self.alive and not self.frozen


class World:
    """All that exists. Made from a `WorldSpec`; moves on only when its clock does."""

    def __init__(self, spec: WorldSpec | None = None, start_ns: int = EPOCH_NS) -> None:
        self.spec = spec or default_world()
        self.clock = WorldClock(start_ns)
        self.start_ns = start_ns
        self._random = random.Random(self.spec.seed)
        self.hosts = {n: HostNow(alive=h.reachable, lock_daemon=h.lock_daemon) for n, h in self.spec.hosts.items()}
        self.links_down: set[str] = set()
        self.copies: dict[tuple[str, str], Copy] = {}
        self.holders: dict[str, str | None] = {}
        self.transfers: dict[str, Transfer] = {}
        self.cancelled: set[str] = set()
        self.let_go_ns: dict[str, int] = {}
        for vm in self.spec.vms:
            self.copies[vm.host, vm.name] = Copy(vm, vm.host, VmState(vm.state), autostart=vm.autostart)
            self.holders[vm.name] = vm.host if vm.state == "running" and vm.lease and vm.lease_held else None
        self.disks = Disks(self)
        self.faults = Faults(self)

    def now_ns(self) -> int:
        """Return the world's time, nanoseconds since the epoch."""
        return self.clock.now_ns()

    def carry_to(self, timeline: VirtualTimeline) -> None:
        """Go on under another timeline: backends and what they follow under the former one are lost."""
        self.clock.carry_to(timeline)

    def span_ns(self, milliseconds: int) -> int:
        """Return a latency in nanoseconds, with the world's jitter."""
        return self.vary(milliseconds * MS_NS)

    def vary(self, amount: int) -> int:
        """Return an amount with the world's jitter."""
        if not self.spec.jitter or not amount:
            return amount
        return max(1, int(amount * (1 + self.spec.jitter * (2 * self._random.random() - 1))))

    def vm(self, name: str) -> VmSpec | None:
        """Return a VM by name."""
        return next((vm for vm in self.spec.vms if vm.name == name), None)

    def copy(self, host: str, vm: str) -> Copy | None:
        """Return the copy of a VM on a host, or None."""
        return self.copies.get((host, vm))

    def network_of(self, address: str | None) -> str | None:
        """Return the name of the network in which some host has this address."""
        found = (n for host in self.spec.hosts.values() for n, a in host.networks.items() if a == address)
        return next(found, None)

    def memory_used_mib(self, host: str) -> int:
        """Return what the running, paused and planned copies on a host have."""
        return sum(c.vm.memory_mib for (h, _), c in self.copies.items() if h == host and c.alive)

    def job_of(self, vm: str) -> Transfer | None:
        """Return the transfer of this VM that is under way, if any."""
        return next((t for t in self.transfers.values() if t.plan.vm == vm and t.open), None)

    def holds_lease(self, host: str, vm: VmSpec) -> bool:
        """Whether the lock daemon of a host holds the lease of a VM."""
        return self.hosts[host].lock_daemon and self.holders.get(vm.name) == host

    def run(self, copy: Copy, by_force: bool = False) -> bool:
        """Let a copy run. False: it cannot have its lease, so its system refuses. `by_force`: that does not look."""
        guarded = self.spec.leases and copy.vm.lease and not by_force
        living = self.hosts[copy.host].lock_daemon
        if guarded and not (living and self.holders.get(copy.vm.name) in (None, copy.host)):
            return False
        copy.state, copy.reason = VmState.RUNNING, ""
        if copy.vm.lease and living and self.holders.get(copy.vm.name) is None:
            self.holders[copy.vm.name] = copy.host
        self.disks.written(copy.host, copy.vm)
        return True

    def end_lock_daemon(self, host: str) -> None:
        """End what holds the leases of a host: all of them are lost at once, and whoever watches is told."""
        now = self.hosts[host]
        now.lock_daemon = False
        for vm, holder in self.holders.items():
            self.holders[vm] = None if holder == host else holder
        for watcher in list(now.lock_watchers):
            watcher()

    def mend_leases(self, host: str) -> None:
        """Start a host's lock daemon again; running copies take the leases that are free."""
        self.hosts[host].lock_daemon = True
        for copy in [c for (h, _), c in self.copies.items() if h == host and c.state is VmState.RUNNING]:
            if copy.vm.lease and self.holders.get(copy.vm.name) is None:
                self.holders[copy.vm.name] = host

    def stop(self, copy: Copy, state: VmState, reason: str) -> None:
        """Stop a copy: its lease is given back."""
        copy.state, copy.reason = state, reason
        if not copy.alive:
            copy.stopped, copy.held_back = False, []
        if self.holders.get(copy.vm.name) == copy.host:
            self.holders[copy.vm.name] = None

    def go_on(self, copy: Copy) -> None:
        """Let a process that was stopped go on; its system does what it had to do with it meanwhile."""
        copy.stopped = False
        held_back, copy.held_back = copy.held_back, []
        for action in held_back:
            action()

    def remove(self, copy: Copy) -> None:
        """End a copy and forget its definition on that host."""
        self.stop(copy, VmState.ABSENT, "removed")
        if self.copies.get((copy.host, copy.vm.name)) is copy:
            del self.copies[copy.host, copy.vm.name]

    def plan_copy(self, host: str, vm: VmSpec, operation: str, plan: Plan) -> Copy | None:
        """Make a planned copy with its memory reserved, or return the one of this operation. None: no room."""
        copy = self.copy(host, vm.name)
        if copy is not None:
            return copy if copy.operation == operation else None
        if self.memory_used_mib(host) + vm.memory_mib > self.spec.hosts[host].memory_mib:
            return None
        copy = Copy(moved(vm, plan), host, VmState.PLANNED, "planned", operation, plan)
        self.copies[host, vm.name] = copy
        return copy

    def define(self, host: str, vm: VmSpec, operation: str, plan: Plan) -> Copy:
        """Define a VM on a host, off."""
        copy = Copy(vm, host, VmState.OFF, "", operation, plan)
        self.copies[host, vm.name] = copy
        return copy

    def lose_host(self, name: str) -> None:
        """Power off a host: its copies lose their memory; definitions on its disk stay."""
        self.hosts[name].alive = False
        self.hosts[name].queued.clear()
        for copy in [c for (h, _), c in self.copies.items() if h == name]:
            if copy.state is VmState.PLANNED:
                self.remove(copy)
            elif copy.alive:
                self.stop(copy, VmState.OFF, "crashed")

    def bring_back(self, name: str) -> None:
        """Let a host answer again; its system first does what it had been told meanwhile."""
        host = self.hosts[name]
        host.alive, host.frozen = True, False
        queued, host.queued = host.queued, []
        for action in queued:
            action()

    def dirtied_bytes(self, vm: VmSpec, since_ns: int) -> int:
        """Return how much of its memory a guest has written to since then, at most its working set."""
        until_ns, total = self.now_ns(), 0
        steps = [(self.start_ns + int(seconds * 1e9), rate) for seconds, rate in vm.dirty_bytes_s]
        ends = [begin for begin, _ in steps[1:]] + [until_ns]
        for (begin, rate), end in zip(steps, ends, strict=True):
            span_ns = min(end, until_ns) - max(begin, since_ns)
            total += rate * max(0, span_ns) // 1_000_000_000
        return min(self.vary(total), vm.working_set_mib * MIB)
