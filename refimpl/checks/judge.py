"""All checks together: facts in; a plan or all problems at once out (rule 7)."""

from __future__ import annotations

from refimpl.checks import compression, disk_moves, network
from refimpl.checks.report import compared
from refimpl.checks.subject import Subject, subject
from refimpl.model.decision import Decision, decision
from refimpl.model.events import Event, Kind
from refimpl.model.facts import Facts, VmState
from refimpl.model.ledger import Ledger
from refimpl.model.request import HandOver, MigrationRequest, PerformanceOption, Plan, PostCopy


def judge(ledger: Ledger, event: Event) -> Decision:
    """Return CHECKS_PASSED with the plan and the warnings, or CHECKS_REFUSED with all that stands in the way."""
    facts: Facts = event["facts"]
    s = subject(ledger.request, ledger.operation, ledger.group, facts)
    report = compared(s)
    if not report.compatible:
        return decision(Kind.CHECKS_REFUSED, problems=report.incompatibilities, checked=report.checked)
    plan = _plan(s, ledger.hand_over)
    changed = disk_moves.changed(ledger.plan, plan)
    if changed is not None:
        return decision(Kind.CHECKS_REFUSED, problems=(changed,), checked=report.checked)
    return decision(Kind.CHECKS_PASSED, plan=plan, warnings=report.warnings, checked=report.checked)


def _plan(s: Subject, hand_over: HandOver) -> Plan:
    """Return the plan. The source's settings stand where the request says nothing (R12)."""
    assert s.vm is not None
    assert s.source is not None
    assert s.destination is not None
    request, settings, host = s.request, s.settings(s.source.name), f"host {s.source.name}"
    option = s.option or settings.performance_option
    off = s.vm.state is VmState.OFF
    return Plan(
        vm=s.vm.name,
        vm_id=s.vm.id,
        source=s.source.name,
        destination=s.destination.name,
        networks=() if off else network.usable(s),
        encryption=request.encryption,
        performance_option=option,
        hand_over=hand_over,
        pass_limit=request.pass_limit or settings.pass_limit,
        bandwidth_mib_s=request.bandwidth_mib_s,
        memory_mib=s.vm.memory_mib,
        vm_state=s.vm.state,
        compression=compression.method(s) if option is PerformanceOption.COMPRESSION and not off else "",
        cancel_if_blackout_exceeds_ms=request.cancel_if_blackout_exceeds_ms,
        unexpected_blackout_ms=settings.unexpected_blackout_ms,
        autostart=s.vm.autostart,
        storage=disk_moves.plan(s),
        post_copy=request.post_copy,
        epoch=_epoch(s, s.vm.id),
        origins={
            "hand_over": _hand_over_origin(request),
            "post_copy": "default" if request.post_copy is PostCopy.OFF else "request",
            "performance_option": "request" if request.performance_option else host,
            "pass_limit": "request" if request.pass_limit else host,
            "networks": f"host {s.destination.name}",
            "unexpected_blackout_ms": host,
            "encryption": "default" if request.encryption else "request",
            "bandwidth_mib_s": "request" if request.bandwidth_mib_s else "default",
            "cancel_if_blackout_exceeds_ms": "request" if request.cancel_if_blackout_exceeds_ms else "default",
        },
    )


def _epoch(s: Subject, vm_id: str) -> int:
    """Return the highest epoch that a copy of the VM carries or the store has: only what comes after it is later."""
    record = s.facts.owners.get(vm_id)
    carried = (copy.epoch for host in s.facts.hosts.values() for copy in host.vms if copy.id == vm_id)
    return max((*carried, record.epoch if record else 0))


def _hand_over_origin(request: MigrationRequest) -> str:
    if request.hand_over is not None:
        return "request"
    return "default" if request.post_copy is PostCopy.OFF else "post-copy"
