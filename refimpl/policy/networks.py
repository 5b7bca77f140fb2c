"""Which migration network carries the move: in order of priority, the next one when one does not connect (R13)."""

from __future__ import annotations

from dataclasses import replace

from refimpl.model.decision import Decision, decision
from refimpl.model.errors import Problem
from refimpl.model.events import Event, Kind
from refimpl.model.ledger import Ledger


def next_network(ledger: Ledger, event: Event) -> Decision | None:
    """Return NEXT_NETWORK with the plan moved on, or NO_NETWORK_LEFT with what was tried."""
    plan = ledger.plan
    if plan is None:
        return None
    if plan.network + 1 < len(plan.networks):
        return decision(Kind.NEXT_NETWORK, plan=replace(plan, network=plan.network + 1))
    cause: Problem | None = event["problem"]
    problem = Problem(
        id="network.no_connection",
        values={"host": plan.destination, "tried": ", ".join(ledger.networks_tried)},
        native=cause.native if cause else None,
        side=cause.side if cause else None,
        host=cause.host if cause else None,
    )
    return decision(Kind.NO_NETWORK_LEFT, problem=problem)
