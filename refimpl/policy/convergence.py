"""When pre-copy has lasted long enough: Hyper-V ends it after a bounded number of passes (semantics 1.2, R8).

At the last pass the switch is forced, whatever is left; or the move is cancelled, where the request sets a limit for
the blackout and what is left would take longer (CancelIfBlackoutThresholdExceeded). Passes bound pre-copy only
as long as anything is sent: a transfer without any progress is broken off (`transfer.stalled`).
"""

from __future__ import annotations

from refimpl.model.decision import Decision, decision
from refimpl.model.errors import Problem, Value
from refimpl.model.events import Event, Kind
from refimpl.model.ledger import Ledger
from refimpl.model.request import Plan, PostCopy
from refimpl.policy.post_copy import may_begin

CANCEL_PATIENCE_MS = 10_000
"""How long passes may go on after a cancel was asked for before it is asked for again."""

MOST_UNHEEDED = 3
"""How often it is asked for again before a person is asked."""


def pass_limit(ledger: Ledger, event: Event) -> Decision | None:
    """Return PASS_LIMIT_REACHED, BLACKOUT_TOO_LONG or POSTCOPY_DUE when as many passes ended as the plan allows."""
    plan = ledger.plan
    if plan is None or event["number"] < plan.pass_limit or ledger.steered:
        return None
    if ledger.blackout_refused:
        return _cancel_again(ledger, event, plan)
    if ledger.post_copy_asked:
        return None
    if plan.post_copy is PostCopy.ON_PASS_LIMIT and may_begin(ledger) and not ledger.post_copy_refused:
        return decision(Kind.POSTCOPY_DUE, why=f"pass limit of {plan.pass_limit} reached")
    limit_ms = plan.cancel_if_blackout_exceeds_ms
    predicted_ms = predicted_blackout_ms(ledger)
    if limit_ms is None or (predicted_ms is not None and predicted_ms <= limit_ms):
        return decision(Kind.PASS_LIMIT_REACHED, passes=ledger.passes)
    return _too_long(ledger, plan)


def _cancel_again(ledger: Ledger, event: Event, plan: Plan) -> Decision | None:
    """Ask once more for a cancel that the passes outlast; UNKNOWN when that was done often enough: they need an end."""
    asked_ns = ledger.cancel_asked_ns
    if asked_ns is not None and event.at_ns - asked_ns < CANCEL_PATIENCE_MS * 1_000_000:
        return None
    if ledger.cancels_unheeded >= MOST_UNHEEDED:
        times = ledger.cancels_unheeded + 1
        return decision(Kind.UNKNOWN, why=f"the transfer goes on after {times} requests to break it off")
    return _too_long(ledger, plan)


def _too_long(ledger: Ledger, plan: Plan) -> Decision:
    predicted_ms = predicted_blackout_ms(ledger)
    values: dict[str, Value] = {
        "vm": plan.vm,
        "limit_ms": plan.cancel_if_blackout_exceeds_ms,
        "predicted_ms": "not known" if predicted_ms is None else round(predicted_ms),
        "passes": ledger.passes,
    }
    return decision(Kind.BLACKOUT_TOO_LONG, problem=Problem("blackout.too_long", values))


def progressed(before: Ledger, after: Ledger) -> bool:
    """Whether the transfer got on in between: something was sent, or a pass ended."""
    return _sent(before) != _sent(after)


def _sent(ledger: Ledger) -> tuple[int | None, ...]:
    return ledger.passes, ledger.sent_so_far_bytes, ledger.disks_sent_bytes


def predicted_blackout_ms(ledger: Ledger) -> float | None:
    """Return how long sending what is left would take at the latest rate; None when either is not known."""
    if ledger.remaining_bytes is None or not ledger.bytes_s:
        return None
    return ledger.remaining_bytes / ledger.bytes_s * 1000


def long_blackout(ledger: Ledger) -> Problem | None:
    """Return the warning that the blackout was longer than expected (event 20417), with both figures."""
    plan = ledger.plan
    if plan is None or ledger.stop_ns is None or ledger.resume_ns is None:
        return None
    limits = (plan.cancel_if_blackout_exceeds_ms, plan.unexpected_blackout_ms)
    known = [limit_ms for limit_ms in limits if limit_ms is not None]
    blackout_ms = (ledger.resume_ns - ledger.stop_ns) / 1e6
    if not known or blackout_ms <= min(known):
        return None
    figures = {"blackout_ms": round(blackout_ms, 1), "limit_ms": min(known), "passes": ledger.passes}
    return Problem("blackout.unexpected", {"vm": plan.vm, **figures})
