"""Scripted faults of a simulated world: which of them strike at a moment, and how an order is answered badly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from refimpl.backends.simulated.worldfile import STRIKING, FaultKind, FaultSpec, Moment
from refimpl.model.facts import VmState
from refimpl.model.request import CommandKind

if TYPE_CHECKING:
    from refimpl.backends.simulated.transfer import Transfer
    from refimpl.backends.simulated.world import World


class Faults:
    """The faults of one world and how often each has been used."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._script = world.spec.faults
        self._used = [0] * len(self._script)
        for index, fault in enumerate(self._script):
            if fault.at_s is not None:
                world.clock.after(int(fault.at_s * 1e9), lambda index=index: self._at_time(index))  # type: ignore[misc]

    def strike(self, vm: str, moment: Moment | None = None, on_pass: int | None = None) -> None:
        """Let everything happen that is scripted for this moment or pass of a VM's move; each once."""
        for index, fault in enumerate(self._script):
            due = fault.during is moment if moment else fault.on_pass == on_pass
            if fault.kind in STRIKING and fault.at_s is None and due and fault.vm in (None, vm):
                self._once(index, vm)

    def asked(
        self,
        kind: FaultKind,
        vm: str,
        *,
        host: str | None = None,
        network: str | None = None,
        command: CommandKind | None = None,
    ) -> bool:
        """Whether an order is to be answered badly now; counts it."""
        for index, fault in enumerate(self._script):
            named = ((fault.vm, vm), (fault.host, host), (fault.network, network), (fault.command, command))
            matches = fault.kind is kind and all(wanted in (None, is_) for wanted, is_ in named)
            if matches and (fault.times == 0 or self._used[index] < fault.times):
                self._used[index] += 1
                return True
        return False

    def _at_time(self, index: int) -> None:
        self._once(index, self._script[index].vm)

    def _once(self, index: int, vm: str | None) -> None:
        if not self._used[index]:
            self._used[index] = 1
            self._happen(self._script[index], vm or self._world.spec.vms[0].name)

    def _happen(self, fault: FaultSpec, vm: str) -> None:
        if fault.host is not None and fault.kind in (FaultKind.HOST_DIES, FaultKind.HOST_FREEZES):
            _host_away(self._world, fault.kind, fault.host, fault.for_ms)
        elif fault.host is not None and fault.kind is FaultKind.LOCK_DAEMON_DIES:
            _lock_daemon_away(self._world, fault.host, fault.for_ms)
        elif fault.network is not None:
            _link_away(self._world, fault.network, fault.for_ms)
        else:
            _to_transfer(self._world, fault.kind, vm)


def _host_away(world: World, kind: FaultKind, host: str, for_ms: int | None) -> None:
    if kind is FaultKind.HOST_DIES:
        world.lose_host(host)
    else:
        world.hosts[host].frozen = True
    if for_ms is not None:
        world.clock.after(for_ms * 1_000_000, lambda: world.bring_back(host))


def _lock_daemon_away(world: World, host: str, for_ms: int | None) -> None:
    world.end_lock_daemon(host)
    if for_ms is not None:
        world.clock.after(for_ms * 1_000_000, lambda: world.mend_leases(host))


def _link_away(world: World, network: str, for_ms: int | None) -> None:
    world.links_down.add(network)
    if for_ms is not None:
        world.clock.after(for_ms * 1_000_000, lambda: world.links_down.discard(network))


def _to_transfer(world: World, kind: FaultKind, vm: str) -> None:
    transfer = next((t for t in reversed(world.transfers.values()) if t.plan.vm == vm), None)
    if kind is FaultKind.GUEST_POWERS_OFF:
        _power_off(world, vm, transfer)
    elif kind is FaultKind.SOURCE_DIES:
        _process_ends(world, transfer.plan.source if transfer else _runs_on(world, vm), vm, transfer)
    elif kind is FaultKind.DESTINATION_DIES and transfer:
        _process_ends(world, transfer.plan.destination, vm, transfer)
    elif kind is FaultKind.CALL_FAILS and transfer:
        transfer.break_off("scripted: the call returns an error")
    elif kind is FaultKind.CALL_LIES and transfer:
        transfer.lies = True
    elif kind is FaultKind.STALLS and transfer:
        transfer.stuck = True
    elif kind is FaultKind.DISK_FULL and transfer:
        transfer.fill_up()
    elif kind is FaultKind.BOTH_RUN and transfer:
        transfer.run_both()


def _runs_on(world: World, vm: str) -> str | None:
    return next((h for (h, name), c in world.copies.items() if name == vm and c.state is VmState.RUNNING), None)


def _power_off(world: World, vm: str, transfer: Transfer | None) -> None:
    host = _runs_on(world, vm)
    copy = world.copy(host, vm) if host else None
    if copy is not None:
        copy.ended_by_guest = True
        _process_ends(world, host, vm, transfer)


def _process_ends(world: World, host: str | None, vm: str, transfer: Transfer | None) -> None:
    copy = world.copy(host, vm) if host else None
    if copy is None or not copy.alive:
        return
    if copy.state is VmState.PLANNED:
        world.remove(copy)
    else:
        world.stop(copy, VmState.OFF, "shut down" if copy.ended_by_guest else "crashed")
    if transfer is not None:
        transfer.process_ended(copy.host)
