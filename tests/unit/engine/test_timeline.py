"""Real and virtual time give events and deadlines in the same way."""

from __future__ import annotations

import pytest

from refimpl.app.real_time import RealTimeline
from refimpl.engine.timeline import Timeline, VirtualTimeline
from refimpl.model.events import Kind
from tests.builders import event


@pytest.fixture(params=[RealTimeline, VirtualTimeline])
def timeline(request: pytest.FixtureRequest) -> Timeline:
    made: Timeline = request.param()
    return made


def test_events_come_in_order_and_before_a_later_deadline(timeline: Timeline) -> None:
    timeline.arm("late", 60_000)
    assert timeline.idle()
    timeline.post(event(Kind.STEERED, what="one"))
    timeline.post(event(Kind.STEERED, what="two"))
    assert not timeline.idle()
    assert [timeline.next(), timeline.next()] == [event(Kind.STEERED, what="one"), event(Kind.STEERED, what="two")]


def test_a_deadline_comes_once_and_with_its_name(timeline: Timeline) -> None:
    timeline.arm("check", 1)
    due = timeline.next()
    assert due is not None
    assert (due.kind, due["name"]) == (Kind.DEADLINE, "check")
    timeline.post(event(Kind.STARTED))
    assert timeline.next() == event(Kind.STARTED)


def test_a_deadline_that_was_taken_back_or_replaced_does_not_come(timeline: Timeline) -> None:
    timeline.arm("gone", 1)
    timeline.disarm("gone")
    timeline.disarm("never armed")
    timeline.arm("twice", 60_000)
    timeline.arm("twice", 2)
    due = timeline.next()
    assert due is not None
    assert due["name"] == "twice"


def test_virtual_time_jumps_and_ends() -> None:
    timeline = VirtualTimeline(start_ns=0)
    timeline.after(86_400 * 10**9, lambda: event(Kind.STARTED))
    assert timeline.next() == event(Kind.STARTED)
    assert timeline.now_ns() == 86_400 * 10**9
    assert timeline.next() is None


def test_delayed_events_come_in_time_beside_deadlines(timeline: Timeline) -> None:
    timeline.arm("late", 60_000)
    timeline.post_after(event(Kind.STEERED, what="second"), 2)
    timeline.post_after(event(Kind.STEERED, what="first"), 1)
    timeline.post(event(Kind.STARTED))
    kinds = [timeline.next() for _ in range(3)]
    assert kinds == [event(Kind.STARTED), event(Kind.STEERED, what="first"), event(Kind.STEERED, what="second")]
    timeline.arm("soon", 1)
    due = timeline.next()
    assert due is not None
    assert due["name"] == "soon"
