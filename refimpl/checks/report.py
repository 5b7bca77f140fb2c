"""All checks together as a compatibility report: every finding, and for every family in order what was seen of it."""

from __future__ import annotations

from collections.abc import Sequence

from refimpl.checks.families import FAMILIES, Family
from refimpl.checks.subject import Subject
from refimpl.model.compatibility import Checked, CompatibilityReport, Verdict
from refimpl.model.errors import Problem


def compared(s: Subject) -> CompatibilityReport:
    """Compare a VM with its destination (R11); what stands in the way comes before the warnings."""
    found = [(family, tuple(family.check(s))) for family in FAMILIES]
    problems = [problem for _, problems in found for problem in problems]
    return CompatibilityReport(
        group=s.group,
        request=s.request,
        vm_id=s.vm.id if s.vm else None,
        source=s.source.name if s.source else None,
        compared_s=s.facts.now_s,
        problems=tuple(sorted(problems, key=lambda problem: not problem.refuses)),
        checked=tuple(_checked(s, family, problems) for family, problems in found),
    )


def _checked(s: Subject, family: Family, problems: Sequence[Problem]) -> Checked:
    if any(problem.refuses for problem in problems):
        return Checked(family.name, Verdict.REFUSED, _count(problems, "finding"))
    if problems:
        return Checked(family.name, Verdict.WARNING, _count(problems, "warning"))
    text = family.told(s)
    if text is None:
        return Checked(family.name, Verdict.NOT_SEEN, "nothing of it could be seen")
    return Checked(family.name, Verdict.OK, text)


def _count(problems: Sequence[Problem], word: str) -> str:
    return f"{len(problems)} {word}" + ("" if len(problems) == 1 else "s")
