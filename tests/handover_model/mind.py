"""The controller of the model: the real conductor, with its table, policies, ledger and records, as a pure function.

What a controller knows is a phase, a ledger and what the group store holds. `Minds.take` gives it one event and returns
every way in which that may go on: it carries on, or dies before or after each command of the answer. Ledgers are made
equal where no decision can tell them apart (texts, times, counters below their limit), and results are remembered, so
that a state space of millions needs a few thousand runs of the conductor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from refimpl.engine.conductor import Conductor, Identity
from refimpl.engine.phases import QUIET, Row
from refimpl.engine.step import step as table_step
from refimpl.engine.store import Claim, MemoryStore
from refimpl.model.errors import Problem
from refimpl.model.events import Event, Kind
from refimpl.model.facts import CopySeen, Evidence
from refimpl.model.group import ProcessRef
from refimpl.model.ledger import Ledger
from refimpl.model.ownership import OwnerRecord
from refimpl.model.phase import ENDS, Phase
from refimpl.model.request import Command, CommandKind, HandOver, MigrationRequest, Plan
from refimpl.policy.reconciliation import MOST_SILENT_LOOKS

OPERATION, VM_ID = "0a1b2c3d", "11111111-2222-4333-8444-555555555555"
PLAN = Plan("web", VM_ID, "a", "b", networks=("192.0.2.2",))
REQUEST = MigrationRequest("web", "b", source="a")
IDENTITY = Identity("model", ProcessRef(1, 1, "boot"))

Key = tuple[Any, ...]
"""An event as the model writes it: the kind's value first, then what a decision can depend on."""

Step = Callable[[Phase, Kind], Row]


class Mind(NamedTuple):
    """What a controller and the group store know."""

    phase: Phase
    ledger: Ledger
    record: OwnerRecord | None
    claimed: bool


class Kept(NamedTuple):
    """What a controller's journal keeps."""

    phase: Phase
    ledger: Ledger


class Taken(NamedTuple):
    """One way in which an event is taken. `mind`, `kept` are numbers; `dies`: the controller did, in the middle.

    `commands` went to the backend; `waits`: LOOK_DUE comes after a while; `notes`: decisions, phases and commands, as
    the event stream shows them.
    """

    mind: int
    kept: int
    commands: tuple[str, ...]
    waits: bool
    dies: bool
    notes: tuple[str, ...]


class _Killed(Exception):
    """The controller dies at a stop point."""


class _Timeline:
    """A clock that stands still and an inbox that remembers only that LOOK_DUE was wished."""

    def __init__(self) -> None:
        self.waits = False

    def now_ns(self) -> int:
        return 0

    def post(self, event: Event) -> None:
        raise AssertionError(f"the conductor posted {event.kind}")

    def post_after(self, event: Event, after_ms: int) -> None:
        assert event.kind is Kind.LOOK_DUE
        self.waits = True

    def arm(self, name: str, after_ms: int) -> None: ...

    def disarm(self, name: str) -> None: ...

    def next(self) -> Event | None:
        return None

    def idle(self) -> bool:
        return True


class _Journal:
    """The last state that was made durable."""

    def __init__(self, kept: Kept | None, first_look: bool) -> None:
        self.kept = kept
        self._first_look = first_look

    def note(self, event: Event) -> None: ...

    def intend(self, phase: Phase, ledger: Ledger, commands: Sequence[Command], *, durable: bool = True) -> None:
        self.flush(phase, ledger)

    def flush(self, phase: Phase, ledger: Ledger) -> None:
        self.kept = Kept(phase, canonical(ledger, self._first_look))

    def end(self, phase: Phase, ledger: Ledger, outcome: dict[str, Any]) -> None:
        self.flush(phase, ledger)


class _Orders:
    """Takes the commands that go to a backend."""

    name = "model"

    def __init__(self) -> None:
        self.given: list[str] = []

    def submit(self, command: Command) -> None:
        self.given.append(str(command.kind))


class _Stepper(Conductor):
    """A conductor that is given one event at a time."""

    def take(self, event: Event) -> None:
        self._take(event)

    def take_up(self) -> None:
        """Do what `recover` does before it waits for events."""
        before = self.phase
        self._take(self._event(Kind.RECOVER_WISHED))
        if self.phase is before and before in ENDS:
            self._release()


def canonical(ledger: Ledger, first_look: bool = False) -> Ledger:
    """Return the ledger without what no decision depends on. Looks at a silent host count as none until the last.

    `first_look`: it makes a difference whether there was one before.
    """
    patient = min(1, ledger.silent_looks) if first_look else 0
    patient = patient if ledger.silent_looks < MOST_SILENT_LOOKS else MOST_SILENT_LOOKS
    return replace(
        ledger,
        problems=_ids(ledger.problems),
        warnings=_ids(ledger.warnings),
        looks=0,
        silent_looks=patient,
        started_ns=None,
        ended_ns=None,
        commit_cost_ms=None,
        left_behind=("something",) if ledger.left_behind else (),
    )


def _ids(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    return tuple(Problem(id) for id in sorted({problem.id for problem in problems}))


class Minds:
    """All minds met so far, by number, and what each does with each event."""

    def __init__(
        self, hand_over: HandOver, step: Step = table_step, *, mortal: bool = True, first_look: bool = False
    ) -> None:
        """`mortal`: controllers may die, so what each may have done by then is wanted, too.

        `first_look`: not at the first look at a silent host is its QEMU ended, so looks are told apart.
        """
        self._first_look = first_look
        self.hand_over = hand_over
        self._mortal = mortal
        self.views: list[CopySeen] = []
        self._step = step
        self._minds: list[Mind] = []
        self._kept: list[Kept] = []
        self._numbers: dict[Any, int] = {}
        self._known: dict[tuple[int, int, Key], tuple[Taken, ...]] = {}

    def __getitem__(self, number: int) -> Mind:
        """Return a mind by its number."""
        return self._minds[number]

    def view(self, seen: CopySeen) -> int:
        """Return the number of what was seen of one side."""
        return self._number(seen, self.views)

    def begin(self, told: Sequence[Kind]) -> Taken:
        """Return a controller that has claimed the VM, recorded the move, prepared it and ordered the transfer.

        `told`: what it has heard of the transfer since.
        """
        ledger = Ledger(OPERATION, "model", REQUEST, self.hand_over, PLAN, claimed=True)
        mind = self._number(Mind(Phase.SETUP, ledger, None, True), self._minds)
        kept = self._number(Kept(Phase.SETUP, ledger), self._kept)
        for key in ((Kind.CHECKS_PASSED,), (Kind.PREPARED,), *((kind,) for kind in told)):
            (taken, *_) = self.take(mind, kept, key)
            mind, kept = taken.mind, taken.kept
        return taken

    def take(self, mind: int, kept: int, key: Key) -> tuple[Taken, ...]:
        """Give a mind an event; the first way is the one in which the controller lives on."""
        known = self._known.get((mind, kept, key))
        if known is None:
            known = self._known[mind, kept, key] = self._all_ways(mind, kept, key)
        return known

    def impatient(self, mind: int) -> int:
        """Return the same mind after it has looked at a silent host as often as it may."""
        then = self._minds[mind]
        ledger = replace(then.ledger, silent_looks=MOST_SILENT_LOOKS)
        return self._number(then._replace(ledger=ledger), self._minds)

    def lost_journal(self, mind: int) -> tuple[int, int]:
        """Return mind and journal of a new controller that has only what the claim says."""
        ledger = Ledger(OPERATION, "model", REQUEST, self.hand_over, PLAN, claimed=True)
        fresh = self._minds[mind]._replace(phase=Phase.SETUP, ledger=ledger)
        return self._number(fresh, self._minds), self._number(Kept(Phase.SETUP, ledger), self._kept)

    def from_journal(self, mind: int, kept: int) -> int:
        """Return the mind of a new controller that has the journal."""
        known = self._kept[kept]
        return self._number(self._minds[mind]._replace(phase=known.phase, ledger=known.ledger), self._minds)

    @property
    def size(self) -> int:
        """How many minds were met."""
        return len(self._minds)

    def _all_ways(self, mind: int, kept: int, key: Key) -> tuple[Taken, ...]:
        lives, stops = self._way(mind, kept, key, None)
        ways = [lives, *(self._way(mind, kept, key, at)[0] for at in range(stops if self._mortal else 0))]
        return tuple(dict.fromkeys(ways))

    def _way(self, mind: int, kept: int, key: Key, dies_at: int | None) -> tuple[Taken, int]:
        """Run the conductor on one event, killed at the stop point of that number; return how many there were."""
        before, passed, notes = self._minds[mind], 0, []

        def stop(_: str) -> None:
            nonlocal passed
            if passed == dies_at:
                raise _Killed
            passed += 1

        timeline, journal, orders, store = (
            _Timeline(),
            _Journal(self._kept[kept], self._first_look),
            _Orders(),
            _store(before),
        )
        conductor = _Stepper(
            before.ledger,
            orders,  # type: ignore[arg-type]
            timeline,
            store=store,
            journal=journal,
            identity=IDENTITY,
            phase=before.phase,
            listeners=[lambda event: notes.append(_note(event))],
            stop_point=stop,
            step=self._step,
        )
        dies = False
        try:
            conductor.take_up() if key[0] is Kind.RECOVER_WISHED else conductor.take(self.event(key))
        except _Killed:
            dies = True
        if not dies and conductor.phase not in QUIET:
            journal.flush(conductor.phase, conductor.ledger)
        record, claimed = store.owner(VM_ID), bool(store.claims())
        after = Mind(conductor.phase, canonical(conductor.ledger, self._first_look), record, claimed)
        number = self._number(after, self._minds)
        told = tuple(note for note in notes[1:] if note)
        assert journal.kept is not None
        kept_now = self._number(journal.kept, self._kept)
        return Taken(number, kept_now, tuple(orders.given), timeline.waits, dies, told), passed

    def event(self, key: Key) -> Event:
        """Return the event that a key stands for."""
        kind = Kind(key[0])
        return Event(kind, 0, _VALUES[kind](self, key) if kind in _VALUES else {})

    def _number(self, thing: Any, among: list[Any]) -> int:
        # A plan holds a mapping, so minds are told apart by how they are written.
        name = thing if isinstance(thing, CopySeen) else repr(thing)
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(among)
            among.append(thing)
        return number


def _store(mind: Mind) -> MemoryStore:
    store = MemoryStore()
    if mind.claimed:
        store.claim(Claim(OPERATION, IDENTITY.controller, IDENTITY.process, PLAN))
    if mind.record is not None:
        store.swap_owner(None, mind.record)
    return store


def _note(event: Event) -> str:
    """Return how an event of the stream is written in traces, empty for what no trace is compared by."""
    if event.kind is Kind.PHASE_ENTERED:
        return f"phase {event['phase']}"
    if event.kind is Kind.COMMANDED:
        command: Command = event["command"]
        return f"command {command.kind}"
    return f"decision {event.kind}" if event.origin == "decision" else ""


def _evidence(minds: Minds, key: Key) -> dict[str, Any]:
    return {"evidence": Evidence(minds.views[key[1]], minds.views[key[2]])}


_RETURNS: dict[str, tuple[bool | None, str | None]] = {
    "ok": (True, None),
    "failed": (False, "transfer.failed"),
    "cancelled": (False, "transfer.cancelled"),
    "followed": (None, None),
    "lost": (None, "transfer.failed"),
}
"""What the long call may have returned; the last two: a transfer that was followed, to its end or until it was lost."""


def _returned(_: Minds, key: Key) -> dict[str, Any]:
    ok, problem = _RETURNS[key[1]]
    return {"ok": ok, "problem": Problem(problem) if problem else None}


_VALUES: dict[Kind, Callable[[Minds, Key], dict[str, Any]]] = {
    Kind.CHECKS_PASSED: lambda _minds, _key: {"plan": PLAN, "warnings": ()},
    Kind.PREPARED: lambda _minds, _key: {"address": PLAN.address},
    Kind.EVIDENCE_SEEN: _evidence,
    Kind.CALL_RETURNED: _returned,
    Kind.BINDING_SEEN: lambda _, key: {"bound": key[1], "reason": "seen", "silent_ms": key[2] if key[2:] else None},
    Kind.SOURCE_NOT_ENDED: lambda _minds, _key: {"reason": "taken back"},
    Kind.NATIVE_REFUSAL: lambda _minds, _key: {"problem": Problem("transfer.refused")},
    Kind.RUN_REFUSED: lambda _minds, _key: {"problem": Problem("run.refused")},
    Kind.CANNOT_SETTLE: lambda _minds, _key: {"problem": Problem("settle.failed")},
    Kind.LEFT_BEHIND: lambda _minds, _key: {"items": ("something",)},
    Kind.CANCEL_TOO_LATE: lambda _minds, _key: {"reason": "too late"},
    Kind.DEADLINE: lambda minds, key: {"name": key[1]},
}

UNANSWERED = frozenset({CommandKind.STEER_SWITCH, CommandKind.STEER_BANDWIDTH})
"""Commands whose answer decides nothing."""
