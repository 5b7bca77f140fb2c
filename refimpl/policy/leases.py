"""What the end of a lock daemon means for a move that is under way (handover 3).

Nobody holds the VM's lease from the source's stop to the destination's run, and a host without its lock daemon takes
none. With strict hand-over a source that has lost its lease is no danger: it is bound before the destination runs.
"""

from __future__ import annotations

from refimpl.model.decision import Decision, decision
from refimpl.model.errors import Problem
from refimpl.model.events import Event, Kind
from refimpl.model.ledger import Ledger
from refimpl.model.phase import Side
from refimpl.model.request import HandOver


def lock_daemon_gone(ledger: Ledger, event: Event) -> Decision | None:
    """Return LEASE_UNSAFE when the VM could not run at the destination, or only leases would exclude a second copy."""
    if ledger.lease_unsafe or (ledger.hand_over is HandOver.STRICT and event.side is not Side.DESTINATION):
        return None
    values = {"vm": ledger.request.vm, "host": event.host}
    return decision(Kind.LEASE_UNSAFE, problem=Problem("lease.unsafe", values, side=event.side, host=event.host))
