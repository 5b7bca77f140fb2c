"""A world under one controller after another: what is the controller's is lost with it, what is the world's goes on."""

from __future__ import annotations

import pytest

from refimpl.backends.simulated import SimulatedBackend
from refimpl.backends.simulated.clock import WorldClock
from refimpl.engine.timeline import VirtualTimeline
from refimpl.model.events import Event, Kind
from refimpl.model.phase import Phase
from tests.contract.benches import world
from tests.moves import Rig

SECOND_NS = 1_000_000_000


def test_what_is_due_happens_at_its_time_on_whatever_timeline() -> None:
    clock, seen = WorldClock(0), []
    first, second = VirtualTimeline(0), VirtualTimeline(2 * SECOND_NS)
    clock.carry_to(first)
    for due in (1, 3):
        clock.after(due * SECOND_NS, lambda due=due: seen.append((due, clock.now_ns() // SECOND_NS)))  # type: ignore[misc]
    clock.carry_to(second)
    assert seen == [(1, 1)]
    assert first.next() is None
    assert seen == [(1, 1)]
    assert second.next() is None
    assert seen == [(1, 1), (3, 3)]


def test_an_action_may_ask_for_another_while_nobody_watches() -> None:
    clock, seen = WorldClock(0), []
    clock.after(SECOND_NS, lambda: clock.after(SECOND_NS, lambda: seen.append(clock.now_ns())))
    clock.advance_to(5 * SECOND_NS)
    assert seen == [2 * SECOND_NS]


def test_a_world_does_not_go_back() -> None:
    clock = WorldClock(10)
    with pytest.raises(ValueError, match="cannot go back"):
        clock.carry_to(VirtualTimeline(5))


def test_a_lost_backend_does_nothing_and_says_nothing_any_more() -> None:
    rig = Rig(world())
    rig.start(kill_at="given:prepare")
    heard: list[Event] = []
    timeline = VirtualTimeline(rig.world.now_ns())
    SimulatedBackend(rig.world, heard.append, timeline)
    assert timeline.next() is None
    assert rig.marks() == []
    assert heard == []


@pytest.mark.parametrize("after_ms", [0, 1, 300, 1_000, 60_000, 86_400_000])
@pytest.mark.parametrize(
    "point", [Kind.TRANSFER_STARTED, "memory", Kind.PASS_ENDED, "switch", "committed", "given:allow-run", "cleanup"]
)
@pytest.mark.parametrize("with_journal", [True, False])
def test_killed_anywhere_and_recovered_at_any_time_there_is_one_copy(
    point: str | Kind, after_ms: int, with_journal: bool
) -> None:
    rig = Rig(world())
    assert rig.start(kill_at=point) is None
    outcome = rig.recover(after_ms=after_ms, with_journal=with_journal)
    assert outcome.completed
    assert {warning.id for warning in outcome.warnings} <= {"blackout.unexpected"}
    assert outcome.recovered
    assert rig.copies() == {"b": "running"}
    assert rig.marks() == []
    assert rig.store.claims() == ()


@pytest.mark.parametrize("point", ["given:prepare", "intended:start-transfer", "given:start-transfer"])
@pytest.mark.parametrize("with_journal", [True, False])
def test_killed_before_the_order_reached_the_source_nothing_moves(point: str, with_journal: bool) -> None:
    rig = Rig(world())
    rig.start(kill_at=point)
    assert rig.recover(after_ms=60_000, with_journal=with_journal).end is Phase.FAILED
    assert (rig.copies(), rig.marks(), rig.store.claims()) == ({"a": "running"}, [], ())


def test_recovered_twice_is_the_same_as_once() -> None:
    rig = Rig(world())
    rig.start(kill_at="memory")
    once = rig.recover(after_ms=60_000)
    before = (rig.copies(), rig.marks(), dict(rig.world.holders))
    again = rig.recover(after_ms=1_000)
    assert (once.end, before) == (again.end, (rig.copies(), rig.marks(), dict(rig.world.holders)))


def test_a_world_can_be_moved_there_and_back() -> None:
    rig = Rig(world())
    there = rig.start()
    assert there is not None
    rig.journal = type(rig.journal)()
    rig.world.transfers.clear()
    rig.request = type(rig.request)("web", "a")
    back = rig.start()
    assert back is not None
    assert (there.end, back.end) == (Phase.COMPLETED, Phase.COMPLETED)
    assert rig.copies() == {"a": "running"}
