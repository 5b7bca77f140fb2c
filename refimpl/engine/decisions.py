"""Which pure function turns which fact into a decision: the only list of policies that the conductor knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from refimpl.checks.judge import judge
from refimpl.model.decision import Decision
from refimpl.model.events import Event, Kind
from refimpl.model.ledger import Ledger
from refimpl.policy.closing import closing
from refimpl.policy.convergence import pass_limit
from refimpl.policy.leases import lease_space_gone, lock_daemon_gone
from refimpl.policy.networks import next_network
from refimpl.policy.post_copy import not_started, wished
from refimpl.policy.reconciliation import bound, found_running, reconcile
from refimpl.policy.recovery import recovery

POLICIES: Mapping[Kind, Callable[[Ledger, Event], Decision | None]] = {
    Kind.RECOVER_WISHED: recovery,
    Kind.FACTS_SEEN: judge,
    Kind.PASS_ENDED: pass_limit,
    Kind.POSTCOPY_WISHED: wished,
    Kind.MEMORY_SEEN: wished,
    Kind.ADOPTED_MEMORY: wished,
    Kind.NOT_STEERABLE: not_started,
    Kind.NETWORK_FAILED: next_network,
    Kind.LOCK_DAEMON_GONE: lock_daemon_gone,
    Kind.LEASE_SPACE_GONE: lease_space_gone,
    Kind.BINDING_SEEN: bound,
    Kind.EVIDENCE_SEEN: reconcile,
    Kind.SOURCE_FOUND_RUNNING: found_running,
    Kind.CLEANED: closing,
    Kind.LEFT_BEHIND: closing,
}


def decide(ledger: Ledger, event: Event, now_ns: int) -> Event | None:
    """Return the decision event that follows from an event, if one does."""
    policy = POLICIES.get(event.kind)
    made = policy(ledger, event) if policy else None
    return Event(made.kind, now_ns, made.values) if made else None
