"""When pre-copy has lasted long enough: Hyper-V ends it after a bounded number of passes (semantics 1.2, R8)."""

from __future__ import annotations

from refimpl.model.decision import Decision, decision
from refimpl.model.events import Event, Kind
from refimpl.model.ledger import Ledger


def pass_limit(ledger: Ledger, event: Event) -> Decision | None:
    """Return PASS_LIMIT_REACHED when as many passes have ended as the request allows, until the switch was forced."""
    due = event["number"] >= ledger.request.pass_limit and not ledger.steered
    return decision(Kind.PASS_LIMIT_REACHED, passes=ledger.passes) if due else None
