"""How a migration ends once both hosts are in order: by who owns the VM and by what was asked and seen before."""

from __future__ import annotations

from refimpl.model.decision import Decision, decision
from refimpl.model.events import Event, Kind
from refimpl.model.ledger import Ledger
from refimpl.policy.convergence import long_blackout

_SETTLED = {Kind.BOTH_RAN: Kind.SETTLED_DUAL_RUN, Kind.MEMORY_GONE: Kind.SETTLED_LOST}


def closing(ledger: Ledger, event: Event) -> Decision | None:
    """Return the end that fits; without a verdict on the owner the source was never left."""
    if ledger.owner in _SETTLED:
        return decision(_SETTLED[ledger.owner])
    if ledger.owner is Kind.DESTINATION_OWNS:
        long = long_blackout(ledger)
        warnings = (*ledger.warnings, long) if long else ledger.warnings
        return decision(Kind.FINISHED_WITH_WARNINGS, warnings=warnings) if warnings else decision(Kind.FINISHED)
    if ledger.refused:
        return decision(Kind.UNDONE_REFUSED)
    if ledger.cancel_accepted and ledger.cancel_wished and ledger.owner is not Kind.GUEST_ENDED:
        return decision(Kind.UNDONE_CANCELLED)
    return decision(Kind.UNDONE_FAILED)
