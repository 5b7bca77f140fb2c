"""SIGKILL of the conductor process at every entry of its journal, on real hosts; then it is recovered, as a user would.

What entries a move has is told by moves that nobody kills. An entry is named by its phase and by what it is of: the
commands that are given next, the event that was taken in last, or the end. Every name is met; of a name that a move
has several times (progress, passes) the first two are. The conductor is held by a stop point: the entry is written,
and nothing was done since. After each command that was given it is killed too, before it writes the next entry.

An entry that only tells of events may be one with the next when both come at once, and not every move has to give the
same commands; such a point is tried a few times, and only such a one may go unmet.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from refimpl.app.operations import Operation
from refimpl.app.recovery import recover_one
from refimpl.hosts.stops import PASSED_VARIABLE
from refimpl.meter.disk import disk_verdict
from refimpl.meter.verdict import State
from refimpl.model.facts import VmState
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from refimpl.model.request import CommandKind
from refimpl.model.storage import StorageWish
from tests.lab.faulted import one_copy, owned_by
from tests.lab.moving import Moving, Stop, joined_log, until
from tests.lab.storing import RAW, Storing, storing_guest

pytestmark = [pytest.mark.lab, pytest.mark.full, pytest.mark.timeout(900)]

ENTRY, GIVEN = "entry:", "given:"
CLEAN_MOVES, ATTEMPTS, REPEATS = 2, 3, 2
AT_SOURCE = (Phase.REFUSED, Phase.FAILED, Phase.CANCELLED)
COMMANDS = frozenset(CommandKind)


@dataclass
class Kills:
    """Moves of one guest, each killed somewhere. `ends`: how they ended, by phase of the entry or after a command.

    `always`: the points to which each move comes that nobody kills.
    """

    moving: Moving
    changes: dict[str, Any]
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    unmet: list[str] = field(default_factory=list)
    always: set[str] = field(default_factory=set)

    def entries(self) -> list[str]:
        """Return the names of all entries and commands of moves that nobody kills, in their order."""
        found: dict[str, None] = {}
        for number in range(CLEAN_MOVES):
            passed = self.moving.directory / f"passed-{number}"
            os.environ[PASSED_VARIABLE] = str(passed)
            try:
                outcome = self.moving.start(**self.changes).wait()
            finally:
                del os.environ[PASSED_VARIABLE]
            assert outcome.end is Phase.COMPLETED, outcome
            names = [name for name in passed.read_text("utf-8").splitlines() if name.startswith((ENTRY, GIVEN))]
            print(f"a move that nobody kills has {sum(name.startswith(ENTRY) for name in names)} entries")
            names = [name for name in names if int(name.partition("#")[2] or 1) <= REPEATS]
            self.always = self.always.intersection(names) if number else set(names)
            found.update(dict.fromkeys(names))
        return list(found)

    def kill_at(self, name: str) -> None:
        """Kill a move at an entry, and judge what comes of it."""
        began_s = time.monotonic()
        source, destination = self.moving.place(), self.moving.other()
        operation = self._killed(name)
        if operation is None:
            self.unmet.append(name)
            return
        outcome = self._recovered(operation)
        self._judge(outcome, source, destination)
        self.ends[_where(name), outcome.end] += 1
        print(f"{name:60} {outcome.end:12} {time.monotonic() - began_s:5.1f} s")

    def _killed(self, name: str) -> Operation | None:
        for _ in range(ATTEMPTS):
            with self.moving.stop_at(name) as stop:
                operation = self.moving.start(**self.changes)
                if _stands(stop, operation):
                    os.kill(stop.reached(), signal.SIGKILL)
                    until(lambda operation=operation: not operation.alive(), "the end of the conductor")
                    return operation
            assert operation.outcome().end is Phase.COMPLETED
        return None

    def _recovered(self, operation: Operation) -> Outcome:
        found = self.moving.interrupted()
        if not found:
            return operation.outcome()
        (item,) = found
        assert item.operation == operation.id
        return recover_one(self.moving.home, self.moving.group, item).wait()

    def _judge(self, outcome: Outcome, source: str, destination: str) -> None:
        """One copy, and where the end says; the owner; every acknowledged write; nothing left."""
        moving = self.moving
        assert outcome.completed or outcome.end in AT_SOURCE, outcome
        host, other = (destination, source) if outcome.completed else (source, destination)
        assert moving.states() == {host: VmState.RUNNING}, outcome
        assert outcome.runs_on in (host, None), outcome
        owned_by(moving, host)
        moving.works()
        moving.nothing_left()
        self._disk(host, other)

    def _disk(self, host: str, other: str) -> None:
        moving = self.moving
        disk = Path(moving.spec.disk_path)
        if isinstance(moving, Storing):
            assert (moving.files(host), moving.files(other)) == ({RAW}, set())
            disk = moving.local(host) / RAW
        log = joined_log(moving)
        verdict = disk_verdict(log, disk, boot=log.boots[-1])
        assert verdict.state is State.OK, verdict


def _stands(stop: Stop, operation: Operation) -> bool:
    """Wait until the conductor stands at the point, or has ended without coming to it."""
    until(lambda: stop.marker.exists() or not operation.alive(), f"{stop.name}, or the end")
    return stop.marker.exists()


def _where(name: str) -> str:
    return f"in {name.split(':')[1]}" if name.startswith(ENTRY) else "after a command"


def _only_events(name: str) -> bool:
    what = name.partition("#")[0].split(":")[-1]
    return name.startswith(ENTRY) and what != "end" and not COMMANDS.intersection(what.split("+"))


def killed_everywhere(moving: Moving, **changes: Any) -> None:
    kills = Kills(moving, changes)
    with one_copy(moving):
        names = kills.entries()
        for name in names:
            try:
                kills.kill_at(name)
            except AssertionError as failure:
                raise AssertionError(f"killed at {name}: {failure}") from failure
    for (where, end), count in sorted(kills.ends.items()):
        print(f"killed {where:16} {count:3} ended as {end}")
    print(f"{len(names)} entries and commands, killed at {sum(kills.ends.values())} of them; not met: {kills.unmet}")
    assert all(_only_events(name) for name in kills.always.intersection(kills.unmet)), kills.unmet
    assert {_where(name) for name in kills.always} <= {where for where, _ in kills.ends}


@pytest.mark.rule("R1", "R2")
def test_an_ordinary_move(moving: Moving) -> None:
    killed_everywhere(moving)


@pytest.fixture
def storing(tmp_path: Path) -> Iterator[Storing]:
    with storing_guest(tmp_path) as storing:
        yield storing
        storing.whole()


@pytest.mark.rule("R1", "R2", "R3")
def test_a_move_with_its_disks(storing: Storing) -> None:
    killed_everywhere(storing, storage=StorageWish(include=True))
