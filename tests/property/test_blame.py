"""Every problem of every scenario says in which phase it was met, and goes on saying so whatever comes later."""

from __future__ import annotations

import pytest

from refimpl.model.errors import Problem
from refimpl.model.events import Event, Kind
from refimpl.model.phase import Phase
from tests.property.scenario import play
from tests.property.scenarios import SCENARIOS


def told_in(events: list[Event], id: str, begins: Phase) -> Phase | None:
    """Return the phase in which a problem of that id was first told, None when it was concluded and not told."""
    phase = begins
    for event in events:
        told = (event.values.get("problem"), *(event.values.get("problems") or ()))
        if id in [problem.id for problem in told if isinstance(problem, Problem)]:
            return phase
        if event.kind is Kind.PHASE_ENTERED:
            phase = event["phase"]
    return None


@pytest.mark.rule("R19")
@pytest.mark.parametrize("name", [name for name, scenario in SCENARIOS.items() if scenario.problem is not None])
def test_a_problem_keeps_the_phase_in_which_it_was_met(name: str) -> None:
    scenario = SCENARIOS[name]
    rig, outcome = play(scenario)
    recovered = scenario.kill_at is not None or scenario.ended is not None
    for problem in outcome.problems:
        assert problem.phase is not None
        told = None if recovered else told_in(rig.events, problem.id, Phase.NEW)
        assert told in (None, problem.phase), problem.id
