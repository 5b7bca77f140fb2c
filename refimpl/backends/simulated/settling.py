"""How the simulated backend puts two hosts in order: keep one copy, remove the other, take the marks off.

It removes only what carries the operation's mark or is the plan's own source, never a look-alike of the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from refimpl.backends.simulated.stages import Stage
from refimpl.backends.simulated.transfer import Transfer
from refimpl.backends.simulated.world import PAUSED_BY_SYSTEM, Copy, World
from refimpl.backends.simulated.worldfile import FaultKind
from refimpl.model.errors import Problem
from refimpl.model.events import Kind
from refimpl.model.facts import VmState
from refimpl.model.ownership import OwnerRecord
from refimpl.model.phase import Side
from refimpl.model.request import Command, CommandKind, Plan

if TYPE_CHECKING:
    from refimpl.backends.simulated.backend import SimulatedBackend

WAIT_MS = 50
"""How often an open job is looked at again, milliseconds."""


class Settling:
    """The commands SETTLE_SOURCE, SETTLE_DESTINATION and CLEAN_UP of one backend object."""

    def __init__(self, backend: SimulatedBackend) -> None:
        self._backend = backend

    @property
    def _world(self) -> World:
        return self._backend.world

    def keep_source(self, command: Command, plan: Plan, waited_ms: int = 0) -> None:
        """SETTLE_SOURCE: remove the destination's copy, then resume the source if its system paused it."""
        transfer = self._world.transfers.get(command.operation)
        if transfer is not None and transfer.open:
            transfer.cancel()
            self._wait(self.keep_source, command, plan, waited_ms)
            return
        refusal = self._why_not_source(command, plan)
        if refusal:
            self._cannot(command, plan, refusal)
        else:
            self._backend.say(Kind.SETTLED)

    def _why_not_source(self, command: Command, plan: Plan) -> str | None:
        """Do it, or say why not."""
        source, destination = self._sides(plan)
        there = self._world.hosts[plan.destination].answers
        if self._world.faults.asked(FaultKind.SETTLE_FAILS, plan.vm):
            return "scripted: it cannot be settled"
        if plan.source in command.fenced:
            return self._none_is_left(command, plan, destination)
        if not self._world.hosts[plan.source].answers or (source is not None and source.stopped):
            return f"host {plan.source} does not answer"
        if command.source_older:
            return self._why_not_without_source(source, destination, plan)
        stands = source is not None and source.state is VmState.PAUSED and source.reason in PAUSED_BY_SYSTEM
        if not there and plan.destination not in command.fenced:
            return f"host {plan.destination} does not answer" if stands else None
        if source is None and not there:
            self._define(command, plan, plan.source)
        if there and destination is not None and destination.operation == command.operation:
            if destination.state is VmState.RUNNING:
                return "the destination's copy runs"
            waits = destination.state is VmState.PAUSED and plan.vm_state is not VmState.OFF
            if source is None or (waits and not source.alive):
                # The last definition of the VM is never removed, nor what alone still has its memory.
                return "the destination's copy is the only one" if destination.alive else None
            self._world.remove(destination)
        known = command.ownership.epoch if command.ownership else 0
        if source is not None and stands and source.epoch > known:
            return f"the source's copy carries epoch {source.epoch} of the owner record, this operation knows {known}"
        if source is not None and stands and not self._world.run(source):
            return "the source's copy cannot take its lease"
        return None

    def end_halves(self, command: Command, plan: Plan) -> None:
        """END_HALVES: one of two halves is gone, so end the other; the definition stays at the source."""
        transfer = self._world.transfers.get(command.operation)
        source, destination = self._sides(plan)
        here, there = (copy is not None and copy.alive for copy in (source, destination))
        silent = next((h for h in (plan.source, plan.destination) if not self._world.hosts[h].answers), None)
        if self._world.faults.asked(FaultKind.SETTLE_FAILS, plan.vm):
            self._cannot(command, plan, "scripted: it cannot be settled")
        elif silent is not None:
            self._cannot(command, plan, f"host {silent} does not answer")
        elif transfer is None or (here and there) or not (transfer.open and transfer.stage is Stage.POST_COPY):
            self._cannot(command, plan, "the two copies are not seen to be halves of which one is gone")
        else:
            if source is not None:
                self._world.stop(source, VmState.OFF, "the other half was gone")
            if destination is not None and source is not None:
                self._world.remove(destination)
            transfer.end_in_halves()
            self._backend.say(Kind.HALVES_ENDED)

    def _why_not_without_source(self, source: Copy | None, destination: Copy | None, plan: Plan) -> str | None:
        """End a source that is older than what ran at the destination, or say why not."""
        if not self._world.hosts[plan.destination].answers:
            return f"host {plan.destination} does not answer"
        if source is not None and destination is not None:
            self._world.remove(source)
        elif source is not None and source.alive:
            self._world.stop(source, VmState.OFF, "older")
        return None

    def _none_is_left(self, command: Command, plan: Plan, destination: Copy | None) -> str | None:
        """The memory went with a source that was cut off: what waits at the destination is older."""
        if destination is not None:
            if destination.state is VmState.RUNNING or destination.operation != command.operation:
                return "the destination's copy runs, or is not of this operation"
            self._world.remove(destination)
        self._define(command, plan, plan.destination)
        return None

    def _define(self, command: Command, plan: Plan, host: str) -> None:
        """Store the definition on the host that owns the VM now."""
        vm = self._world.vm(plan.vm)
        if vm is not None and command.ownership is not None and command.ownership.owner == host:
            self._world.define(host, vm, command.operation, plan)

    def keep_destination(self, command: Command, plan: Plan, waited_ms: int = 0) -> None:
        """SETTLE_DESTINATION: remove the source's copy, once the destination's is seen to be what the VM was."""
        transfer = self._world.transfers.get(command.operation)
        if transfer is not None and transfer.stage is Stage.BOUND:
            self._wait(self.keep_destination, command, plan, waited_ms)
            return
        source, destination = self._sides(plan)
        there = destination is not None and destination.state in (VmState.RUNNING, plan.vm_state)
        if self._world.faults.asked(FaultKind.SETTLE_FAILS, plan.vm):
            self._cannot(command, plan, "scripted: it cannot be settled")
        elif not self._world.hosts[plan.destination].answers or not (there or self._source_is_gone(plan)):
            self._cannot(command, plan, f"the destination's copy is not seen to be {plan.vm_state}")
        elif plan.source not in command.fenced and self._source_may_run(command, plan, transfer):
            self._cannot(command, plan, f"host {plan.source} does not answer, and its copy may run again")
        else:
            if source is not None and self._world.hosts[plan.source].answers:
                if source.state is VmState.RUNNING and there:
                    self._backend.say(Kind.SOURCE_FOUND_RUNNING, Side.SOURCE, plan.source)
                self._world.remove(source)
            self._backend.say(Kind.SETTLED)

    def _source_is_gone(self, plan: Plan) -> bool:
        """Whether the source shows no copy: then there is none to remove, whatever became of the destination's."""
        return self._world.hosts[plan.source].answers and self._world.copy(plan.source, plan.vm) is None

    def _source_may_run(self, command: Command, plan: Plan, transfer: Transfer | None) -> bool:
        ended = self._backend.source_is_ended(command.operation, plan)
        return not ended and self._source_may_run_again(plan, transfer)

    def _source_may_run_again(self, plan: Plan, transfer: Transfer | None) -> bool:
        """Whether a source that does not answer is a danger: neither bound nor kept from running by the lease."""
        vm = self._world.vm(plan.vm)
        bound = transfer is not None and transfer.result is not None and transfer.result.ok
        leased = vm is not None and vm.lease and self._world.holds_lease(plan.destination, vm)
        return not (self._world.hosts[plan.source].answers or bound or leased)

    def clean_up(self, command: Command, plan: Plan) -> None:
        """CLEAN_UP and its kin: take off the marks, remove planned VMs and files, name what could not be removed."""
        left: list[str] = []
        kept: list[str] = []
        for host in (plan.source, plan.destination):
            copy = self._world.copy(host, plan.vm)
            if not self._world.hosts[host].answers:
                left.append(f"whatever carries {command.operation} on host {host}, which does not answer")
                continue
            if self._world.faults.asked(FaultKind.LEAVES_BEHIND, plan.vm, host=host):
                left.append(f"mark of {command.operation} on host {host}")
                continue
            if copy is not None and copy.operation in (None, command.operation):
                self._take_off(copy, command.ownership)
                stays = command.ownership is not None and command.ownership.owner == copy.host == plan.source
                copy.autostart = plan.autostart and stays
            kept += self._files(command, plan, host, left)
        self._world.cancelled.discard(command.operation)
        if left:
            self._backend.say(Kind.LEFT_BEHIND, items=tuple(left), kept=tuple(kept))
        else:
            self._backend.say(Kind.CLEANED, kept=tuple(kept))

    def _files(self, command: Command, plan: Plan, host: str, left: list[str]) -> list[str]:
        """Do with the files of disks on a host what the command says; return those that the plan keeps."""
        disks = self._world.disks
        if command.kind is CommandKind.CLEAN_UP_MOVED:
            if host == plan.destination:
                disks.adopt(command.operation, plan)
            else:
                disks.retire(plan)
        elif host == plan.destination and command.kind is CommandKind.CLEAN_UP_UNDONE:
            return disks.undo(command.operation, plan)
        elif host == plan.destination:
            left += disks.made_by(command.operation, plan)
        return []

    def _take_off(self, copy: Copy, ownership: OwnerRecord | None) -> None:
        if copy.state is VmState.PLANNED:
            self._world.remove(copy)
        if ownership is not None and ownership.owner == copy.host:
            copy.epoch = max(copy.epoch, ownership.epoch)
        copy.operation, copy.plan = None, None

    def _sides(self, plan: Plan) -> tuple[Copy | None, Copy | None]:
        return self._world.copy(plan.source, plan.vm), self._world.copy(plan.destination, plan.vm)

    def _wait(self, again: Callable[[Command, Plan, int], None], command: Command, plan: Plan, waited_ms: int) -> None:
        """Look again while the system's own job is still open, as long as its keepalive allows."""
        if waited_ms > 2 * self._world.spec.latency_ms.keepalive:
            self._cannot(command, plan, "the system's own job is still open")
            return
        self._backend.later(WAIT_MS * 1_000_000, lambda: again(command, plan, waited_ms + WAIT_MS))

    def _cannot(self, command: Command, plan: Plan, detail: str) -> None:
        values = {"vm": plan.vm, "operation": command.operation, "detail": detail}
        self._backend.say(Kind.CANNOT_SETTLE, problem=Problem(id="settle.failed", values=values))
