"""A controller that is killed at every entry of its journal: whatever move it was, recovery ends it truly.

The moves are ordinary ones, cancelled and failed ones, and moves with their disks. Each is played once to the end to
count its entries, and then anew for each of them: killed before the entry is durable, when it is and its command was
not given yet, and when the command was given. Recovery has the journal, or only what claim and mark keep.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from refimpl.model.events import Kind
from refimpl.model.ledger import Ledger
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from refimpl.model.request import Command, MigrationRequest
from refimpl.model.storage import StorageWish
from tests import recorded
from tests.moves import Killed, MemoryJournal, Rig
from tests.property.scenario import fault, faults, hangs
from tests.soak.simulated import LOCAL, WitnessedWorld, world_data

MOST_RECOVERIES = 3
LATER_MS = 60_000
BEFORE, DURABLE, GIVEN = "before it is durable", "before its command", "after its command"
AT_SOURCE = (Phase.REFUSED, Phase.FAILED, Phase.CANCELLED)
CALM: dict[str, Any] = {"dirty": 20_000_000}


@dataclass(frozen=True)
class Move:
    """One move: its world, what was asked for, and when a person cancels it. `ends` are those of an unkilled one.

    `dear`: to find out whether the model of the hand-over has it, killed at each entry, takes half a minute or more.
    """

    ends: Phase
    world: Mapping[str, Any] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    disks: Mapping[str, Any] | None = None
    state: str = "running"
    cancel_at: Kind | Phase | None = None
    dear: bool = False


MOVES: dict[str, Move] = {
    "ordinary": Move(Phase.COMPLETED),
    "delegated": Move(Phase.COMPLETED, {"hand_over": "delegated"}),
    "paused": Move(Phase.COMPLETED, state="paused"),
    "off": Move(Phase.COMPLETED, state="off"),
    "writes too fast": Move(Phase.COMPLETED, {"dirty": 900_000_000}),
    "cancelled when claimed": Move(Phase.CANCELLED, cancel_at=Kind.CLAIMED),
    "cancelled when prepared": Move(Phase.CANCELLED, cancel_at=Kind.PREPARED),
    "cancelled in the memory": Move(Phase.CANCELLED, cancel_at=Phase.MEMORY),
    "cancelled too late": Move(Phase.COMPLETED_WITH_WARNINGS, cancel_at=Phase.SWITCH),
    "not prepared": Move(Phase.FAILED, fault("prepare-fails")),
    "refused by the system below": Move(Phase.REFUSED, fault("native-refusal")),
    "no network": Move(Phase.REFUSED, fault("no-connection", network="migration")),
    "failed in the memory": Move(Phase.FAILED, fault("call-fails", during="memory")),
    "failed in the switch": Move(Phase.FAILED, fault("call-fails", during="switch")),
    "the destination's process dies": Move(Phase.FAILED, fault("destination-dies", during="memory")),
    "the call lies": Move(Phase.COMPLETED, fault("call-lies", during="switch")),
    "refused to run once": Move(Phase.COMPLETED, fault("run-refused"), dear=True),
    "the destination is silent for a while": Move(
        Phase.COMPLETED, fault("host-freezes", host="b", during="switch", for_ms=5_000)
    ),
    "the source is silent and its process is ended": Move(
        Phase.COMPLETED_WITH_WARNINGS, fault("host-freezes", host="a", during="arrived", for_ms=3_000), dear=True
    ),
    "stalls": Move(Phase.FAILED, fault("stalls", during="memory")),
    "putting in order fails once": Move(
        Phase.INDETERMINATE, faults(fault("call-fails", during="memory"), fault("settle-fails")), dear=True
    ),
    "binding is not seen": Move(Phase.COMPLETED, hangs("look-for-binding")),
    "with disks": Move(Phase.COMPLETED, disks={}),
    "with disks, delegated": Move(Phase.COMPLETED, {"hand_over": "delegated"}, disks={}),
    "with disks, paused": Move(Phase.COMPLETED, disks={}, state="paused"),
    "with disks, cancelled while they are copied": Move(Phase.CANCELLED, disks={}, cancel_at=Phase.STORAGE),
    "with disks, cancelled in the memory": Move(Phase.CANCELLED, disks={}, cancel_at=Phase.MEMORY),
    "with disks, no room": Move(Phase.FAILED, fault("disk-full", during="storage"), disks={}),
    "with disks, no room in the memory": Move(Phase.FAILED, fault("disk-full", during="memory"), disks={}),
    "with disks, failed in the switch": Move(Phase.FAILED, fault("call-fails", during="switch"), disks={}, dear=True),
    "with disks that are kept": Move(Phase.COMPLETED, disks={"avoid_removing_vhds": True}),
}


@dataclass
class CutJournal(MemoryJournal):
    """A journal that counts its entries; at one of them the process that writes it is killed.

    What is written while nothing is to be done counts once for each phase, with `flushes` each time.
    """

    entries: int = 0
    cut: tuple[int, str] | None = None
    flushes: bool = False

    def intend(self, phase: Phase, ledger: Ledger, commands: Sequence[Command], *, durable: bool = True) -> None:
        self._reach(BEFORE)
        self.phase, self.ledger = phase, json.dumps(ledger.to_json())
        self.step = max([self.step, *(command.step for command in commands)])
        self._pass()

    def flush(self, phase: Phase, ledger: Ledger) -> None:
        if not self.flushes and self.phase is phase:
            return super().flush(phase, ledger)
        self._reach(BEFORE)
        super().flush(phase, ledger)
        return self._pass()

    def end(self, phase: Phase, ledger: Ledger, outcome: dict[str, Any]) -> None:
        self._reach(BEFORE)
        super().end(phase, ledger, outcome)
        self._pass()

    def _reach(self, when: str) -> None:
        if self.cut == (self.entries, when):
            raise Killed(f"entry {self.entries}, {when}")

    def _pass(self) -> None:
        self._reach(DURABLE)
        self.entries += 1


class UnjudgedRig(Rig):
    """A rig whose moves the world alone judges."""

    def _record(self) -> None:
        self.trace = []
        recorded.record(self.trace, not_modelled="a controller killed at every entry beside a fault: too many states")


def rig_of(move: Move, cut: tuple[int, str] | None, flushes: bool) -> Rig:
    """Make the world of a move, whose controller is killed at an entry."""
    data = world_data(CALM | dict(move.world), local=move.disks is not None)
    data["vms"][0]["state"] = move.state
    wish = None if move.disks is None else StorageWish(include=True, **move.disks)
    request = replace(MigrationRequest("web", "b"), **move.request, storage=wish)
    kind = UnjudgedRig if move.dear else Rig
    return kind(WitnessedWorld(data), request, journal=CutJournal(cut=cut, flushes=flushes))


def played(move: Move, cut: tuple[int, str] | None, flushes: bool) -> tuple[Rig, Outcome | None]:
    """Play a move until its end (or None) by its controller's death."""
    rig = rig_of(move, cut, flushes)
    journal = rig.journal
    assert isinstance(journal, CutJournal)
    given: list[int] = []

    def after_its_command(name: str) -> None:
        # Commands that have no entry of their own are given between two of them: they count with the one before.
        if name.startswith("given:") and cut == (journal.entries - 1, GIVEN) and journal.entries not in given:
            given.append(journal.entries)
            raise Killed(name)

    outcome = rig.start(cancel_at=move.cancel_at, stop_point=after_its_command)
    journal.cut = None
    return rig, outcome


def recovered(rig: Rig, *, with_journal: bool, after_ms: int) -> Outcome:
    """Recover as a user would: again while the end says so, with all faults over."""
    world = rig.world
    assert isinstance(world, WitnessedWorld)
    outcome = rig.recover(after_ms=after_ms, with_journal=with_journal or not rig.store.claims())
    for _ in range(MOST_RECOVERIES):
        behind = any(warning.id == "cleanup.left_behind" for warning in outcome.warnings)
        if outcome.end is not Phase.INDETERMINATE and not behind:
            break
        world.lift()
        outcome = rig.recover(after_ms=LATER_MS, with_journal=True)
    world.lift()
    return outcome


def judge(move: Move, rig: Rig, outcome: Outcome) -> None:
    """One owner, no leftovers, a true end."""
    world = rig.world
    assert isinstance(world, WitnessedWorld)
    assert (world.two_ran, world.stale_ran, world.taken_away) == ([], [], [])
    place = "b" if outcome.completed else "a"
    assert outcome.completed or outcome.end in AT_SOURCE, outcome
    assert rig.copies() == {place: move.state}, (outcome.end, rig.copies())
    assert ([c.operation for c in rig.store.claims()], rig.marks(), rig.made()) == ([], [], [])
    assert [t.operation for t in world.transfers.values() if t.open] == []
    assert rig.lacking() == []
    record = next(iter(rig.store.owners()), None)
    assert record is None or (record.owner, record.pending) == (place, None)
    if move.disks == {}:
        other = {"a": "b", "b": "a"}[place]
        assert (rig.files(place), rig.files(other)) == ([LOCAL], [])


def cuts(move: Move, flushes: bool) -> list[tuple[int, str]]:
    """Return every cut of a move, whose journal is counted, and whose end is judged, by one that nobody kills."""
    rig, outcome = played(move, None, flushes)
    assert outcome is not None
    assert outcome.end is move.ends, (outcome, rig.path())
    assert isinstance(rig.journal, CutJournal)
    return [(entry, when) for entry in range(rig.journal.entries) for when in (BEFORE, DURABLE, GIVEN)]


def killed_at_every_entry(move: Move, *, with_journal: bool, flushes: bool) -> None:
    killed, all_cuts = 0, cuts(move, flushes)
    for number, cut in enumerate(all_cuts):
        # At once or a minute later: each by turns, and the other way round where there is no journal.
        for after_ms in (0, LATER_MS) if flushes else ((0, LATER_MS)[(number + with_journal) % 2],):
            rig, outcome = played(move, cut, flushes)
            killed += outcome is None
            try:
                judge(move, rig, recovered(rig, with_journal=with_journal, after_ms=after_ms))
            except AssertionError as failure:
                raise AssertionError(f"killed at entry {cut}, recovered after {after_ms} ms: {failure}") from failure
    assert killed * 3 >= len(all_cuts) * (4 if flushes else 2), "before each entry and after it, at least"


@pytest.mark.rule("R1", "R2", "R3")
@pytest.mark.parametrize("with_journal", [True, False], ids=["with journal", "without journal"])
@pytest.mark.parametrize("name", MOVES)
def test_killed_at_every_entry(name: str, with_journal: bool) -> None:
    killed_at_every_entry(MOVES[name], with_journal=with_journal, flushes=False)


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.rule("R1", "R2", "R3")
@pytest.mark.parametrize("name", MOVES)
def test_killed_at_every_entry_and_whenever_events_are_written(name: str) -> None:
    killed_at_every_entry(MOVES[name], with_journal=True, flushes=True)
