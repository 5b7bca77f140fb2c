"""The disks of a simulated transfer: copied before the memory, and kept the same on both sides from then on (R3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from refimpl.backends.simulated.worldfile import Moment
from refimpl.model.events import Kind
from refimpl.model.phase import Side

if TYPE_CHECKING:
    from refimpl.backends.simulated.transfer import Transfer

SECOND_NS = 1_000_000_000
MS_NS = 1_000_000


class Mirror:
    """Copies all disks of one transfer; what the guest writes meanwhile goes to both sides, so that one pass is all."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._total = self._left = 0

    def begin(self) -> None:
        """Copy, and then let the transfer copy the memory."""
        transfer = self._transfer
        transfer.tell(Kind.STORAGE_SEEN, Side.SOURCE)
        disks = transfer.plan.storage.disks if transfer.plan.storage else ()
        self._total = self._left = sum(disk.virtual_size_bytes for disk in disks)
        transfer.world.faults.strike(transfer.plan.vm, Moment.STORAGE)
        self._copy()

    def _copy(self) -> None:
        transfer = self._transfer
        if not transfer.open:
            return
        tick_ns = transfer.world.spec.latency_ms.progress * MS_NS
        amount = 0 if transfer.stuck else min(self._left, transfer.rate * tick_ns // SECOND_NS)
        span_ns = amount * SECOND_NS // transfer.rate + 1 if amount else tick_ns
        transfer.later(span_ns, lambda: self._copied(amount))

    def _copied(self, amount: int) -> None:
        transfer = self._transfer
        self._left -= amount
        transfer.tell(
            Kind.PROGRESS,
            Side.SOURCE,
            bytes_s=transfer.rate,
            disks_total_bytes=self._total,
            disks_remaining_bytes=self._left,
            disks_sent_bytes=self._total - self._left,
        )
        if self._left:
            self._copy()
        else:
            transfer.world.disks.mirrored(transfer.plan, whole=True)
            transfer.begin_memory()
