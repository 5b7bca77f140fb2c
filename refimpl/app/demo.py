"""The demo: a guest moves to another host and back while observers watch from outside.

In a lab: hosts out of nothing, a guest that works, two encrypted moves, the observers' verdicts, everything taken away
again, whatever happened in between. Simulated: the same two moves in a world in memory, on any system.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from refimpl.app.live import Followed, JsonEvent
from refimpl.app.machine import Machine, machine
from refimpl.meter.blackout import blackout
from refimpl.meter.verdict import Verdict
from refimpl.model.outcome import Outcome
from refimpl.model.phase import ExitCode
from refimpl.model.request import MigrationRequest
from refimpl.report.data import ReportData


class Teller(Protocol):
    """Is told what the demo does, as it does it."""

    def say(self, text: str) -> None:
        """Take a line for a person."""
        ...

    def step(self, name: str, took_s: float) -> None:
        """Take the end of a step and the seconds that it took."""
        ...

    def event(self, event: JsonEvent) -> None:
        """Take an event of a move."""
        ...


@dataclass(frozen=True, slots=True)
class WatchedMove:
    """One move: how it ended, what each observer found, and what a report page shows of it."""

    source: str
    destination: str
    outcome: Outcome
    verdicts: tuple[Verdict, ...]
    page: ReportData | None = None

    @property
    def mode(self) -> str:
        """How the memory went: performance option, and whether it was encrypted."""
        return f"{self.outcome.performance_option}, {'encrypted' if self.outcome.encryption else 'PLAIN'}"

    @property
    def green(self) -> bool:
        """Whether the move was completed and every observer measured and found things in order."""
        return self.outcome.completed and all(verdict.good for verdict in self.verdicts)

    def verdict(self, name: str) -> Verdict | None:
        """Return the verdict of the observer of that name, None when there was none."""
        return next((verdict for verdict in self.verdicts if verdict.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "source": self.source,
            "destination": self.destination,
            "green": self.green,
            "outcome": self.outcome.to_json(),
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
        }


@dataclass(slots=True)
class DemoReport:
    """What a demo found. `steps`: seconds by name; `planned`: how many moves it was to make.

    `left`: what still carries the lab's id; None: the lab was kept.
    """

    backend: str
    machine: Machine
    accelerator: str = ""
    lab: str = ""
    steps: dict[str, float] = field(default_factory=dict)
    moves: list[WatchedMove] = field(default_factory=list)
    left: list[str] | None = field(default_factory=list)
    planned: int = 2

    @property
    def green(self) -> bool:
        """Whether all moves are green and nothing is left."""
        return len(self.moves) == self.planned and all(move.green for move in self.moves) and not self.left

    @property
    def exit_code(self) -> int:
        """0 when green; that of a move that was not completed; else that of a broken environment."""
        ends = [move.outcome.exit_code for move in self.moves if not move.outcome.completed]
        return ExitCode.OK if self.green else max(ends, default=ExitCode.ENVIRONMENT)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "backend": self.backend,
            "virtual_time": self.backend == "simulated",
            "green": self.green,
            "machine": self.machine.to_json(),
            "accelerator": self.accelerator,
            "lab": self.lab,
            "steps_s": self.steps,
            "moves": [move.to_json() for move in self.moves],
            "left": self.left,
            "exit_code": int(self.exit_code),
        }


def follow(operation: Followed, teller: Teller) -> tuple[Outcome, list[JsonEvent]]:
    """Follow a move to its end; return how it ended and all its events."""
    events = []
    for event in operation.events():
        teller.event(event)
        events.append(event)
    return operation.outcome(), events


def simulated_demo(world_file: Path | None, teller: Teller) -> DemoReport:
    """Move the first VM of a world to another host and back, under virtual time."""
    from refimpl.app.simulated import SimulatedOperation, open_world

    world = open_world(world_file)
    report = DemoReport("simulated", machine())
    vm = world.spec.vms[0]
    other = next((name for name in world.spec.hosts if name != vm.host), vm.host)
    for number, (source, destination) in enumerate(((vm.host, other), (other, vm.host)), 1):
        teller.say(f"move of VM {vm.name!r} from host {source} to host {destination}")
        request = MigrationRequest(vm=vm.name, destination=destination, source=source)
        operation = SimulatedOperation(world, request, f"simulated-{number}", world_file)
        outcome, events = follow(operation, teller)
        verdicts = (blackout(events, source, destination),)
        report.moves.append(WatchedMove(source, destination, outcome, verdicts, operation.report(verdicts)))
        if not outcome.completed:
            break
    return report
