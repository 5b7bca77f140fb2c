"""What the engine adds to a problem, and what it must not lose of it: phase, side, host, and the native code."""

from __future__ import annotations

import pytest

from refimpl.engine.store import Claim, MemoryStore
from refimpl.model.errors import Native, Problem
from refimpl.model.events import Event, Kind
from refimpl.model.phase import Phase, Side
from tests.builders import SETTINGS, event, plan
from tests.scripted import IDENTITY, STAYED, Run

K, P = Kind, Phase
STAYS = [event(K.EVIDENCE_SEEN, evidence=STAYED)]
NATIVE = Native("connect", 110, "connection timed out")


class FilledMeanwhile(MemoryStore):
    """A store that shows no claims to the checks: they are made only afterwards."""

    def claims(self) -> tuple[Claim, ...]:
        return ()


@pytest.mark.rule("R7", "R19")
@pytest.mark.error("limit.reached")
@pytest.mark.parametrize(
    ("busy", "side"), [({"source": "a", "destination": "c"}, Side.SOURCE), ({"source": "c"}, Side.DESTINATION)]
)
def test_a_limit_at_the_claim_is_of_the_side_that_has_it(busy: dict[str, str], side: Side) -> None:
    store = FilledMeanwhile(SETTINGS)
    for other in ("1", "2"):
        store.claim(Claim(other, "/home/two", IDENTITY.process, plan(vm_id=other, **busy)))
    result = Run(store=store).conductor.start()
    (problem,) = result.problems
    host = {Side.SOURCE: "a", Side.DESTINATION: "b"}[side]
    assert (problem.id, problem.side, problem.host, problem.phase) == ("limit.reached", side, host, P.SETUP)
    assert f"(seen at the {side} on host {host!r})" in problem.text


@pytest.mark.rule("R7")
@pytest.mark.error("limit.reached")
def test_a_limit_that_is_reached_already_is_found_by_the_checks() -> None:
    """So that the report and the first answer say it, and nothing is claimed first."""
    store = MemoryStore(SETTINGS)
    for other in ("1", "2"):
        store.claim(Claim(other, "/home/two", IDENTITY.process, plan(vm_id=other, source="c")))
    result = Run(store=store).conductor.start()
    assert result.end is P.REFUSED
    assert [(p.id, p.side, p.host, p.phase) for p in result.problems] == [
        ("limit.reached", Side.DESTINATION, "b", P.CHECK)
    ]
    assert result.problems[0].values["operations"] == "1, 2"


@pytest.mark.rule("R13", "R19")
@pytest.mark.error("network.no_connection")
def test_when_no_network_is_left_the_last_ones_cause_is_kept(run_with: list[str]) -> None:
    answers = iter(run_with)

    def failed() -> list[Event]:
        address = next(answers)
        native = Native("connect", 110, f"no answer from {address}")
        cause = Problem(
            "network.no_connection", {"host": "b", "tried": address}, side=Side.SOURCE, host="a", native=native
        )
        return [event(K.NETWORK_FAILED, address=address, problem=cause)]

    result = Run(PREPARE=failed, INSPECT=STAYS).conductor.start()
    assert result.end is P.REFUSED
    (problem,) = result.problems
    assert problem.native == Native("connect", 110, f"no answer from {run_with[-1]}")
    assert problem.values["tried"] == ", ".join(run_with)
    assert (problem.phase, problem.side, problem.host) == (P.SETUP, Side.SOURCE, "a")


@pytest.fixture
def run_with() -> list[str]:
    """The networks of the plan, in their order."""
    return ["10.1.0.2", "10.2.0.2"]


@pytest.mark.rule("R19")
@pytest.mark.parametrize(
    ("command", "kind", "phase"),
    [
        ("PREPARE", K.PREPARE_FAILED, P.SETUP),
        ("START_TRANSFER", K.NATIVE_REFUSAL, P.SETUP),
        ("START_TRANSFER", K.CALL_RETURNED, P.MEMORY),
    ],
)
def test_a_problem_of_the_backend_is_kept_whole_with_the_phase_in_which_it_came(
    command: str, kind: Kind, phase: Phase
) -> None:
    problem = Problem("transfer.failed", {"vm": "web"}, side=Side.DESTINATION, host="b", native=NATIVE)
    before = [event(K.MEMORY_SEEN)] if phase is P.MEMORY else []
    run = Run(INSPECT=STAYS, **{command: [*before, event(kind, problem=problem)]})
    (found,) = run.conductor.start().problems
    assert (found.phase, found.side, found.host, found.native) == (phase, Side.DESTINATION, "b", NATIVE)
    assert found.text.endswith("(seen at the destination on host 'b')")
