"""An explicit-state checker: breadth first, so that a counterexample is a shortest one (ADR 0011).

States are remembered by a 64-bit hash and the hash of the state before, never as a whole: a trace is found again by
going from the beginning along those hashes. Two states with one hash would be taken for one; with n states that has a
probability of about n * n / 2 ** 65, which `Result.collision` says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.handover_model.model import Model, Move, State, violation

DEBUG = False
Judge = Callable[[Model, State], str | None]


@dataclass
class Result:
    """What was found. `complete`: every state within the bounds was visited. `trace`: the shortest way to `violation`."""

    states: int = 0
    moves: int = 0
    minds: int = 0
    seconds: float = 0.0
    complete: bool = True
    violation: str | None = None
    trace: list[Move] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)

    @property
    def collision(self) -> float:
        """The probability that two states were taken for one."""
        return self.states * self.states / 2.0**65


def check(model: Model, most_states: int = 50_000_000, judge: Judge = violation) -> Result:
    """Visit all states within the model's bounds, or until one is wrong."""
    began, result = time.monotonic(), Result()
    first = model.begin()
    before: dict[int, int] = {hash(first): 0}
    border = [first]
    while border and result.complete:
        if DEBUG: print(len(border), len(before), model.minds.size, flush=True)
        border = _next_border(model, border, before, result, judge)
        if result.violation is None and len(before) > most_states:
            result.complete = False
    result.states, result.minds, result.seconds = len(before), model.minds.size, time.monotonic() - began
    return result


def _next_border(
    model: Model, border: list[State], before: dict[int, int], result: Result, judge: Judge
) -> list[State]:
    found: list[State] = []
    for state in border:
        name, moves = hash(state), 0
        for move in model.moves(state):
            moves += 1
            after = hash(move.state)
            if after in before:
                continue
            before[after] = name
            found.append(move.state)
            wrong = judge(model, move.state)
            if wrong is not None:
                result.violation, result.complete = wrong, False
                result.trace = _way(model, before, after)
                return []
        result.moves += moves
        if not state.alive:
            end = str(model.phase(state))
            result.ends[end] = result.ends.get(end, 0) + 1
    return found


def _way(model: Model, before: dict[int, int], last: int) -> list[Move]:
    """Go from the beginning to a state, by the hashes of the states between."""
    names = [last]
    while before[names[-1]]:
        names.append(before[names[-1]])
    state, way = model.begin(), []
    for name in reversed(names[:-1]):
        move = next(move for move in model.moves(state) if hash(move.state) == name)
        way.append(move)
        state = move.state
    return way


def told(model: Model, way: list[Move]) -> str:
    """Return a trace for a person: what happened, and how it stands then."""
    lines = [f"{0:3} {_stands(model, model.begin())}"]
    for number, move in enumerate(way, 1):
        lines += [f"{number:3} {move}", f"      {_stands(model, move.state)}"]
    return "\n".join(lines)


def _stands(model: Model, state: State) -> str:
    source = f"source {state.sq}/{state.sjob or 'no job'}" + ("" if state.sd == "up" else f" (daemon {state.sd})")
    there = f"destination {state.dq}/{state.djob or 'no job'}" + ("" if state.dd == "up" else f" (daemon {state.dd})")
    engine = f"engine {model.phase(state)}" + ("" if state.alive else " (no controller)")
    more = [f"{name} {value}" for name, value in (("lease", state.lease), ("under way", state.msg)) if value]
    return "; ".join([source, there, engine, *more])
