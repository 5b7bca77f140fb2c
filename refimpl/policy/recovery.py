"""What a recovery has to do: nothing, look at both hosts, or put in order once more what an ended move left behind."""

from __future__ import annotations

from refimpl.model.decision import Decision, decision
from refimpl.model.events import Event, Kind
from refimpl.model.ledger import Ledger


def recovery(ledger: Ledger, event: Event) -> Decision:
    """Return NOTHING_TOUCHED before the claim: what hosts show now would say nothing about this move."""
    if ledger.left_behind:
        return decision(Kind.TIDY_AGAIN)
    return decision(Kind.LOOK_AGAIN if ledger.claimed else Kind.NOTHING_TOUCHED)
