"""What the end of a lock daemon, or of the way to the lease, means for a move that is under way (handover 3).

Nobody holds the VM's lease from the source's stop to the destination's run, and a host without its lock daemon takes
none. With strict hand-over a source that has lost its lease is no danger: it is bound before the destination runs.
"""

from __future__ import annotations

from collections.abc import Mapping

from refimpl.model.decision import Decision, decision
from refimpl.model.errors import Problem, Value
from refimpl.model.events import Event, Kind
from refimpl.model.ledger import Ledger
from refimpl.model.phase import Side
from refimpl.model.request import HandOver


def lock_daemon_gone(ledger: Ledger, event: Event) -> Decision | None:
    """Return LEASE_UNSAFE when the VM could not run at the destination, or only leases would exclude a second copy."""
    return _unsafe(ledger, event, "lease.unsafe", {})


def lease_space_gone(ledger: Ledger, event: Event) -> Decision | None:
    """Return the same when a host does not see the lease any more: it could not take it."""
    return _unsafe(ledger, event, "lease.space_lost", {"path": event["path"], "detail": event["detail"]})


def _unsafe(ledger: Ledger, event: Event, id: str, more: Mapping[str, Value]) -> Decision | None:
    if ledger.lease_unsafe or (ledger.hand_over is HandOver.STRICT and event.side is not Side.DESTINATION):
        return None
    values = {"vm": ledger.request.vm, "host": event.host, **more}
    return decision(Kind.LEASE_UNSAFE, problem=Problem(id, values, side=event.side, host=event.host))
