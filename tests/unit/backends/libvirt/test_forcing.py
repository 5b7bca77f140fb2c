"""Forcing the switch at the last pass: with a downtime into which anything fits, until it is taken or too late."""

from __future__ import annotations

import pytest

from refimpl.backends.libvirt import steering
from refimpl.backends.libvirt.operation import Call
from refimpl.backends.libvirt.steering import force_switch
from refimpl.model.events import Kind
from refimpl.model.phase import Side
from refimpl.model.request import Steer
from tests.unit.backends.libvirt.mover import Move, refusal

QEMUS_LONGEST_MS = 2_000_000
"""QEMU takes no longer downtime-limit; within that long whatever is left is sent."""


@pytest.fixture
def move(monkeypatch: pytest.MonkeyPatch) -> Move:
    """A move whose memory is being sent."""
    monkeypatch.setattr(steering, "RETRY_S", 0.001)
    move = Move(monkeypatch)
    move.operation.call = Call.RUNNING
    return move


@pytest.mark.rule("R8")
def test_whatever_is_left_fits_into_the_downtime_of_a_forced_switch(move: Move) -> None:
    force_switch(move.operation)
    assert move.done == [f"downtime {QEMUS_LONGEST_MS}"]
    assert [(e.kind, e["what"]) for e in move.events] == [(Kind.STEERED, Steer.SWITCH)]


@pytest.mark.rule("R8")
def test_a_switch_that_is_not_taken_yet_is_forced_again(move: Move) -> None:
    """libvirt refuses it while the call has been made and no job is there yet."""
    refusals = iter([refusal(steering.NO_JOB), refusal(steering.NO_JOB)])

    def refuses() -> None:
        move.raises.pop("downtime", None)
        again = next(refusals, None)
        if again is not None:
            move.raises["downtime"] = again

    move.meanwhile["downtime"] = refuses
    force_switch(move.operation)
    assert move.done == [f"downtime {QEMUS_LONGEST_MS}"] * 3
    assert move.kinds == [Kind.STEERED]


@pytest.mark.parametrize("over", ["switched", "returned"])
def test_what_cannot_be_forced_any_more_is_said(move: Move, over: str) -> None:
    if over == "switched":
        move.operation.watch.once(Kind.SWITCH_SEEN, 1, Side.SOURCE)
    else:
        move.operation.call = Call.RETURNED
    force_switch(move.operation)
    assert (move.kinds, move.done) == ([Kind.NOT_STEERABLE], [])
    assert move.events[0]["reason"]


def test_a_daemon_that_refuses_is_quoted(move: Move) -> None:
    move.raises["downtime"] = refusal(1, text="not now")
    force_switch(move.operation)
    assert move.kinds == [Kind.NOT_STEERABLE]
    assert move.events[0]["reason"] == "not now"
