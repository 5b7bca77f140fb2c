"""Whether both hosts see the same lease of the VM: at the preparation, and for as long as the transfer lasts.

A lease space that goes away tells nobody. The source keeps its lock; the destination would be refused the lease when
the source has given the VM up, and the VM would stand still. So the file is looked at every second.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from refimpl.backends.libvirt import lease
from refimpl.hosts.channel import HostChannel
from refimpl.model.errors import Problem
from refimpl.model.phase import Side

if TYPE_CHECKING:
    from refimpl.backends.libvirt.operation import Operation

PERIOD_S = 1.0


def problem(operation: Operation) -> Problem | None:
    """Return the problem when the destination does not see the source's lease file, or cannot write to it."""
    reach, plan = operation.reach, operation.plan
    here = lease.seen_at(reach.source_channel, operation.lease)
    try:
        there = lease.seen_at(reach.destination_channel, operation.lease)
    except OSError as error:
        return operation.problem(
            "lease.unreachable", Side.DESTINATION, error, host=plan.destination, path=operation.lease
        )
    if here == there:
        return None
    values = {"vm": plan.vm, "host": plan.destination, "path": operation.lease, "here": here, "there": there}
    return Problem("lease.unshared", values, side=Side.DESTINATION, host=plan.destination)


class LeaseWatch:
    """Calls `gone` with side and reason, in its own thread and once for each side that does not see the lease."""

    def __init__(self, file: str, gone: Callable[[Side, str], None], period_s: float = PERIOD_S) -> None:
        """Watch nothing yet."""
        self._file = file
        self._gone = gone
        self._period_s = period_s
        self._sides: dict[Side, HostChannel] = {}
        self._end = threading.Event()

    def start(self, sides: dict[Side, HostChannel]) -> None:
        """Begin to look, from each of these hosts."""
        self._sides = dict(sides)
        threading.Thread(target=self._look, name="libvirt-lease-watch", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._end.set()

    def _look(self) -> None:
        while self._sides and not self._end.wait(self._period_s):
            for side, channel in list(self._sides.items()):
                why = lease.gone(channel, self._file)
                if why is not None and not self._end.is_set():
                    del self._sides[side]
                    self._gone(side, why)
