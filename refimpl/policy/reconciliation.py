"""Who owns the VM, by what both hosts show: the rule of libvirt-qemu 3.3 with the strict hand-over of handover 1.2.

What the native call returned is not an input: it was right in no measured failure (rule 3).
"""

from __future__ import annotations

from refimpl.model.decision import Decision, decision
from refimpl.model.events import Event, Kind
from refimpl.model.facts import CopySeen, Evidence, VmState
from refimpl.model.ledger import Ledger
from refimpl.model.request import HandOver
from refimpl.policy.post_copy import in_halves

MOST_RUN_REFUSALS = 3
"""How often a destination that the source is bound to may refuse to run before a person is asked."""

MOST_LOOKS = 1000
"""How often both hosts are looked at before a job that neither runs nor ends is left to a person."""

MOST_SILENT_LOOKS = 20
"""How often a host may not answer before a person is asked: a daemon that is started again answers within some."""

LOOKS_BEFORE_FENCE = 2
"""How often a host must not have answered before it is cut off, where that is wished: one that comes back is not."""

MOST_STALLS = 3
"""How often a transfer that carries nothing may outlast the request to break it off before a person is asked."""

SILENT_MS = 1000
"""How long a source's daemon must answer nothing, with all of the VM arrived and waiting, before its copy is ended.

In an ordinary move the source is seen bound 10 to 20 ms after the arrival, 200 ms on a machine that is busy, and its
daemon answers a new connection all the time. The source's own keepalive gives up after some seconds and would take
the VM back then. In between, waiting helps nobody: the VM stands still.
"""

_HERE = (VmState.RUNNING, VmState.PAUSED)


def reconcile(ledger: Ledger, event: Event) -> Decision | None:
    """Return who owns the VM, that a job still runs, that both or none ran, or that it cannot be told."""
    evidence: Evidence = event["evidence"]
    source, destination = (_as_fenced(ledger, copy) for copy in (evidence.source, evidence.destination))
    if ledger.looks > MOST_LOOKS:
        return decision(Kind.UNKNOWN, why=f"no verdict after looking {ledger.looks} times")
    if ledger.ends_source and destination.state is not VmState.RUNNING:
        # Whatever is decided now must not meet that order: it leaves at most one copy of the two.
        patient = ledger.silent_looks < MOST_SILENT_LOOKS
        return decision(Kind.HOST_SILENT if patient else Kind.UNKNOWN, why="the source's process is being ended")
    halves = in_halves(ledger, source, destination, patient=ledger.silent_looks < MOST_SILENT_LOOKS)
    if halves is not None:
        return halves
    if not source.reachable or not destination.reachable:
        return _one_silent(ledger, source, destination)
    if destination.state is VmState.RUNNING:
        return _destination_runs(ledger, source)
    if _arrived(ledger, source, destination):
        return _bound(ledger, source)
    if source.job_open or destination.job_open:
        if ledger.stalls >= MOST_STALLS:
            why = f"{_jobs(source, destination)}: carries nothing and does not end on request"
            return decision(Kind.UNKNOWN, why=why)
        return decision(Kind.JOB_STILL_RUNS, why=_jobs(source, destination))
    if ledger.plan is not None and ledger.plan.vm_state is VmState.OFF:
        return _off(source, destination)
    return _source_side(ledger, source, destination)


def bound(ledger: Ledger, event: Event) -> Decision | None:
    """Return SOURCE_BOUND when the source cannot run again by itself, SOURCE_SILENT when its daemon does not say.

    Nothing while neither is seen. Nor ever after it has taken the VM back: when it ends then, the destination's copy is
    older than what was lost.
    """
    if ledger.source_ran_on:
        return None
    if event["bound"]:
        return decision(Kind.SOURCE_BOUND, why=event["reason"])
    silent_ms = event["silent_ms"] or 0
    if silent_ms < SILENT_MS or ledger.ends_source:
        return None
    return decision(Kind.SOURCE_SILENT, why=f"all has arrived, and the source has not answered for {silent_ms} ms")


def found_running(ledger: Ledger, event: Event) -> Decision:
    """Return BOTH_RAN: the source's copy was found running where the destination's, which is the VM, runs as well."""
    return decision(Kind.BOTH_RAN, why="running at the source again, and at the destination, which owns the VM")


def _as_fenced(ledger: Ledger, copy: CopySeen) -> CopySeen:
    """Return what is seen of a host, with what is proved of one that was cut off: nothing runs there any more."""
    if copy.reachable or copy.host not in ledger.fenced:
        return copy
    return CopySeen(copy.host, reachable=True, state=VmState.OFF, reason="its host was cut off", bound=True)


def _fence(ledger: Ledger, silent: CopySeen, other: CopySeen) -> Decision | None:
    """Return FENCE_DUE for a silent host that may be cut off, HOST_SILENT until it was silent often enough."""
    if not ledger.forced or not other.reachable:
        return None
    why = f"host {silent.host} does not answer"
    if ledger.silent_looks < LOOKS_BEFORE_FENCE:
        return decision(Kind.HOST_SILENT, why=why)
    return decision(Kind.FENCE_DUE, why=why, host=silent.host)


def _one_silent(ledger: Ledger, source: CopySeen, destination: CopySeen) -> Decision:
    silent = source.host if not source.reachable else destination.host
    goes_on = source.reachable and source.state is VmState.RUNNING and source.lease_held and not source.job_open
    if goes_on and ledger.resume_ns is None:
        why = f"runs at the source with its lease; {silent} does not answer"
        return decision(Kind.SOURCE_OWNS, why=why, **_unheard(ledger, destination))
    fence = _fence(ledger, *((source, destination) if not source.reachable else (destination, source)))
    if fence is not None:
        return fence
    if ledger.hand_over is HandOver.STRICT and destination.state is VmState.RUNNING:
        return decision(Kind.DESTINATION_OWNS, why=f"runs at the destination, let run there; {silent} does not answer")
    if _arrived(ledger, source, destination):
        return _bound(ledger, source)
    if _to_be_ended(ledger, source, destination):
        return decision(Kind.SOURCE_SILENT, why=f"arrived at the destination; {silent} does not answer")
    patient = ledger.silent_looks < MOST_SILENT_LOOKS
    return decision(Kind.HOST_SILENT if patient else Kind.UNKNOWN, why=f"host {silent} does not answer")


def _destination_runs(ledger: Ledger, source: CopySeen) -> Decision:
    if ledger.both_ran:
        return decision(Kind.BOTH_RAN, why=f"both ran before; runs at the destination, source {source.state}")
    if source.state is VmState.RUNNING and not source.job_open:
        return decision(Kind.BOTH_RAN, why="running at the source and at the destination")
    # With its job open a source that runs was looked at before the switch, and the destination after it.
    if source.job_open and not source.bound:
        return decision(Kind.JOB_STILL_RUNS, why=f"runs at the destination, source in {source.job_phase}")
    return decision(Kind.DESTINATION_OWNS, why=f"runs at the destination, source {source.state}")


def _to_be_ended(ledger: Ledger, source: CopySeen, destination: CopySeen) -> bool:
    """Whether nothing but a silent source's copy, which stands still and is held, keeps the destination from running.

    Only by a controller that was there all the time, and not at the first look.
    """
    if ledger.hand_over is not HandOver.STRICT or ledger.interrupted or ledger.source_ran_on or ledger.ends_source:
        return False
    waits = destination.reachable and destination.arrived and not destination.job_open
    let_go = ledger.resume_ns is not None or ledger.left_paused
    held = source.endable and not source.reachable and source.state is VmState.PAUSED
    return waits and held and not let_go and 0 < ledger.silent_looks < MOST_SILENT_LOOKS


def _arrived(ledger: Ledger, source: CopySeen, destination: CopySeen) -> bool:
    waiting = destination.reachable and destination.arrived and not destination.job_open
    let_go = ledger.resume_ns is not None or ledger.left_paused
    bound_now = source.bound and not _may_be_stale(ledger, source)
    return ledger.hand_over is HandOver.STRICT and waiting and bound_now and not let_go


def _may_be_stale(ledger: Ledger, source: CopySeen) -> bool:
    """Whether what has arrived may be older than what the source did since, so that its end does not let it run.

    Not once the commit was recorded. A controller that was not there all the time cannot know it of a source whose
    process is gone and whose definition is not: a hand-over takes both away.
    """
    record = ledger.ownership
    if record is not None and record.operation == ledger.operation and record.pending is None:
        return ledger.plan is None or record.owner != ledger.plan.destination
    if source.host in ledger.fenced and ledger.stood is not None:
        return ledger.source_ran_on or not ledger.stood
    return ledger.source_ran_on or (ledger.interrupted and source.state is VmState.OFF)


def _bound(ledger: Ledger, source: CopySeen) -> Decision:
    if ledger.run_refusals >= MOST_RUN_REFUSALS:
        return decision(Kind.UNKNOWN, why=f"the destination refused to run {ledger.run_refusals} times")
    return decision(Kind.SOURCE_BOUND, why=f"arrived at the destination, source {source.reason or source.state}")


def _off(source: CopySeen, destination: CopySeen) -> Decision:
    """A VM that is off is its definition: it is at the source as long as the source has it."""
    why = f"{source.state} at the source, {destination.state} at the destination"
    if source.state not in (VmState.ABSENT, VmState.UNKNOWN):
        return decision(Kind.SOURCE_OWNS, why=why)
    if source.state is VmState.ABSENT and destination.state is VmState.OFF:
        return decision(Kind.DESTINATION_OWNS, why=why, state=destination.state)
    return decision(Kind.UNKNOWN, why=why)


def _source_side(ledger: Ledger, source: CopySeen, destination: CopySeen) -> Decision:
    if source.state is VmState.PAUSED and destination.host in ledger.fenced and _may_have_run(ledger):
        why = f"paused at the source; on host {destination.host}, which was cut off, it may have run since"
        return decision(Kind.UNKNOWN, why=why)
    if source.state in (VmState.RUNNING, VmState.PAUSED):
        if ledger.resume_ns is not None:
            return _older(source, destination)
        why = f"{source.state} at the source, {destination.state} at the destination"
        return decision(Kind.SOURCE_OWNS, why=why, **_unheard(ledger, destination))
    if VmState.UNKNOWN in (source.state, destination.state):
        return decision(Kind.UNKNOWN, why=f"source {source.state}, destination {destination.state}")
    if _ended_there(ledger, source, destination):
        why = f"moved; there it is {destination.state} now ({destination.reason or 'no reason told'})"
        return decision(Kind.DESTINATION_OWNS, why=why, state=destination.state)
    ran_on = source.host in ledger.fenced and ledger.stood is False
    here = destination.state in _HERE or (destination.state is VmState.PLANNED and source.state is VmState.ABSENT)
    if here and not ran_on:
        return decision(Kind.UNKNOWN, why=f"source {source.state}, destination {destination.state} and not bound")
    if _wrote_there_last(ledger, source, destination):
        return _older(source, destination)
    if source.ended_by_guest or destination.ended_by_guest:
        panicked = "panicked" in (source.reason, destination.reason)
        return decision(Kind.GUEST_ENDED, why="its kernel panicked" if panicked else "it switched itself off")
    cut = next((copy for copy in (source, destination) if copy.host in ledger.fenced), None)
    if cut is not None:
        stays = _startable(ledger, source, destination)
        return decision(Kind.MEMORY_GONE, why=f"it was on host {cut.host}, which was cut off", host=stays.host)
    left_on = destination.host if source.state is VmState.ABSENT and destination.state is VmState.OFF else source.host
    why = f"source {source.state}, destination {destination.state}"
    return decision(Kind.MEMORY_GONE, why=f"{why}; {source.reason}" if source.reason else why, host=left_on)


def _wrote_there_last(ledger: Ledger, source: CopySeen, destination: CopySeen) -> bool:
    """Whether a VM that is off on both sides, with disks of its own on each, has run at the destination since."""
    moved = ledger.plan is not None and ledger.plan.storage is not None
    off = source.state is VmState.OFF and destination.state is VmState.OFF
    ran = _let_run(ledger) or destination.ended_by_guest
    return moved and off and ran and destination.host not in ledger.fenced


def _startable(ledger: Ledger, source: CopySeen, destination: CopySeen) -> CopySeen:
    """Where a VM can be started again whose memory went with a host that was cut off.

    With shared disks where somebody answers; with disks that moved where the guest may have written last. A definition
    of the destination's own is stored once all has arrived, and the source's goes only after that has run.
    """
    source_cut = source.host in ledger.fenced
    if ledger.plan is not None and ledger.plan.storage is None:
        return destination if source_cut else source
    if source_cut:
        taken_back = ledger.source_ran_on or ledger.stood is False
        there = _let_run(ledger) or (destination.state is VmState.OFF and not taken_back)
    else:
        there = _may_have_run(ledger) or source.state is VmState.ABSENT
    return destination if there else source


def _older(source: CopySeen, destination: CopySeen) -> Decision:
    """A source that is there although the VM ran at the destination since is no copy to go on with.

    Only a delegated hand-over leaves one: libvirt took the destination's end for a failed move.
    """
    there = "it switched itself off" if destination.ended_by_guest else f"it is {destination.state}"
    why = f"it ran on {destination.host}, where {there} now; what was {source.state} on {source.host} is older"
    if destination.state not in (VmState.OFF, VmState.ABSENT):
        return decision(Kind.UNKNOWN, why=why)
    left_on = destination.host if destination.state is VmState.OFF else source.host
    return decision(Kind.MEMORY_GONE, why=why, host=left_on, older=True)


def _unheard(ledger: Ledger, destination: CopySeen) -> dict[str, bool]:
    """Return `may_have_run` for a destination that libvirt may have let run although nobody heard it.

    A definition of its own is stored once all has arrived. Of a host that is silent nothing tells but that there was,
    or to a controller that was not there all the time may have been, a switch.
    """
    runs = ledger.plan is None or ledger.plan.vm_state is VmState.RUNNING
    if ledger.hand_over is not HandOver.DELEGATED or not runs:
        return {}
    there = destination.state is VmState.OFF if destination.reachable else ledger.switched or ledger.interrupted
    return {"may_have_run": True} if there else {}


def _may_have_run(ledger: Ledger) -> bool:
    """Whether the destination may have run the VM: libvirt lets it, or it was let run by the commit."""
    return ledger.hand_over is not HandOver.STRICT or _let_run(ledger)


def _let_run(ledger: Ledger) -> bool:
    """Whether the destination ran the VM, or was let run it by the commit."""
    record, plan = ledger.ownership, ledger.plan
    committed = record is not None and plan is not None and record.owner == plan.destination
    return ledger.resume_ns is not None or committed


def _ended_there(ledger: Ledger, source: CopySeen, destination: CopySeen) -> bool:
    """Whether the VM was moved and stopped again there: paused after it ran, or switched off by its own guest."""
    if destination.state is VmState.PAUSED:
        let_go = ledger.resume_ns is not None or ledger.left_paused
        return source.bound and (not destination.arrived or let_go)
    return source.state is VmState.ABSENT and destination.state is VmState.OFF and destination.ended_by_guest


def _jobs(source: CopySeen, destination: CopySeen) -> str:
    jobs = [f"{c.job_phase or 'job'} on {c.host}" for c in (source, destination) if c.job_open]
    return " and ".join(jobs)
