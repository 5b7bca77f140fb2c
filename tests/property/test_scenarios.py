"""Whole moves by the real table: each scenario ends as it has to, and together they use every row."""

from __future__ import annotations

import pytest

from refimpl.engine.phases import TABLE
from refimpl.engine.step import step
from refimpl.model.events import Kind
from refimpl.model.phase import Phase
from tests.property.scenario import Scenario, judge, play
from tests.property.scenarios import SCENARIOS


def rules(scenario: Scenario) -> list[str]:
    """Return the rules that a scenario proves, by what it is about."""
    about = {
        "R1": "committed" in scenario.path.split(),
        "R2": scenario.end in (Phase.FAILED, Phase.CANCELLED),
        "R4": scenario.cancel_at is not None,
        "R8": "dirty" in scenario.world and scenario.world["dirty"] > 0,
        "R10": scenario.claimed,
    }
    return [rule for rule, proved in about.items() if proved]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.rule(r) for r in rules(one)]) for name, one in SCENARIOS.items()],
)
def test_scenario(name: str) -> None:
    judge(SCENARIOS[name], *play(SCENARIOS[name]))


def test_every_row_is_used_by_a_scenario() -> None:
    used: set[tuple[Phase, Kind]] = set()

    def noting(phase: Phase, kind: Kind) -> object:
        used.add((phase, kind))
        return step(phase, kind)

    for scenario in SCENARIOS.values():
        play(scenario, noting)  # type: ignore[arg-type]
    assert sorted(f"{phase} {kind}" for phase, kind in set(TABLE) - used) == []
