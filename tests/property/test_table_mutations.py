"""Every row of the table, mutated in turn, is missed: some scenario ends differently, or shows different phases.

Mutants of a row: removed; leading to each other phase; each command left out; two commands in the other order. A
scenario that does not use a row cannot notice a mutant of it, so only those that use it are played.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cache

import pytest

from refimpl.engine.conductor import Stalled
from refimpl.engine.phases import TABLE, Row
from refimpl.engine.step import step
from refimpl.model.events import Kind
from refimpl.model.phase import Phase
from tests.moves import mutated
from tests.property.scenario import judge, play
from tests.property.scenarios import SCENARIOS

Key = tuple[Phase, Kind]

NOTICED = (AssertionError, Stalled, KeyError, ValueError)


def mutants(key: Key) -> Iterator[tuple[str, Row | None]]:
    """Yield all mutants of a row, None for one that is removed, by name."""
    row = TABLE[key]
    place = f"{key[0]} {key[1]}"
    yield f"{place}: removed", None
    for phase in Phase:
        if phase is not row.phase:
            yield f"{place}: to {phase}", Row(phase, row.commands)
    for index, command in enumerate(row.commands):
        yield f"{place}: without {command}", Row(row.phase, row.commands[:index] + row.commands[index + 1 :])
    if len(row.commands) > 1:
        yield f"{place}: other order", Row(row.phase, row.commands[::-1])


@cache
def users() -> dict[Key, list[str]]:
    """Return for each row the scenarios that use it, the ones with the fewest rows first."""
    found: dict[Key, list[str]] = defaultdict(list)
    sizes: dict[str, int] = {}
    for name, scenario in SCENARIOS.items():
        used: dict[Key, None] = {}

        def noting(phase: Phase, kind: Kind, used: dict[Key, None] = used) -> Row:
            used[phase, kind] = None
            return step(phase, kind)

        play(scenario, noting)
        sizes[name] = len(used)
        for key in used:
            found[key].append(name)
    return {key: sorted(names, key=sizes.__getitem__) for key, names in found.items()}


def noticed(key: Key, row: Row | None) -> bool:
    """Whether a scenario notices that this row is another one, or gone."""
    table = {k: r for k, r in TABLE.items() if k != key} | ({key: row} if row is not None else {})
    return any(_fails(name, table) for name in users().get(key, ()))


def _fails(name: str, table: dict[Key, Row]) -> bool:
    try:
        judge(SCENARIOS[name], *play(SCENARIOS[name], mutated(table)))
    except NOTICED:
        return True
    return False


@pytest.mark.parametrize("key", TABLE, ids=lambda key: f"{key[0]}-{key[1]}")
def test_every_mutant_of_a_row_is_noticed(key: Key) -> None:
    assert [name for name, row in mutants(key) if not noticed(key, row)] == []


def test_the_unchanged_table_is_not_noticed() -> None:
    assert not any(_fails(name, dict(TABLE)) for name in SCENARIOS)
