"""Whole moves over a backend that shows nothing: what the call said is no verdict, evidence is (rule 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from refimpl.engine.conductor import Conductor, Identity
from refimpl.engine.journal import NoJournal
from refimpl.engine.store import MemoryStore
from refimpl.engine.timeline import VirtualTimeline
from refimpl.model.events import Event, Kind
from refimpl.model.group import ProcessRef
from refimpl.model.ledger import Ledger
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from refimpl.model.request import HandOver, MigrationRequest
from tests.contract.opaque import SETTINGS, Cancel, OpaqueBackend, OpaqueHosts
from tests.moves import Killed


@dataclass
class Mover:
    """Hosts, time and claims; each conductor with a backend object of its own."""

    hosts: OpaqueHosts = field(default_factory=OpaqueHosts)
    timeline: VirtualTimeline = field(default_factory=VirtualTimeline)
    store: MemoryStore = field(default_factory=lambda: MemoryStore(SETTINGS))
    conductor: Conductor | None = None
    backend: OpaqueBackend | None = None

    def new(self, listener: Callable[[Event], None], phase: Phase = Phase.NEW) -> Conductor:
        backend = OpaqueBackend(self.hosts, self.timeline.post, self.timeline)
        ledger = Ledger("0a1b2c3d", "group", MigrationRequest("web", "b"), hand_over=HandOver.OPAQUE)
        ledger = self.conductor.ledger if self.conductor else ledger
        self.conductor, self.backend = (
            Conductor(
                ledger,
                backend,
                self.timeline,
                store=self.store,
                journal=NoJournal(),
                identity=Identity("home", ProcessRef(1, 1, "boot")),
                phase=phase,
                listeners=[listener],
            ),
            backend,
        )
        return self.conductor

    def move(self, *, cancel: bool = False) -> Outcome:
        def listen(event: Event) -> None:
            if cancel and event.kind is Kind.PREPARED:
                self.timeline.after(1_000_000_000, lambda: Event(Kind.CANCEL_WISHED, self.timeline.now_ns()))

        return self.new(listen).start()

    def where(self) -> list[str]:
        return sorted(self.hosts.copies)


def test_it_is_moved_without_a_phase_being_seen() -> None:
    mover = Mover()
    outcome = mover.move()
    assert (outcome.end, mover.where(), outcome.blackout_ms) == (Phase.COMPLETED, ["b"], None)
    assert mover.hosts.copies["b"].operation is None


@pytest.mark.rule("R4")
@pytest.mark.parametrize(
    ("cancel", "end", "where"),
    [
        (Cancel.IN_TIME, Phase.CANCELLED, "a"),
        (Cancel.LATE, Phase.COMPLETED_WITH_WARNINGS, "b"),
        (Cancel.UNSUPPORTED, Phase.COMPLETED_WITH_WARNINGS, "b"),
    ],
)
def test_a_cancel_ends_as_the_evidence_says(cancel: Cancel, end: Phase, where: str) -> None:
    mover = Mover(OpaqueHosts(cancel=cancel))
    outcome = mover.move(cancel=True)
    assert (outcome.end, mover.where()) == (end, [where])
    warned = "cancel.too_late" in [w.id for w in outcome.warnings]
    assert warned == (end is Phase.COMPLETED_WITH_WARNINGS)


@pytest.mark.rule("R2")
def test_a_job_that_fails_leaves_the_vm_at_the_source() -> None:
    mover = Mover(OpaqueHosts(fails=True))
    outcome = mover.move()
    assert (outcome.end, mover.where()) == (Phase.FAILED, ["a"])
    assert mover.hosts.copies["a"].operation is None


def test_a_controller_that_died_is_recovered_when_the_job_is_over() -> None:
    mover = Mover()

    def killed(event: Event) -> None:
        if event.kind is Kind.COMMANDED and event["command"].kind == "start-transfer":
            mover.timeline.after(500_000_000, lambda: Event(Kind.PROGRESS, 0))
        if event.kind is Kind.PROGRESS:
            raise Killed

    with pytest.raises(Killed):
        mover.new(killed).start()
    assert mover.backend is not None
    mover.backend.lost = True
    outcome = mover.new(lambda _: None, Phase.SETUP).recover()
    assert (outcome.end, mover.where(), outcome.recovered) == (Phase.COMPLETED, ["b"], True)
