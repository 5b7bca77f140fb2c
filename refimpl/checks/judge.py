"""All checks together: facts in; a plan or all problems at once out (rule 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from refimpl.checks import identity, memory, network, security, storage
from refimpl.checks.subject import Subject, subject
from refimpl.model.decision import Decision, decision
from refimpl.model.errors import Problem
from refimpl.model.events import Event, Kind
from refimpl.model.facts import Facts
from refimpl.model.ledger import Ledger
from refimpl.model.request import HandOver, Plan

CHECKS: tuple[Callable[[Subject], Iterator[Problem]], ...] = (
    identity.check,
    security.check,
    network.check,
    memory.check,
    storage.check,
)


def problems(s: Subject) -> tuple[Problem, ...]:
    """Return everything that stands in the way, in the order of the checks."""
    return tuple(problem for check in CHECKS for problem in check(s))


def judge(ledger: Ledger, event: Event) -> Decision:
    """Return CHECKS_PASSED with the plan, or CHECKS_REFUSED with all problems."""
    facts: Facts = event["facts"]
    s = subject(ledger.request, ledger.operation, ledger.group, facts)
    found = problems(s)
    if found:
        return decision(Kind.CHECKS_REFUSED, problems=found)
    return decision(Kind.CHECKS_PASSED, plan=_plan(s, ledger.hand_over))


def _plan(s: Subject, hand_over: HandOver) -> Plan:
    assert s.vm is not None
    assert s.source is not None
    assert s.destination is not None
    return Plan(
        vm=s.vm.name,
        vm_id=s.vm.id,
        source=s.source.name,
        destination=s.destination.name,
        networks=s.destination.migration_addresses,
        encryption=s.request.encryption,
        performance_option=s.request.performance_option,
        hand_over=hand_over,
        pass_limit=s.request.pass_limit,
        bandwidth_mib_s=s.request.bandwidth_mib_s,
        memory_mib=s.vm.memory_mib,
    )
