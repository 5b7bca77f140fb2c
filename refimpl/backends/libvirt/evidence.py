"""What both hosts show now: the evidence that reconciliation judges, over connections that nobody used before.

The status file is read first. Only where it shows no job is the daemon asked about the VM: while a hand-over is being
closed the source's daemon would not answer. That the daemon answers at all is proved by the new connection.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from refimpl.backends.libvirt import connection, ended, ending, halves, lease, stamp, status
from refimpl.backends.libvirt.operation import Operation
from refimpl.backends.libvirt.parallel import in_parallel
from refimpl.hosts.channel import HostChannel
from refimpl.model.events import Kind
from refimpl.model.facts import CopySeen, Evidence, VmState
from refimpl.model.group import HostEntry
from refimpl.model.phase import Side
from refimpl.model.request import HandOver

ASK_TIMEOUT_S = 8.0
PANICKED, CRASHED = "panicked", "crashed"
_OFF_REASONS = {1: "shutdown", 2: "destroyed", 3: CRASHED, 4: "migrated", 5: "saved", 6: "failed", 8: "daemon"}


def inspect(operation: Operation) -> None:
    """Look at both hosts at the same time and post what they show; a source's process that was left stopped goes on."""
    ending.go_on(operation)
    source, destination = in_parallel(lambda side: _look(operation, *side), operation.reach.sides())
    # The destination's half last: what has just become whole is not to look like one that has lost the other.
    here, there = halves.both(operation)
    source, destination = replace(source, half=here), replace(destination, half=there)
    ended_now = operation.source_process_ended()
    if ended_now:
        source = replace(source, bound=True)
    if operation.watch.panicked and source.state is VmState.OFF:
        source = replace(source, ended_by_guest=True, reason=PANICKED)
    elif _died(source, destination, ended_now):
        said = ended.last_words(operation.reach.source_channel, operation.plan.vm)
        source = replace(source, reason=ended.reason(operation.source_process_end(), said))
    if not source.reachable:
        source = replace(source, endable=operation.holds_source_process() and not ended_now)
    operation.post(Kind.EVIDENCE_SEEN, evidence=Evidence(source, destination))


def _died(source: CopySeen, destination: CopySeen, ended_now: bool) -> bool:
    """Whether the VM is nowhere because the source's process ended that was not to end."""
    nowhere = source.state is VmState.OFF and destination.state in (VmState.ABSENT, VmState.OFF)
    return nowhere and not source.ended_by_guest and (ended_now or source.reason == CRASHED)


def vm_state(state: int) -> VmState:
    """Return libvirt's state number in the model's words."""
    lv = connection.module()
    words = {
        lv.VIR_DOMAIN_RUNNING: VmState.RUNNING,
        lv.VIR_DOMAIN_BLOCKED: VmState.RUNNING,
        lv.VIR_DOMAIN_SHUTDOWN: VmState.RUNNING,
        lv.VIR_DOMAIN_PAUSED: VmState.PAUSED,
        lv.VIR_DOMAIN_PMSUSPENDED: VmState.PAUSED,
        lv.VIR_DOMAIN_SHUTOFF: VmState.OFF,
        lv.VIR_DOMAIN_CRASHED: VmState.OFF,
    }
    return words.get(state, VmState.UNKNOWN)


def _look(operation: Operation, side: Side, host: HostEntry, channel: HostChannel) -> CopySeen:
    plan = operation.plan
    try:
        text = status.read_text(channel, plan.vm)
    except OSError as error:
        return CopySeen(host.name, reachable=False, reason=str(error))
    seen = status.parse_status(text) if text is not None else None
    copy = CopySeen(host.name, reachable=True)
    if seen is not None and text is not None:
        copy = _from_file(copy, side, channel, seen, text)
        # What libvirt itself lets run never waits to be let run: a paused one was paused before, or since.
        copy = replace(copy, arrived=copy.arrived and plan.hand_over is HandOver.STRICT)
    try:
        found = connection.bounded(lambda: _ask(host, plan.vm_id, copy), ASK_TIMEOUT_S, f"look at host {host.name}")
    except connection.failures() as error:
        return replace(copy, reachable=False, reason=str(error))
    if side is Side.SOURCE and found.state in (VmState.ABSENT, VmState.OFF):
        found = replace(found, bound=True)
    return replace(found, lease_held=lease.held(channel, operation.lease))


def _from_file(copy: CopySeen, side: Side, channel: HostChannel, seen: status.Status, text: bytes) -> CopySeen:
    marked = stamp.from_domain_xml(status.domain_part(text) or "<domain/>")
    gone = seen.pid > 0 and _gone(channel, seen.pid)
    return replace(
        copy,
        state=VmState.OFF if gone else seen.vm_state,
        reason=seen.reason,
        job_open=bool(seen.job),
        job_phase=seen.phase or seen.job,
        bound=side is Side.SOURCE and (gone or seen.bound),
        arrived=side is Side.DESTINATION and seen.arrived and not gone,
        operation=marked.operation if marked else None,
    )


def _gone(channel: HostChannel, pid: int) -> bool:
    try:
        return status.process_gone(channel, pid)
    except OSError:
        return False


def _ask(host: HostEntry, vm_id: str, copy: CopySeen) -> CopySeen:
    with connection.fresh(host, ASK_TIMEOUT_S) as fresh:
        return copy if copy.job_open else _ask_domain(fresh, vm_id, copy)


def _ask_domain(fresh: Any, vm_id: str, copy: CopySeen) -> CopySeen:
    lv = connection.module()
    domain = connection.find(fresh, vm_id)
    if domain is None:
        return replace(copy, state=VmState.ABSENT, reason="")
    try:
        number, reason = domain.state()
        marked = stamp.from_domain_xml(domain.XMLDesc(0))
    except lv.libvirtError as error:
        if connection.code(error) == lv.VIR_ERR_NO_DOMAIN:
            return replace(copy, state=VmState.ABSENT, reason="")
        raise
    off_by_guest = (number, reason) == (lv.VIR_DOMAIN_SHUTOFF, lv.VIR_DOMAIN_SHUTOFF_SHUTDOWN)
    return replace(
        copy,
        state=vm_state(number),
        reason=copy.reason or _OFF_REASONS.get(reason, f"reason {reason}"),
        ended_by_guest=off_by_guest,
        operation=marked.operation if marked else None,
    )
