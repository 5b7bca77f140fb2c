"""When the destination's copy began to run: by QEMU's own clock where that is to be had, else by the answer's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from refimpl.backends.libvirt import binding
from refimpl.backends.libvirt.binding import allow_run
from refimpl.backends.libvirt.watch import NativeEvent
from refimpl.model.events import Kind
from tests.unit.backends.libvirt.mover import Move

QEMUS_NS, ANSWERS_NS = 5, 7


@pytest.fixture
def move(monkeypatch: pytest.MonkeyPatch) -> Move:
    """A move whose copy has arrived; the clock of its controller stands still."""
    move = Move(monkeypatch)
    assert move.operation.now_ns() == ANSWERS_NS
    monkeypatch.setattr(binding, "announce", lambda _domain: None)
    monkeypatch.setattr(binding, "RESUME_EVENT_TIMEOUT_S", 0.01)
    return move


def resumed(move: Move) -> None:
    move.operation._destination_told(NativeEvent("qmp", QEMUS_NS, name="RESUME"))


def ran(move: Move) -> list[tuple[Kind, int]]:
    return [(event.kind, event.at_ns) for event in move.events]


@pytest.mark.rule("R18")
def test_qemus_time_counts_when_it_is_told_before_the_answer(move: Move) -> None:
    move.meanwhile["resume"] = lambda: resumed(move)
    allow_run(move.operation)
    assert ran(move) == [(Kind.DESTINATION_RAN, QEMUS_NS)]
    assert move.events[0]["port_ms"] is not None


@pytest.mark.rule("R18")
def test_qemus_time_counts_when_it_is_told_a_little_after_the_answer(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(reached: Callable[[], bool], _timeout_s: float) -> bool:
        resumed(move)
        return reached()

    monkeypatch.setattr(move.operation.changed, "wait_for", waits)
    allow_run(move.operation)
    assert ran(move) == [(Kind.DESTINATION_RAN, QEMUS_NS)]


@pytest.mark.rule("R18")
def test_without_a_word_of_qemu_it_is_the_answers_time(move: Move) -> None:
    allow_run(move.operation)
    assert ran(move) == [(Kind.DESTINATION_RAN, ANSWERS_NS)]
