"""Facts in, findings out: how tests of checks ask."""

from __future__ import annotations

from typing import Any

from refimpl.checks.judge import judge
from refimpl.checks.subject import Subject, subject
from refimpl.model.decision import Decision
from refimpl.model.errors import Problem
from refimpl.model.events import Kind
from refimpl.model.facts import Facts, VmFacts
from refimpl.model.request import MigrationRequest
from tests.builders import OPERATION, event, facts, host, ledger, request, vm


def seen(moved: VmFacts | None = None, *, here: dict[str, Any] | None = None, **there: Any) -> Facts:
    """Return facts of hosts a and b: the VM on a with changes `here`, and b changed as named."""
    return facts(host("a", vms=(moved or vm(),), **(here or {})), host("b", **there))


def asked(shown: Facts, wish: MigrationRequest | None = None) -> Subject:
    """Return what a check looks at."""
    return subject(wish or request(), OPERATION, "lab", shown)


def judged(shown: Facts, wish: MigrationRequest | None = None) -> Decision:
    """Return the decision on facts."""
    return judge(ledger(plan=None, request=wish or request()), event(Kind.FACTS_SEEN, facts=shown))


def found(shown: Facts, wish: MigrationRequest | None = None) -> dict[str, Problem]:
    """Return the findings of refused facts by id."""
    made = judged(shown, wish)
    assert made.kind is Kind.CHECKS_REFUSED
    return {p.id: p for p in made.values["problems"]}


def passed(shown: Facts, wish: MigrationRequest | None = None) -> bool:
    """Whether facts pass without any finding, not even a warning."""
    made = judged(shown, wish)
    return made.kind is Kind.CHECKS_PASSED and made.values["warnings"] == ()


def warned(shown: Facts, wish: MigrationRequest | None = None) -> dict[str, Problem]:
    """Return the warnings of facts that pass, by id."""
    made = judged(shown, wish)
    assert made.kind is Kind.CHECKS_PASSED
    return {p.id: p for p in made.values["warnings"]}
