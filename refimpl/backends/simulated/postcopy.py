"""Post-copy of a simulated transfer: the VM runs at the destination, and its memory follows (libvirt-qemu 3.4).

The processes on both hosts send and take pages by themselves, whatever becomes of the daemons beside them; a link that
is cut, or a process that ends, breaks it. Then both stand as they are until somebody resumes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from refimpl.backends.simulated.stages import Stage
from refimpl.backends.simulated.worldfile import FaultKind, Moment
from refimpl.model.events import Kind
from refimpl.model.facts import Half, VmState
from refimpl.model.phase import Side

if TYPE_CHECKING:
    from refimpl.backends.simulated.transfer import Transfer
    from refimpl.backends.simulated.world import Copy

SECOND_NS = 1_000_000_000
MS_NS = 1_000_000


class PostCopyPart:
    """The post-copy of one transfer. `wanted`: the switch is to begin it; `left`: bytes that the destination lacks."""

    def __init__(self, transfer: Transfer) -> None:
        self.wanted = False
        self.left = 0
        self._transfer = transfer
        self._broken = False
        self._silent_ns = 0
        self._returned = False

    def half(self, host: str) -> Half | None:
        """How the copy on a host stands; a copy without a process shows nothing."""
        copy = self._transfer.world.copy(host, self._transfer.plan.vm)
        if copy is None or not copy.alive:
            return None
        return Half.BROKEN if self._broken else Half.FLOWS

    def begin(self) -> None:
        """Both halves are there: the destination runs if it gets its lease, and what is left begins to flow."""
        transfer = self._transfer
        source, destination = self._copies()
        transfer.stage = Stage.POST_COPY
        if source is not None and source.alive:
            source.reason = "post-copy"
        transfer.tell(Kind.POSTCOPY_SEEN, Side.SOURCE)
        if destination is not None:
            destination.state, destination.reason = VmState.PAUSED, "post-copy"
        if destination is None or not transfer.world.run(destination):
            self.stop("the destination's copy could not take its lease")
            return
        transfer.ran()
        transfer.world.faults.strike(transfer.plan.vm, Moment.POST_COPY)
        if not self._broken:
            self._flow()

    def stop(self, detail: str) -> None:
        """Stand still until it is resumed; the call returns, and whoever follows is told."""
        if self._broken:
            return
        self._broken = True
        self._transfer.tell(Kind.POSTCOPY_BROKEN, Side.SOURCE, reason=detail)
        self._return(detail)

    def resume(self) -> str | None:
        """Go on; return why not, None when it flows."""
        world, plan = self._transfer.world, self._transfer.plan
        silent = next((h for h in (plan.source, plan.destination) if not world.hosts[h].answers), None)
        if world.faults.asked(FaultKind.RESUME_REFUSED, plan.vm):
            return "scripted: the system does not take it"
        if silent is not None:
            return f"host {silent} does not answer"
        if self._cut():
            return f"no connection to {plan.address}"
        if any(copy is None or not copy.alive for copy in self._copies()):
            return "one of the two copies has no process any more"
        destination = world.copy(plan.destination, plan.vm)
        if destination is not None and destination.state is not VmState.RUNNING:
            if not world.run(destination):
                return "the destination's copy could not take its lease"
            self._transfer.ran()
        self._transfer.stuck = False
        if self._broken:
            self._broken = False
            self._flow()
        return None

    def _copies(self) -> tuple[Copy | None, Copy | None]:
        world, plan = self._transfer.world, self._transfer.plan
        return world.copy(plan.source, plan.vm), world.copy(plan.destination, plan.vm)

    def _cut(self) -> bool:
        world = self._transfer.world
        return world.network_of(self._transfer.plan.address) in world.links_down

    def _flow(self) -> None:
        tick_ns = self._transfer.world.spec.latency_ms.progress * MS_NS
        amount = 0 if self._transfer.stuck else min(self.left, self._transfer.rate * tick_ns // SECOND_NS)
        whole = amount == self.left and not self._transfer.stuck
        span_ns = amount * SECOND_NS // self._transfer.rate + 1 if whole else tick_ns
        self._transfer.later(span_ns, lambda: self._flowed(amount))

    def _flowed(self, amount: int) -> None:
        transfer = self._transfer
        self._daemons_asked()
        if self._cut():
            self.stop(f"no answer over network {transfer.world.network_of(transfer.plan.address)}")
            return
        if any(copy is None or not copy.alive for copy in self._copies()):
            self.stop("the other end has gone")
            return
        self.left -= amount
        transfer.sent += amount
        figures = {"remaining_bytes": self.left, "sent_bytes": transfer.sent, "bytes_s": transfer.rate}
        transfer.tell(Kind.PROGRESS, Side.SOURCE, total_bytes=transfer.memory_bytes(), **figures)
        if self.left:
            self._flow()
            return
        transfer.tell(Kind.POSTCOPY_ENDED, Side.DESTINATION)
        transfer.memory_is_there()

    def _daemons_asked(self) -> None:
        """A daemon that is silent for too long ends the call, and nothing else."""
        transfer = self._transfer
        silent = [h for h in (transfer.plan.source, transfer.plan.destination) if not transfer.world.hosts[h].answers]
        keepalive_ms = transfer.world.spec.latency_ms.keepalive
        self._silent_ns = self._silent_ns + transfer.world.spec.latency_ms.progress * MS_NS if silent else 0
        if self._silent_ns >= keepalive_ms * MS_NS:
            self._return(f"host {silent[0]} does not answer for {keepalive_ms} ms")

    def _return(self, detail: str) -> None:
        if not self._returned:
            self._returned = True
            self._transfer.leave_in_halves(self._transfer.connection_lost(detail))
