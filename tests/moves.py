"""Whole moves in a simulated world: table, policies, conductor and backend together, under virtual time.

A `Rig` is what outlives a controller: the world, the claims and the journal. `start` and `recover` each make a
conductor of their own, as a process would be.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from refimpl.backends.simulated import SimulatedBackend, World, host_settings
from refimpl.engine.conductor import Conductor, Identity
from refimpl.engine.phases import Row
from refimpl.engine.step import step as table_step
from refimpl.engine.store import Claim, MemoryStore
from refimpl.engine.timeline import VirtualTimeline
from refimpl.model.errors import error
from refimpl.model.events import Event, Kind
from refimpl.model.facts import VmState
from refimpl.model.group import ProcessRef
from refimpl.model.ledger import Ledger
from refimpl.model.outcome import Outcome
from refimpl.model.ownership import OwnerRecord
from refimpl.model.phase import Phase
from refimpl.model.request import Command, MigrationRequest
from tests import recorded

OPERATION = "0a1b2c3d"
MOST_EVENTS = 500
"""More than any scenario needs; a conductor that goes in circles is stopped here."""

Step = Callable[[Phase, Kind], Row]


class Killed(Exception):
    """The conductor was killed at its stop point."""


class Circles(AssertionError):
    """The conductor goes in circles."""


@dataclass
class MemoryJournal:
    """What would be on the disk: state as of the last time that the conductor made it durable."""

    phase: Phase | None = None
    ledger: str = ""
    step: int = 0
    ended: bool = False

    def note(self, event: Event) -> None:
        """Keep nothing of events."""

    def intend(self, phase: Phase, ledger: Ledger, commands: Sequence[Command], *, durable: bool = True) -> None:
        self.flush(phase, ledger)
        self.step = max([self.step, *(command.step for command in commands)])

    def flush(self, phase: Phase, ledger: Ledger) -> None:
        self.phase, self.ledger = phase, json.dumps(ledger.to_json())

    def end(self, phase: Phase, ledger: Ledger, outcome: dict[str, Any]) -> None:
        self.flush(phase, ledger)
        self.ended = True


Happens = tuple[Kind | Phase, Callable[["Rig"], None]] | None

Wishes = Mapping[Kind | Phase | None, tuple[Kind, dict[str, Any]]]
"""What is wished when something is seen or a phase entered."""


class RiggedStore(MemoryStore):
    """A group store whose owner records cannot be reached while `down`."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False

    def owner(self, vm_id: str, *, wait_s: float = 0) -> OwnerRecord | None:
        self._answer()
        return super().owner(vm_id)

    def swap_owner(self, before: OwnerRecord | None, after: OwnerRecord, *, wait_s: float = 0) -> bool:
        self._answer()
        return super().swap_owner(before, after)

    def _answer(self) -> None:
        if self.down:
            raise error("store.failed", path="/group.db", detail="locked")


@dataclass
class Rig:
    """A world with claims and a journal. `events` are those of the last conductor, `trace` those of all."""

    world: World
    request: MigrationRequest = field(default_factory=lambda: MigrationRequest("web", "b"))
    step: Step = table_step
    store: RiggedStore = field(default_factory=RiggedStore)
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    events: list[Event] = field(default_factory=list)
    trace: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._record()
        for host, settings in host_settings(self.world).items():
            self.store.change_settings(host, lambda _, chosen=settings: chosen)

    def _record(self) -> None:
        """Have what comes now checked as a move of its own."""
        self.trace = []
        recorded.record(self.trace, not_modelled=not_modelled(self.world, self.step))

    def start(
        self,
        *,
        kill_at: str | Kind | None = None,
        cancel_at: Kind | Phase | None = None,
        bandwidth_at: Kind | Phase | None = None,
        post_copy_at: Kind | Phase | None = None,
        happens: Happens = None,
        stop_point: Callable[[str], None] = lambda _: None,
    ) -> Outcome | None:
        """Carry out a move. None: it was killed, at a stop point or when it heard of something.

        `happens`: when that is seen or entered, this is done to the rig.
        `cancel_at`, `bandwidth_at`, `post_copy_at`: a cancel, 20 MiB per second, or post-copy, is wished when that is
        seen or entered.
        `stop_point`: is told of every stop point, and may raise Killed.
        """
        if self.trace:
            self._record()
        timeline = VirtualTimeline(self.world.now_ns())
        backend = SimulatedBackend(self.world, timeline.post, timeline)
        ledger = Ledger(OPERATION, "group", self.request, hand_over=backend.capabilities().chosen(self.request))
        wishes = {
            cancel_at: (Kind.CANCEL_WISHED, {}),
            bandwidth_at: (Kind.BANDWIDTH_WISHED, {"mib_s": 20}),
            post_copy_at: (Kind.POSTCOPY_WISHED, {}),
        }
        conductor = self._conductor(ledger, backend, timeline, kill_at, wishes, happens=happens, stop_point=stop_point)
        try:
            if cancel_at is Phase.NEW:
                return conductor.run(Event(Kind.CANCEL_WISHED, timeline.now_ns()))
            return conductor.start()
        except Killed:
            return None

    def recover(
        self,
        *,
        after_ms: int = 0,
        with_journal: bool = True,
        cancel_at: Kind | Phase | None = None,
        force: bool = False,
    ) -> Outcome:
        """Recover with the journal, or by the plan that the claim kept. `after_ms`: the world went on alone so long."""
        timeline = VirtualTimeline(self.world.now_ns() + after_ms * 1_000_000)
        backend = SimulatedBackend(self.world, timeline.post, timeline)
        ledger = Ledger(OPERATION, "group", self.request, hand_over=backend.capabilities().chosen(self.request))
        phase, last = Phase.NEW, 0
        if with_journal and self.journal.phase is not None:
            phase, last = self.journal.phase, self.journal.step
            ledger = Ledger.from_json(json.loads(self.journal.ledger))
        elif claim := next(iter(self.store.claims()), None):
            phase = Phase.SETUP
            ledger = Ledger(OPERATION, "group", self.request, ledger.hand_over, plan=claim.plan, claimed=True)
        return self._conductor(ledger, backend, timeline, None, {}, phase, last).recover(force=force)

    def claim_for_another(self, plan: Any) -> None:
        """Let another controller have the VM."""
        self.store.claim(Claim("ffffffff", "another", ProcessRef(2, 2, "boot"), plan))

    def overtake(self) -> None:
        """Let another operation decide about the VM: somebody has taken it over by force."""
        (record,) = self.store.owners()
        self.store.swap_owner(record, replace(record, epoch=record.epoch + 10, operation="eeeeeeee", pending=None))

    def copies(self) -> dict[str, str]:
        """Return the state of each copy by host: the truth."""
        return {host: str(copy.state) for (host, _), copy in sorted(self.world.copies.items())}

    def marks(self) -> list[str]:
        """Return the marks of operations on any copy."""
        return [copy.operation for copy in self.world.copies.values() if copy.operation]

    def made(self) -> list[str]:
        """Return the files that an operation has made and that nobody has decided about."""
        return [path for (_, path), file in self.world.disks.files.items() if file.operation]

    def files(self, host: str) -> list[str]:
        """Return the files on a host's own disk."""
        return sorted(path for name, path in self.world.disks.files if name == host)

    def lacking(self) -> list[str]:
        """Return the disks of which a copy that is no planned one lacks what its guest was told is written."""
        copies = (c for c in self.world.copies.values() if c.state is not VmState.PLANNED)
        used = [(c.host, disk.path) for c in copies for disk in c.vm.disks if disk.local]
        files = self.world.disks.files
        return [f"{path} on {host}" for host, path in used if (host, path) not in files or not files[host, path].whole]

    def path(self) -> list[Phase]:
        """Return the phases entered under the last conductor."""
        return [event["phase"] for event in self.events if event.kind is Kind.PHASE_ENTERED]

    def commands(self) -> list[str]:
        """Return the kinds of commands given by the last conductor."""
        return [str(event["command"].kind) for event in self.events if event.kind is Kind.COMMANDED]

    def kinds(self) -> list[Kind]:
        """Return the kinds of events under the last conductor."""
        return [event.kind for event in self.events]

    def lines(self) -> str:
        """Return the events as JSON lines."""
        return "".join(json.dumps(event.to_json(), ensure_ascii=False) + "\n" for event in self.events)

    def _conductor(
        self,
        ledger: Ledger,
        backend: SimulatedBackend,
        timeline: VirtualTimeline,
        kill_at: str | Kind | None,
        wishes: Wishes,
        phase: Phase = Phase.NEW,
        last: int = 0,
        happens: Happens = None,
        stop_point: Callable[[str], None] = lambda _: None,
    ) -> Conductor:
        self.events = []

        def stop(name: str) -> None:
            _kill(name, kill_at)
            stop_point(name)

        return Conductor(
            ledger,
            backend,
            timeline,
            store=self.store,
            journal=self.journal,
            identity=Identity("home", ProcessRef(1, 1, "boot")),
            phase=phase,
            last_step=last,
            listeners=[
                self._listener(timeline, wishes),
                self._happening(happens),
                lambda event: _kill(event.kind, kill_at),
            ],
            stop_point=stop,
            step=self.step,
        )

    def _happening(self, happens: Happens) -> Callable[[Event], None]:
        when, what = happens or (None, lambda _: None)

        def listen(event: Event) -> None:
            if when == (event["phase"] if event.kind is Kind.PHASE_ENTERED else event.kind):
                what(self)

        return listen

    def _listener(self, timeline: VirtualTimeline, wishes: Wishes) -> Callable[[Event], None]:
        wished: list[Kind | Phase] = []

        def listen(event: Event) -> None:
            self.events.append(event)
            self.trace.append(event)
            if len(self.events) > MOST_EVENTS:
                raise Circles(f"more than {MOST_EVENTS} events")
            seen = event["phase"] if event.kind is Kind.PHASE_ENTERED else event.kind
            if seen in wishes and seen not in wished:
                wished.append(seen)
                kind, values = wishes[seen]
                timeline.post(Event(kind, timeline.now_ns(), values))

        return listen


def _kill(name: str, kill_at: str | Kind | None) -> None:
    if name == kill_at and isinstance(name, Kind) == isinstance(kill_at, Kind):
        raise Killed(name)


SCRIPTED = ("hangs", "both-run", "fence-fails")
"""Faults of the simulated backend that no host has by itself: answers that never come, guards that are broken."""


def not_modelled(world: World, step: Step) -> str:
    """Return why no model of hosts has what may happen in a world, empty when it may."""
    if step is not table_step:
        return "a table that is not the engine's"
    scripted = [fault.kind for fault in world.spec.faults if fault.kind in SCRIPTED]
    return f"a scripted fault that no host has: {scripted[0]}" if scripted else ""


def mutated(table: Mapping[tuple[Phase, Kind], Row]) -> Step:
    """Return a step function on another table."""
    return lambda phase, kind: table.get((phase, kind), Row(phase))
