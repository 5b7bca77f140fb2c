"""May both hosts take part in one more migration: is it enabled there, and is the limit not reached (R7, R12)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem, Value
from refimpl.model.phase import Side
from refimpl.model.request import Plan


def check(s: Subject) -> Iterator[Problem]:
    """Yield what the settings of either host forbid (semantics 2.1, 5.3)."""
    if s.facts.store_problem is not None:
        yield s.facts.store_problem
        return
    for host in (s.source, s.destination):
        if host is None or not host.reachable:
            continue
        settings = s.settings(host.name)
        if not settings.migration_enabled:
            yield s.problem("migration.disabled", host.name)
        moving = s.facts.moving.get(host.name, ())
        if len(moving) >= settings.maximum_migrations:
            limit, under_way = settings.maximum_migrations, ", ".join(moving) or "none"
            yield s.problem("limit.reached", host.name, vm=s.request.vm, limit=limit, operations=under_way)


def told(s: Subject) -> str | None:
    """Say how many migrations both hosts take part in; None when not both hosts were seen."""
    if s.pair is None:
        return None
    counts = []
    for host in (s.pair.source.name, s.pair.destination.name):
        limit = s.settings(host).maximum_migrations
        counts.append(f"{host} takes part in {len(s.facts.moving.get(host, ()))} of {limit}")
    return f"migration enabled on both; {', '.join(counts)}"


def limit_reached(plan: Plan, host: str, limit: int, operations: Sequence[str], *, storage: bool = False) -> Problem:
    """Return the problem of a limit that was reached between the checks and the claim, perhaps of moves with disks."""
    under_way = ", ".join(operations) or "none"
    values: dict[str, Value] = {"host": host, "vm": plan.vm, "limit": limit, "operations": under_way}
    side = Side.DESTINATION if host == plan.destination else Side.SOURCE
    return Problem("limit.storage_reached" if storage else "limit.reached", values, side=side, host=host)
