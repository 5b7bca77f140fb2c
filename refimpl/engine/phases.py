"""The table: `(phase, event kind) -> (next phase, commands)`. The whole behaviour of a migration by phase is in here.

There are no guards: a number or a piece of evidence becomes a decision event in `refimpl.policy` first. What is not in
the table changes nothing and is only recorded. Diagram, report and tests are made from `TABLE` (ADR 0001).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from refimpl.model.events import Kind as K
from refimpl.model.phase import Phase as P
from refimpl.model.request import CommandKind as C


class Row(NamedTuple):
    """Where an event leads and what is to be done then, in this order."""

    phase: P
    commands: tuple[C, ...] = ()


class Deadline(NamedTuple):
    """How many milliseconds a phase may last, and the error that this is, where it is one.

    `since_progress`: they are counted from the latest progress of the transfer.
    """

    after_ms: int
    error: str | None = None
    since_progress: bool = False


_BEFORE_SWITCH: dict[tuple[P, K], Row] = {
    (P.NEW, K.STARTED): Row(P.CHECK, (C.PROBE,)),
    (P.NEW, K.CANCEL_WISHED): Row(P.CANCELLED),
    (P.CHECK, K.CHECKS_PASSED): Row(P.SETUP, (C.CLAIM,)),
    (P.CHECK, K.CHECKS_REFUSED): Row(P.REFUSED),
    (P.CHECK, K.CANCEL_WISHED): Row(P.CANCELLED),
    (P.CHECK, K.DEADLINE): Row(P.REFUSED),
    (P.SETUP, K.CLAIMED): Row(P.SETUP, (C.OBSERVE,)),
    (P.SETUP, K.CHECKS_PASSED): Row(P.SETUP, (C.RECORD_PENDING,)),
    (P.SETUP, K.PENDING_RECORDED): Row(P.SETUP, (C.PREPARE,)),
    (P.SETUP, K.RECORD_REFUSED): Row(P.REFUSED, (C.RELEASE,)),
    (P.SETUP, K.CHECKS_REFUSED): Row(P.REFUSED, (C.RELEASE,)),
    (P.SETUP, K.CLAIM_REFUSED): Row(P.REFUSED),
    (P.SETUP, K.NEXT_NETWORK): Row(P.SETUP, (C.PREPARE,)),
    (P.SETUP, K.PREPARED): Row(P.SETUP, (C.START_TRANSFER,)),
    (P.SETUP, K.PREPARE_FAILED): Row(P.UNDOING, (C.RECORD_SOURCE,)),
    (P.SETUP, K.NO_NETWORK_LEFT): Row(P.UNDOING, (C.RECORD_SOURCE,)),
    (P.SETUP, K.NATIVE_REFUSAL): Row(P.UNDOING, (C.RECORD_SOURCE,)),
    (P.SETUP, K.STORAGE_SEEN): Row(P.STORAGE),
    (P.SETUP, K.MEMORY_SEEN): Row(P.MEMORY),
    (P.SETUP, K.SWITCH_SEEN): Row(P.SWITCH),
    (P.SETUP, K.DESTINATION_ARRIVED): Row(P.SWITCH, (C.LOOK_FOR_BINDING,)),
    (P.SETUP, K.BANDWIDTH_WISHED): Row(P.SETUP, (C.STEER_BANDWIDTH,)),
    (P.SETUP, K.LEASE_UNSAFE): Row(P.SETUP, (C.REQUEST_CANCEL,)),
    (P.SETUP, K.CANCEL_WISHED): Row(P.SETUP, (C.REQUEST_CANCEL,)),
    (P.SETUP, K.CALL_RETURNED): Row(P.RECONCILE, (C.INSPECT,)),
    (P.SETUP, K.SOURCE_GONE): Row(P.RECONCILE, (C.INSPECT,)),
    (P.SETUP, K.DEADLINE): Row(P.RECONCILE, (C.INSPECT,)),
    (P.STORAGE, K.MEMORY_SEEN): Row(P.MEMORY),
    (P.STORAGE, K.SWITCH_SEEN): Row(P.SWITCH),
    (P.STORAGE, K.DESTINATION_ARRIVED): Row(P.SWITCH, (C.LOOK_FOR_BINDING,)),
    (P.STORAGE, K.BANDWIDTH_WISHED): Row(P.STORAGE, (C.STEER_BANDWIDTH,)),
    (P.STORAGE, K.LEASE_UNSAFE): Row(P.STORAGE, (C.REQUEST_CANCEL,)),
    (P.STORAGE, K.CANCEL_WISHED): Row(P.STORAGE, (C.REQUEST_CANCEL,)),
    (P.STORAGE, K.CALL_RETURNED): Row(P.RECONCILE, (C.INSPECT,)),
    (P.STORAGE, K.SOURCE_GONE): Row(P.RECONCILE, (C.INSPECT,)),
    (P.STORAGE, K.DEADLINE): Row(P.RECONCILE, (C.REQUEST_CANCEL, C.INSPECT)),
    (P.MEMORY, K.PASS_LIMIT_REACHED): Row(P.MEMORY, (C.STEER_SWITCH,)),
    (P.MEMORY, K.BLACKOUT_TOO_LONG): Row(P.MEMORY, (C.REQUEST_CANCEL,)),
    (P.MEMORY, K.LEASE_UNSAFE): Row(P.MEMORY, (C.REQUEST_CANCEL,)),
    (P.MEMORY, K.POSTCOPY_DUE): Row(P.MEMORY, (C.RECORD_POSTCOPY,)),
    (P.MEMORY, K.POSTCOPY_RECORDED): Row(P.MEMORY, (C.START_POSTCOPY,)),
    (P.MEMORY, K.POSTCOPY_NOT_STARTED): Row(P.MEMORY, (C.RECORD_PENDING,)),
    (P.MEMORY, K.POSTCOPY_SEEN): Row(P.POSTCOPY),
    (P.MEMORY, K.BANDWIDTH_WISHED): Row(P.MEMORY, (C.STEER_BANDWIDTH,)),
    (P.MEMORY, K.SWITCH_SEEN): Row(P.SWITCH),
    (P.MEMORY, K.DESTINATION_ARRIVED): Row(P.SWITCH, (C.LOOK_FOR_BINDING,)),
    (P.MEMORY, K.CANCEL_WISHED): Row(P.MEMORY, (C.REQUEST_CANCEL,)),
    (P.MEMORY, K.CALL_RETURNED): Row(P.RECONCILE, (C.INSPECT,)),
    (P.MEMORY, K.SOURCE_GONE): Row(P.RECONCILE, (C.INSPECT,)),
    (P.MEMORY, K.DEADLINE): Row(P.RECONCILE, (C.REQUEST_CANCEL, C.INSPECT)),
}

_FROM_SWITCH: dict[tuple[P, K], Row] = {
    (P.SWITCH, K.DESTINATION_ARRIVED): Row(P.SWITCH, (C.LOOK_FOR_BINDING,)),
    (P.SWITCH, K.SOURCE_BOUND): Row(P.COMMITTED, (C.RECORD_COMMIT,)),
    (P.SWITCH, K.SOURCE_SILENT): Row(P.SWITCH, (C.END_SOURCE,)),
    (P.SWITCH, K.POSTCOPY_SEEN): Row(P.POSTCOPY),
    (P.SWITCH, K.CALL_RETURNED): Row(P.RECONCILE, (C.INSPECT,)),
    (P.SWITCH, K.SOURCE_GONE): Row(P.RECONCILE, (C.INSPECT,)),
    (P.SWITCH, K.DEADLINE): Row(P.RECONCILE, (C.INSPECT,)),
    (P.COMMITTED, K.COMMIT_RECORDED): Row(P.COMMITTED, (C.ALLOW_RUN,)),
    (P.COMMITTED, K.RECORD_REFUSED): Row(P.INDETERMINATE),
    (P.COMMITTED, K.DESTINATION_RAN): Row(P.COMMITTED, (C.ADOPT,)),
    (P.COMMITTED, K.LEFT_PAUSED): Row(P.COMMITTED, (C.ADOPT,)),
    (P.COMMITTED, K.RUN_REFUSED): Row(P.RECONCILE, (C.INSPECT,)),
    (P.COMMITTED, K.CALL_RETURNED): Row(P.RECONCILE, (C.INSPECT,)),
    (P.COMMITTED, K.DEADLINE): Row(P.RECONCILE, (C.INSPECT,)),
    (P.POSTCOPY, K.BANDWIDTH_WISHED): Row(P.POSTCOPY, (C.STEER_BANDWIDTH,)),
    (P.POSTCOPY, K.POSTCOPY_BROKEN): Row(P.RECONCILE, (C.INSPECT,)),
    (P.POSTCOPY, K.POSTCOPY_NOT_RESUMED): Row(P.RECONCILE, (C.INSPECT,)),
    (P.POSTCOPY, K.CALL_RETURNED): Row(P.RECONCILE, (C.INSPECT,)),
    (P.POSTCOPY, K.DEADLINE): Row(P.RECONCILE, (C.INSPECT,)),
    (P.RECONCILE, K.JOB_STILL_RUNS): Row(P.RECONCILE, (C.ADOPT,)),
    (P.RECONCILE, K.ADOPTED_STORAGE): Row(P.STORAGE, (C.STEER_BANDWIDTH,)),
    (P.RECONCILE, K.ADOPTED_MEMORY): Row(P.MEMORY, (C.STEER_BANDWIDTH,)),
    (P.RECONCILE, K.ADOPTED_SWITCH): Row(P.SWITCH),
    (P.RECONCILE, K.ADOPTED_POSTCOPY): Row(P.POSTCOPY, (C.STEER_BANDWIDTH,)),
    (P.RECONCILE, K.POSTCOPY_RECOVERABLE): Row(P.POSTCOPY, (C.RECOVER_POSTCOPY,)),
    (P.RECONCILE, K.POSTCOPY_PENDING): Row(P.POSTCOPY_PAUSED),
    (P.RECONCILE, K.POSTCOPY_LOST): Row(P.SETTLING, (C.END_HALVES,)),
    (P.RECONCILE, K.CALL_RETURNED): Row(P.RECONCILE, (C.INSPECT,)),
    (P.RECONCILE, K.SOURCE_BOUND): Row(P.COMMITTED, (C.RECORD_COMMIT,)),
    (P.RECONCILE, K.SOURCE_SILENT): Row(P.RECONCILE, (C.END_SOURCE,)),
    (P.RECONCILE, K.SOURCE_ENDED): Row(P.RECONCILE, (C.INSPECT,)),
    (P.RECONCILE, K.SOURCE_NOT_ENDED): Row(P.RECONCILE, (C.WAIT_TO_LOOK,)),
    (P.RECONCILE, K.SOURCE_OWNS): Row(P.UNDOING, (C.RECORD_SOURCE,)),
    (P.RECONCILE, K.GUEST_ENDED): Row(P.UNDOING, (C.RECORD_SOURCE,)),
    (P.RECONCILE, K.DESTINATION_OWNS): Row(P.CLEANUP, (C.RECORD_DESTINATION,)),
    (P.RECONCILE, K.BOTH_RAN): Row(P.SETTLING, (C.RECORD_DESTINATION,)),
    (P.RECONCILE, K.MEMORY_GONE): Row(P.SETTLING, (C.RECORD_SOURCE,)),
    (P.RECONCILE, K.HOST_SILENT): Row(P.RECONCILE, (C.WAIT_TO_LOOK,)),
    (P.RECONCILE, K.LOOK_DUE): Row(P.RECONCILE, (C.INSPECT,)),
    (P.RECONCILE, K.UNKNOWN): Row(P.INDETERMINATE),
    (P.RECONCILE, K.DEADLINE): Row(P.INDETERMINATE),
    (P.UNDOING, K.SOURCE_RECORDED): Row(P.UNDOING, (C.SETTLE_SOURCE,)),
    (P.UNDOING, K.SETTLED): Row(P.UNDOING, (C.CLEAN_UP_UNDONE,)),
    (P.UNDOING, K.UNDONE_REFUSED): Row(P.REFUSED, (C.RELEASE,)),
    (P.UNDOING, K.UNDONE_FAILED): Row(P.FAILED, (C.RELEASE,)),
    (P.UNDOING, K.UNDONE_CANCELLED): Row(P.CANCELLED, (C.RELEASE,)),
    (P.SETTLING, K.HALVES_ENDED): Row(P.SETTLING, (C.RECORD_SOURCE,)),
    (P.SETTLING, K.SOURCE_RECORDED): Row(P.SETTLING, (C.SETTLE_SOURCE,)),
    (P.SETTLING, K.DESTINATION_RECORDED): Row(P.SETTLING, (C.SETTLE_DESTINATION,)),
    (P.SETTLING, K.SETTLED): Row(P.SETTLING, (C.CLEAN_UP,)),
    (P.SETTLING, K.SETTLED_LOST): Row(P.LOST, (C.RELEASE,)),
    (P.SETTLING, K.SETTLED_DUAL_RUN): Row(P.DUAL_RUN, (C.RELEASE,)),
    (P.CLEANUP, K.DESTINATION_RECORDED): Row(P.CLEANUP, (C.SETTLE_DESTINATION,)),
    (P.CLEANUP, K.SETTLED): Row(P.CLEANUP, (C.CLEAN_UP_MOVED,)),
    (P.CLEANUP, K.FINISHED): Row(P.COMPLETED, (C.RELEASE,)),
    (P.CLEANUP, K.FINISHED_WITH_WARNINGS): Row(P.COMPLETED_WITH_WARNINGS, (C.RELEASE,)),
}

_AFTER_SWITCH = (P.SWITCH, P.COMMITTED, P.POSTCOPY, P.RECONCILE, P.UNDOING, P.SETTLING, P.CLEANUP)

_RECOVERABLE = (P.SETUP, P.STORAGE, P.MEMORY, *_AFTER_SWITCH, P.INDETERMINATE, P.POSTCOPY_PAUSED)

TABLE: Mapping[tuple[P, K], Row] = {
    **_BEFORE_SWITCH,
    **_FROM_SWITCH,
    **{(phase, K.CANCEL_WISHED): Row(phase, (C.ANSWER_TOO_LATE,)) for phase in _AFTER_SWITCH},
    **{(phase, K.CANNOT_SETTLE): Row(P.INDETERMINATE) for phase in (P.UNDOING, P.SETTLING, P.CLEANUP)},
    **{(phase, K.RECORD_REFUSED): Row(P.INDETERMINATE) for phase in (P.UNDOING, P.SETTLING, P.CLEANUP)},
    **{(phase, K.DEADLINE): Row(P.INDETERMINATE) for phase in (P.UNDOING, P.SETTLING, P.CLEANUP)},
    **{(phase, K.LOOK_AGAIN): Row(P.RECONCILE, (C.INSPECT,)) for phase in _RECOVERABLE},
    **{(phase, K.NOTHING_TOUCHED): Row(P.FAILED) for phase in (P.NEW, P.CHECK)},
    (P.SETUP, K.NOTHING_TOUCHED): Row(P.FAILED, (C.RELEASE,)),
    **{(phase, K.TIDY_AGAIN): Row(P.UNDOING, (C.SETTLE_SOURCE,)) for phase in (P.REFUSED, P.FAILED, P.CANCELLED)},
    (P.COMPLETED_WITH_WARNINGS, K.TIDY_AGAIN): Row(P.CLEANUP, (C.SETTLE_DESTINATION,)),
}

DEADLINES: Mapping[P, Deadline] = {
    P.CHECK: Deadline(60_000, "check.timeout"),
    P.SETUP: Deadline(180_000),
    P.STORAGE: Deadline(60_000, "transfer.stalled", since_progress=True),
    P.MEMORY: Deadline(60_000, "transfer.stalled", since_progress=True),
    P.SWITCH: Deadline(60_000),
    P.COMMITTED: Deadline(60_000),
    P.POSTCOPY: Deadline(60_000, "post_copy.stalled", since_progress=True),
    P.RECONCILE: Deadline(120_000, "owner.silent"),
    P.UNDOING: Deadline(120_000, "settle.failed"),
    P.SETTLING: Deadline(120_000, "settle.failed"),
    P.CLEANUP: Deadline(120_000, "settle.failed"),
}
"""How long a phase may last before the clock says so; MEMORY is bounded by passes as long as anything is sent,
STORAGE by the size of the disks, as what the guest writes meanwhile goes to both of them, POSTCOPY by that of the
memory, as every page is sent once."""

LOOK_AGAIN_MS = 1000
"""How long to wait before both hosts are looked at again when one did not answer."""

QUIET = frozenset({P.SWITCH})
"""Phases in which nothing is flushed to disk but the commit record: the VM stands still (rule 6)."""
