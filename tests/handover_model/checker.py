"""An explicit-state checker: breadth first, so that a counterexample is a shortest one (ADR 0013).

States are remembered by a 64-bit hash and the hash of the state before, never as a whole: a trace is found again by
going from the beginning along those hashes. Two states with one hash would be taken for one; with n states that has a
probability of about n * n / 2 ** 65, which `Result.collision` says.
"""

from __future__ import annotations

import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.handover_model.model import Model, Move, violation
from tests.handover_model.world import State

Judge = Callable[[Model, State], str | None]

STUCK = "from here no end can be reached without a further fault"


@dataclass
class Result:
    """What was found. `complete`: every state within the bounds was visited. `trace`: the shortest way to `violation`.

    `ends`: how many states there are in which no controller is at work, by the phase of the last one.
    """

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

    @property
    def last(self) -> State:
        """The state that is wrong."""
        return self.trace[-1].state


class _Search:
    """One search from a first state: all states so far, each with the one before it."""

    def __init__(self, model: Model, first: State, judge: Judge, progress: bool) -> None:
        self.model, self.first, self.judge = model, first, judge
        self.before: dict[int, int] = {hash(first): 0}
        self.leads_here: dict[int, list[int]] | None = defaultdict(list) if progress else None
        self.ended: list[int] = []
        self.result = Result()

    def next_border(self, border: list[State]) -> list[State]:
        """Take every move of a border; return the states that are new."""
        found: list[State] = []
        for state in border:
            name = hash(state)
            if not state.alive:
                self._count_end(name, state)
            for move in self.model.moves(state):
                self.result.moves += 1
                after = hash(move.state)
                if self.leads_here is not None and not move.what.startswith("FAULT"):
                    self.leads_here[after].append(name)
                if after in self.before:
                    continue
                self.before[after] = name
                found.append(move.state)
                wrong = self.judge(self.model, move.state)
                if wrong is not None:
                    self._is_wrong(wrong, after)
                    return []
        return found

    def look_for_stuck_ones(self) -> None:
        """Go back from all ends; what is not met on the way cannot reach one."""
        assert self.leads_here is not None
        met, border = set(self.ended), self.ended
        while border:
            border = [name for after in border for name in self.leads_here.get(after, ()) if name not in met]
            met.update(border)
        stuck = next((name for name in self.before if name not in met), None)
        if stuck is not None:
            self._is_wrong(STUCK, stuck)

    def _count_end(self, name: int, state: State) -> None:
        phase = str(self.model.phase(state))
        self.result.ends[phase] = self.result.ends.get(phase, 0) + 1
        if self.model.has_ended(state):
            self.ended.append(name)

    def _is_wrong(self, wrong: str, name: int) -> None:
        self.result.violation, self.result.complete = wrong, False
        self.result.trace = self._way(name)

    def _way(self, last: int) -> list[Move]:
        """Go from the beginning to a state, by the hashes of the states between."""
        names = [last]
        while self.before[names[-1]]:
            names.append(self.before[names[-1]])
        state, way = self.first, []
        for name in reversed(names[:-1]):
            move = next(move for move in self.model.moves(state) if hash(move.state) == name)
            way.append(move)
            state = move.state
        return way


def check(
    model: Model,
    *,
    first: State | None = None,
    judge: Judge = violation,
    most_states: int = 50_000_000,
    progress: bool = False,
) -> Result:
    """Visit all states within the model's bounds from the first, or until one is wrong.

    `progress`: a state from which no end can be reached, but for further faults, is wrong too; that takes more memory.
    """
    began = time.monotonic()
    first = first or model.begin()
    search = _Search(model, first, judge, progress)
    border = [first]
    with _no_garbage_collection():
        while border and len(search.before) <= most_states:
            border = search.next_border(border)
        result = search.result
        result.complete = result.complete and not border
        if progress and result.complete:
            search.look_for_stuck_ones()
    result.states, result.minds, result.seconds = len(search.before), model.minds.size, time.monotonic() - began
    return result


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """States refer to each other in no circles; looking for some takes a third of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def told(model: Model, way: list[Move], first: State | None = None) -> str:
    """Return a trace for a person: what happened, and how it stands then."""
    lines = [f"{0:3} {_stands(model, first or model.begin())}"]
    for number, move in enumerate(way, 1):
        lines += [f"{number:3} {move}", f"      {_stands(model, move.state)}"]
    return "\n".join(lines)


def _stands(model: Model, state: State) -> str:
    source = f"source {state.sq}/{state.sjob or 'no job'}" + ("" if state.sd == "up" else f" (daemon {state.sd})")
    there = f"destination {state.dq}/{state.djob or 'no job'}" + ("" if state.dd == "up" else f" (daemon {state.dd})")
    engine = f"engine {model.phase(state)}" + ("" if state.alive else " (no controller)")
    more = [f"{name} {value}" for name, value in (("lease", state.lease), ("under way", state.msg)) if value]
    return "; ".join([source, there, engine, *more])
