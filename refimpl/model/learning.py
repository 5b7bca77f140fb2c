"""What each event adds to the ledger: pure functions, one for each kind that says something lasting.

`record` is the only door. It knows no phase but to note it in problems, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from refimpl.model.errors import Problem
from refimpl.model.events import Event, Kind
from refimpl.model.facts import Evidence
from refimpl.model.ledger import Ledger
from refimpl.model.phase import Phase, Side
from refimpl.model.request import Steer, VmState


def record(ledger: Ledger, event: Event, phase: Phase) -> Ledger:
    """Return the ledger with one more event in it. `phase` is only noted in problems, for the user."""
    fold = _FOLDS.get(event.kind)
    if fold is not None:
        ledger = fold(ledger, event)
    problem = event.values.get("problem")
    if problem is not None and event.kind not in _HARMLESS and not _only_broken_off(ledger, problem):
        ledger = _blame(ledger, problem)
    unplaced = tuple(p if p.phase else replace(p, phase=phase) for p in ledger.problems)
    return replace(ledger, problems=unplaced) if unplaced != ledger.problems else ledger


_HARMLESS = frozenset({Kind.NETWORK_FAILED, Kind.JOURNAL_LOST})
"""Kinds whose problem is no reason to end: a policy decides, or it is a warning."""


def _only_broken_off(ledger: Ledger, problem: Problem) -> bool:
    """Whether a problem says that the transfer was cancelled although nobody wished it: there is a better reason."""
    by_itself = ledger.stalls > 0 or ledger.lease_unsafe
    return problem.id == "transfer.cancelled" and by_itself and not ledger.cancel_wished


def _blame(ledger: Ledger, problem: Problem) -> Ledger:
    return ledger if problem in ledger.problems else replace(ledger, problems=(*ledger.problems, problem))


def _blame_id(id: str, **names: str) -> Callable[[Ledger, Event], Ledger]:
    """Make a fold that adds a problem, its `detail` taken from the decision's `why`, and notes the owner decided."""

    def fold(ledger: Ledger, event: Event) -> Ledger:
        plan = ledger.plan
        values = {
            "vm": ledger.request.vm,
            "operation": ledger.operation,
            "source": plan.source if plan else None,
            "kept": plan.destination if plan else None,
            "detail": event.values.get("why"),
        }
        ledger = replace(ledger, owner=event.kind)
        return _blame(ledger, Problem(id=id, values=values))

    return fold


def _started(ledger: Ledger, event: Event) -> Ledger:
    return replace(ledger, started_ns=event.at_ns)


def _look_again(ledger: Ledger, _: Event) -> Ledger:
    """Start anew without the problems of before. What was asked of the transfer may never have reached it."""
    known = replace(_judged_anew(ledger), interrupted=True, problems=())
    anew = replace(known, run_refusals=0, looks=0, silent_looks=0, stalls=0, cancel_asked_ns=None, cancels_unheeded=0)
    anew = replace(anew, post_copy_asked=False, post_copy_refused=False, post_copy_recoveries=0)
    return replace(anew, steered=False, blackout_refused=False, lease_unsafe=False, ends_source=False)


def _nothing_touched(ledger: Ledger, _: Event) -> Ledger:
    return _interrupted(replace(ledger, interrupted=True, problems=()))


def _tidy_again(ledger: Ledger, _: Event) -> Ledger:
    return replace(_judged_anew(ledger), left_behind=(), warnings=_but(ledger.warnings, "cleanup.left_behind"))


def _judged_anew(ledger: Ledger) -> Ledger:
    """Forget that the source's copy is an older one: what is there by now may have been started since."""
    return replace(ledger, source_older=False)


def _interrupted(ledger: Ledger) -> Ledger:
    source = ledger.plan.source if ledger.plan else ledger.request.source
    return _blame(ledger, Problem(id="operation.interrupted", values={"vm": ledger.request.vm, "source": source}))


def _refused(ledger: Ledger, _: Event) -> Ledger:
    return replace(ledger, refused=True)


def _checks_refused(ledger: Ledger, event: Event) -> Ledger:
    return replace(ledger, refused=True, problems=(*ledger.problems, *event["problems"]))


def _planned(ledger: Ledger, event: Event) -> Ledger:
    return replace(ledger, plan=event["plan"])


def _checks_passed(ledger: Ledger, event: Event) -> Ledger:
    """Note plan and warnings. The checks are made again under the claim: the later figures of a warning count."""
    fresh = event["warnings"] or ()
    others = tuple(w for w in ledger.warnings if w.id not in {f.id for f in fresh})
    return replace(_planned(ledger, event), warnings=(*others, *fresh))


def _binding_seen(ledger: Ledger, event: Event) -> Ledger:
    return replace(ledger, source_ran_on=True) if event["bound"] is False else ledger


def _source_ended(ledger: Ledger, event: Event) -> Ledger:
    """Note that the copy of a silent source was ended by its process: whoever looks after that host must know."""
    values = {"vm": ledger.request.vm, "host": event.host, "operation": ledger.operation}
    ended = Problem("source.ended", values, side=Side.SOURCE, host=event.host)
    return replace(ledger, ends_source=False, warnings=(*_but(ledger.warnings, ended.id), ended))


def _fenced(ledger: Ledger, event: Event) -> Ledger:
    """Note that a host was cut off: that, and by what it is proved, whoever looks after it must know."""
    values = {"vm": ledger.request.vm, "host": event.host, "operation": ledger.operation, "detail": event["proof"]}
    done = Problem("fence.done", values, side=event.side, host=event.host)
    stood = ledger.stood if event["stood"] is None else event["stood"]
    known = (*(host for host in ledger.fenced if host != event.host), event.host or "")
    return replace(ledger, fenced=known, to_fence=None, stood=stood, warnings=(*_but(ledger.warnings, done.id), done))


def _recover_wished(ledger: Ledger, event: Event) -> Ledger:
    """A host that was cut off may be on again by now. How its copy stood when it was ended stays true."""
    recorded = event["ownership"] or ledger.ownership
    return replace(ledger, forced=bool(event["force"]), to_fence=None, fenced=(), ownership=recorded)


def _memory_gone(ledger: Ledger, event: Event) -> Ledger:
    lost = _blame_id("owner.lost")(ledger, event)
    return replace(lost, left_on=event["host"], source_older=bool(event["older"]))


def _recorded(ledger: Ledger, event: Event) -> Ledger:
    return replace(ledger, ownership=event["ownership"])


def _commit_recorded(ledger: Ledger, event: Event) -> Ledger:
    return replace(_recorded(ledger, event), commit_cost_ms=event["cost_ms"])


def _record_refused(ledger: Ledger, _: Event) -> Ledger:
    """Before anything was touched it is a refusal; later somebody else has taken the VM over."""
    return replace(ledger, refused=True) if ledger.ownership is None else ledger


def _network_failed(ledger: Ledger, event: Event) -> Ledger:
    return replace(ledger, networks_tried=(*ledger.networks_tried, event["address"]))


def _call_returned(ledger: Ledger, event: Event) -> Ledger:
    sent, downtime, disks = event["sent_bytes"], event["qemu_downtime_ms"], event["disks_sent_bytes"]
    return replace(
        ledger,
        disks_sent_bytes=disks if disks is not None else ledger.disks_sent_bytes,
        sent_bytes=sent if sent is not None else ledger.sent_bytes,
        qemu_downtime_ms=downtime if downtime is not None else ledger.qemu_downtime_ms,
    )


def _too_late(ledger: Ledger, event: Event) -> Ledger:
    """Note a cancel that was refused. A policy that asked for it may ask again: the passes must have an end."""
    ledger = replace(ledger, blackout_refused=False)
    asked = ledger.cancel_wished or not (ledger.stalls or ledger.lease_unsafe)
    return _warn_too_late(ledger, event["reason"]) if asked else ledger


def _warn_too_late(ledger: Ledger, reason: str) -> Ledger:
    warning = Problem(id="cancel.too_late", values={"vm": ledger.request.vm, "reason": reason})
    return replace(ledger, cancel_too_late=True, warnings=(*_but(ledger.warnings, warning.id), warning))


def _cancel_accepted(ledger: Ledger, _: Event) -> Ledger:
    kept = _but(ledger.warnings, "cancel.too_late")
    return replace(ledger, cancel_accepted=True, cancel_too_late=False, warnings=kept)


def _blackout_too_long(ledger: Ledger, event: Event) -> Ledger:
    kept = _but(ledger.problems, event["problem"].id)
    unheeded = ledger.cancels_unheeded + int(ledger.blackout_refused)
    asked = replace(ledger, cancel_asked_ns=event.at_ns, cancels_unheeded=unheeded)
    return replace(asked, cancel_wished=True, blackout_refused=True, problems=kept)


def _but(problems: tuple[Problem, ...], id: str) -> tuple[Problem, ...]:
    return tuple(problem for problem in problems if problem.id != id)


def _cleaned(ledger: Ledger, event: Event) -> Ledger:
    """Note files that were kept because the request says so."""
    if not event["kept"]:
        return ledger
    warning = Problem(id="storage.kept", values={"vm": ledger.request.vm, "items": ", ".join(event["kept"])})
    return replace(ledger, warnings=(*ledger.warnings, warning))


def _left_behind(ledger: Ledger, event: Event) -> Ledger:
    items = tuple(event["items"])
    values = {"vm": ledger.request.vm, "operation": ledger.operation, "items": ", ".join(items)}
    warning = Problem(id="cleanup.left_behind", values=values)
    return _cleaned(replace(ledger, left_behind=items, warnings=(*ledger.warnings, warning)), event)


_STATE_WARNINGS = {VmState.OFF: "vm.off_there", VmState.PAUSED: "vm.paused_there"}


def _destination_owns(ledger: Ledger, event: Event) -> Ledger:
    ledger = replace(ledger, owner=event.kind, problems=())
    expected = ledger.plan.vm_state if ledger.plan else VmState.RUNNING
    id = _STATE_WARNINGS.get(event["state"]) if event["state"] != expected else None
    if id is not None:
        values = {"vm": ledger.request.vm, "host": ledger.request.destination, "detail": event["why"]}
        ledger = replace(ledger, warnings=(*ledger.warnings, Problem(id=id, values=values)))
    if not ledger.cancel_wished or ledger.cancel_too_late:
        return ledger
    return _warn_too_late(ledger, "the move went through all the same")


def _source_owns(ledger: Ledger, event: Event) -> Ledger:
    """Note the verdict. What may have run at the destination may have written there: its files are the only proof."""
    ledger = replace(ledger, owner=event.kind)
    if event["may_have_run"] and ledger.plan:
        values = {"vm": ledger.plan.vm, "host": ledger.plan.destination, "source": ledger.plan.source}
        ran = Problem("hand_over.may_have_run", values, side=Side.DESTINATION, host=ledger.plan.destination)
        kept = ledger.plan.storage and replace(ledger.plan.storage, keep_at_destination=True)
        plan = replace(ledger.plan, storage=kept)
        ledger = replace(ledger, plan=plan, warnings=(*_but(ledger.warnings, ran.id), ran))
    return _interrupted(ledger) if ledger.interrupted and not ledger.problems else ledger


def _both_ran(ledger: Ledger, event: Event) -> Ledger:
    """Once two copies ran this stays the verdict, whatever a later look finds."""
    return replace(_blame_id("owner.dual_run")(ledger, event), both_ran=True)


def _journal_lost(ledger: Ledger, event: Event) -> Ledger:
    problem: Problem = event["problem"]
    known = problem.id in {w.id for w in ledger.warnings}
    return ledger if known else replace(ledger, warnings=(*ledger.warnings, problem))


def _bandwidth(ledger: Ledger, event: Event) -> Ledger:
    mib_s = event["mib_s"]
    plan = replace(ledger.plan, bandwidth_mib_s=mib_s) if ledger.plan else None
    return replace(ledger, plan=plan, request=replace(ledger.request, bandwidth_mib_s=mib_s))


def _figures(ledger: Ledger, event: Event) -> Ledger:
    known = {name: event[name] for name in ("remaining_bytes", "bytes_s") if event[name] is not None}
    return replace(ledger, **known)


def _progress(ledger: Ledger, event: Event) -> Ledger:
    disks = event["disks_sent_bytes"]
    known = {} if disks is None else {"disks_sent_bytes": disks}
    moved = event["sent_bytes"] != ledger.sent_so_far_bytes
    ledger = replace(ledger, post_copy_stuck=ledger.post_copy_stuck and not moved)
    return replace(_figures(ledger, event), sent_so_far_bytes=event["sent_bytes"], **known)


def _deadline(ledger: Ledger, event: Event) -> Ledger:
    if event["problem"] is not None and event["problem"].id == "post_copy.stalled":
        return replace(ledger, post_copy_stuck=True)
    stalled = event["problem"] is not None and event["problem"].id == "transfer.stalled"
    kept = _but(ledger.problems, "transfer.stalled")
    return replace(ledger, stalls=ledger.stalls + 1, problems=kept) if stalled else ledger


def _pass_ended(ledger: Ledger, event: Event) -> Ledger:
    return replace(_figures(ledger, event), passes=max(ledger.passes, event["number"]))


def _steered(ledger: Ledger, event: Event) -> Ledger:
    return replace(ledger, steered=True) if event["what"] == Steer.SWITCH else ledger


def _not_steerable(ledger: Ledger, event: Event) -> Ledger:
    """Note that post-copy was not begun, which a user has to know: the move goes on without it."""
    if event["what"] != Steer.POST_COPY:
        return ledger
    warning = Problem("post_copy.not_started", {"vm": ledger.request.vm, "reason": event["reason"]})
    kept = _but(ledger.warnings, warning.id)
    ledger = replace(ledger, post_copy_asked=False, post_copy_wished=False, post_copy_refused=True)
    return replace(ledger, warnings=(*kept, warning))


def _post_copy_seen(ledger: Ledger, event: Event) -> Ledger:
    kept = _but(ledger.warnings, "post_copy.not_started")
    return replace(ledger, post_copy=True, post_copy_ns=ledger.post_copy_ns or event.at_ns, warnings=kept)


def _post_copy_lost(ledger: Ledger, event: Event) -> Ledger:
    return replace(_blame_id("owner.lost")(ledger, event), owner=Kind.MEMORY_GONE, left_on=event["host"])


def _finished_with_warnings(ledger: Ledger, event: Event) -> Ledger:
    return replace(ledger, warnings=event["warnings"] or ledger.warnings)


def _stopped(ledger: Ledger, event: Event) -> Ledger:
    return replace(ledger, stop_ns=event.at_ns)


def _ran(ledger: Ledger, event: Event) -> Ledger:
    if ledger.resume_ns is not None:
        return ledger
    return replace(ledger, resume_ns=event.at_ns, port_ms=event["port_ms"])


def _lock_daemon_gone(ledger: Ledger, event: Event) -> Ledger:
    lost = Problem("lease.lost", {"vm": ledger.request.vm, "host": event.host}, side=event.side, host=event.host)
    return ledger if lost in ledger.warnings else replace(ledger, warnings=(*ledger.warnings, lost))


def _evidence_seen(ledger: Ledger, event: Event) -> Ledger:
    """Note a copy that runs without its lease, by the last look, and a source that runs after all had arrived."""
    evidence: Evidence = event["evidence"]
    sides = ((Side.SOURCE, evidence.source), (Side.DESTINATION, evidence.destination))
    bare = tuple(
        Problem("lease.not_taken", {"vm": ledger.request.vm, "host": copy.host}, side=side, host=copy.host)
        for side, copy in sides
        if copy.reachable and copy.state is VmState.RUNNING and copy.lease_held is False
    )
    # With its job open it still sends: the hosts were looked at one after the other, and all has arrived meanwhile.
    here = evidence.source
    ran_on = evidence.destination.arrived and here.reachable and here.state is VmState.RUNNING and not here.job_open
    ledger = replace(ledger, looks=ledger.looks + 1, source_ran_on=ledger.source_ran_on or ran_on)
    return replace(ledger, warnings=(*_but(ledger.warnings, "lease.not_taken"), *bare))


def _settled(ledger: Ledger, event: Event) -> Ledger:
    """Note that a copy's lease, which it ran without, was taken again."""
    if not event["lease_taken"]:
        return ledger
    known = "a moment" if event["pause_ms"] is None else f"{event['pause_ms']:.0f} ms"
    values = {"vm": ledger.request.vm, "host": event.host, "pause": known}
    taken = Problem("lease.taken_again", values, side=event.side, host=event.host)
    others = tuple(w for w in ledger.warnings if not (w.id == "lease.not_taken" and w.host == event.host))
    return replace(ledger, warnings=(*others, taken))


_FOLDS: Mapping[Kind, Callable[[Ledger, Event], Ledger]] = {
    Kind.STARTED: _started,
    Kind.LOOK_AGAIN: _look_again,
    Kind.NOTHING_TOUCHED: _nothing_touched,
    Kind.TIDY_AGAIN: _tidy_again,
    Kind.CLAIMED: lambda ledger, _: replace(ledger, claimed=True),
    Kind.DEADLINE: _deadline,
    Kind.CANCEL_WISHED: lambda ledger, _: replace(ledger, cancel_wished=True),
    Kind.CANCEL_ACCEPTED: _cancel_accepted,
    Kind.CANCEL_TOO_LATE: _too_late,
    Kind.CANCEL_UNSUPPORTED: _too_late,
    Kind.CHECKS_PASSED: _checks_passed,
    Kind.CHECKS_REFUSED: _checks_refused,
    Kind.CLAIM_REFUSED: _refused,
    Kind.NETWORK_FAILED: _network_failed,
    Kind.NEXT_NETWORK: _planned,
    Kind.NO_NETWORK_LEFT: _refused,
    Kind.NATIVE_REFUSAL: _refused,
    Kind.BANDWIDTH_WISHED: _bandwidth,
    Kind.PASS_ENDED: _pass_ended,
    Kind.PROGRESS: _progress,
    Kind.STEERED: _steered,
    Kind.NOT_STEERABLE: _not_steerable,
    Kind.POSTCOPY_WISHED: lambda ledger, _: replace(ledger, post_copy_wished=True, post_copy_refused=False),
    Kind.POSTCOPY_DUE: lambda ledger, _: replace(ledger, post_copy_asked=True, post_copy_refused=False),
    Kind.POSTCOPY_RECORDED: _recorded,
    Kind.POSTCOPY_SEEN: _post_copy_seen,
    Kind.ADOPTED_POSTCOPY: _post_copy_seen,
    Kind.POSTCOPY_ENDED: lambda ledger, event: replace(ledger, whole_ns=event.at_ns),
    Kind.POSTCOPY_RECOVERABLE: lambda ledger, _: replace(ledger, post_copy_recoveries=ledger.post_copy_recoveries + 1),
    Kind.POSTCOPY_RESUMED: lambda ledger, _: replace(ledger, post_copy_stuck=False, problems=()),
    Kind.POSTCOPY_PENDING: _blame_id("post_copy.paused"),
    Kind.POSTCOPY_LOST: _post_copy_lost,
    Kind.BLACKOUT_TOO_LONG: _blackout_too_long,
    Kind.LEFT_PAUSED: lambda ledger, _: replace(ledger, left_paused=True),
    Kind.FINISHED_WITH_WARNINGS: _finished_with_warnings,
    Kind.SWITCH_SEEN: lambda ledger, _: replace(ledger, switched=True),
    Kind.ADOPTED_SWITCH: lambda ledger, _: replace(ledger, switched=True),
    Kind.SOURCE_STOPPED: _stopped,
    Kind.SOURCE_RESUMED: lambda ledger, _: replace(ledger, stop_ns=None),
    Kind.BINDING_SEEN: _binding_seen,
    Kind.RECOVER_WISHED: _recover_wished,
    Kind.FENCE_DUE: lambda ledger, event: replace(ledger, to_fence=event["host"]),
    Kind.FENCED: _fenced,
    Kind.SOURCE_SILENT: lambda ledger, _: replace(ledger, ends_source=True),
    Kind.SOURCE_ENDED: _source_ended,
    Kind.SOURCE_NOT_ENDED: lambda ledger, _: replace(ledger, ends_source=False, silent_looks=ledger.silent_looks + 1),
    Kind.DESTINATION_RAN: _ran,
    Kind.RUN_REFUSED: lambda ledger, _: replace(ledger, run_refusals=ledger.run_refusals + 1),
    Kind.CALL_RETURNED: _call_returned,
    Kind.PENDING_RECORDED: _recorded,
    Kind.COMMIT_RECORDED: _commit_recorded,
    Kind.SOURCE_RECORDED: _recorded,
    Kind.DESTINATION_RECORDED: _recorded,
    Kind.RECORD_REFUSED: _record_refused,
    Kind.EVIDENCE_SEEN: _evidence_seen,
    Kind.LOCK_DAEMON_GONE: _lock_daemon_gone,
    Kind.LEASE_UNSAFE: lambda ledger, _: replace(ledger, lease_unsafe=True),
    Kind.SETTLED: _settled,
    Kind.CLEANED: _cleaned,
    Kind.LEFT_BEHIND: _left_behind,
    Kind.SOURCE_OWNS: _source_owns,
    Kind.DESTINATION_OWNS: _destination_owns,
    Kind.BOTH_RAN: _both_ran,
    Kind.HOST_SILENT: lambda ledger, _: replace(ledger, silent_looks=ledger.silent_looks + 1),
    Kind.JOURNAL_LOST: _journal_lost,
    Kind.MEMORY_GONE: _memory_gone,
    Kind.GUEST_ENDED: _blame_id("guest.ended"),
    Kind.UNKNOWN: _blame_id("owner.unknown"),
}
