"""Post-copy: when it begins, and what both hosts show of a VM that is in two halves (libvirt-qemu 3.4; ADR 0014).

While it lasts the VM runs at the destination and part of its memory is at the source alone. Neither copy is the VM
without the other: so neither is ever ended here unless the other one is gone.
"""

from __future__ import annotations

from refimpl.model.decision import Decision, decision
from refimpl.model.events import Event, Kind
from refimpl.model.facts import CopySeen, Half, VmState
from refimpl.model.ledger import Ledger
from refimpl.model.request import PostCopy, Steer

_GONE = (VmState.ABSENT, VmState.OFF)


def may_begin(ledger: Ledger) -> bool:
    """Whether post-copy may begin: the plan allows it, and nobody wants the transfer broken off."""
    allowed = ledger.plan is not None and ledger.plan.post_copy is not PostCopy.OFF
    return allowed and not (ledger.cancel_wished or ledger.lease_unsafe or ledger.post_copy_asked)


def wished(ledger: Ledger, event: Event) -> Decision | None:
    """Return POSTCOPY_DUE when a person has asked for it, if need be before memory was copied."""
    due = ledger.post_copy_wished and may_begin(ledger)
    return decision(Kind.POSTCOPY_DUE, why="asked for") if due else None


def not_started(ledger: Ledger, event: Event) -> Decision | None:
    """Return POSTCOPY_NOT_STARTED when the destination was recorded as the owner for a post-copy that did not begin."""
    plan, record = ledger.plan, ledger.ownership
    if event["what"] != Steer.POST_COPY or plan is None or ledger.post_copy:
        return None
    recorded = record is not None and record.pending is None and record.owner == plan.destination
    return decision(Kind.POSTCOPY_NOT_STARTED) if recorded else None


def in_halves(ledger: Ledger, source: CopySeen, destination: CopySeen, *, patient: bool) -> Decision | None:
    """Return what is to become of a VM in two halves; None when it is not in two, or whole again."""
    if not (source.reachable and destination.reachable):
        return _one_silent(ledger, source, destination, patient=patient)
    if source.half is None and destination.half is None:
        return _both_gone(ledger, source, destination)
    if destination.half is Half.BROKEN and source.state in _GONE:
        why = f"the source's process is gone, and with it memory that {destination.host} did not have yet"
        return decision(Kind.POSTCOPY_LOST, why=_because(why, source), host=source.host)
    if source.half is not None and destination.state in _GONE:
        why = f"the destination's process is gone, and with it all that was done since it ran on {destination.host}"
        return decision(Kind.POSTCOPY_LOST, why=_because(why, destination), host=source.host)
    return _together(ledger, source, destination)


def _both_gone(ledger: Ledger, source: CopySeen, destination: CopySeen) -> Decision | None:
    """Judge a job whose processes have both ended: it never will; None where no such job is open."""
    gone = source.state in _GONE and destination.state in _GONE
    if not (ledger.post_copy and gone and (source.job_open or destination.job_open)):
        return None
    why = f"both processes are gone, on {source.host} and on {destination.host}"
    return decision(Kind.POSTCOPY_LOST, why=_because(why, destination), host=source.host)


def _together(ledger: Ledger, source: CopySeen, destination: CopySeen) -> Decision:
    """Judge two halves that are both there."""
    broken = Half.BROKEN in (source.half, destination.half)
    if not broken and not ledger.post_copy_stuck:
        return decision(Kind.JOB_STILL_RUNS, why=f"runs at the destination, and {source.host} still sends its memory")
    why = "the transfer of the memory is broken" if broken else "no memory has come for too long"
    if ledger.interrupted and not ledger.post_copy_recoveries:
        return decision(Kind.POSTCOPY_RECOVERABLE, why=why)
    return decision(Kind.POSTCOPY_PENDING, why=why)


def _one_silent(ledger: Ledger, source: CopySeen, destination: CopySeen, *, patient: bool) -> Decision | None:
    seen, silent = (source, destination) if source.reachable else (destination, source)
    if seen.half is Half.FLOWS and not ledger.post_copy_stuck:
        return decision(Kind.JOB_STILL_RUNS, why=f"in post-copy; {silent.host} does not answer, memory is sent")
    if seen.half is None and (seen.reachable or not ledger.post_copy):
        return None
    why = f"in post-copy, and {silent.host} does not answer"
    return decision(Kind.HOST_SILENT if patient else Kind.POSTCOPY_PENDING, why=why)


def _because(why: str, copy: CopySeen) -> str:
    return f"{why} ({copy.reason})" if copy.reason else why
