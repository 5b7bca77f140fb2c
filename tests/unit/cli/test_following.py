"""Following an operation: its end, Ctrl-C once and twice, a conductor that dies."""

from __future__ import annotations

import os
import signal

import pytest

from refimpl.cli.following import ctrl_c_into_inbox, follow
from refimpl.model.errors import RefimplError, error
from refimpl.model.events import Kind
from refimpl.model.phase import Phase
from tests.unit.cli.fakes import Recorder, ScriptedOperation, event, outcome

STARTED = event(Kind.STARTED, request={"vm": "web", "destination": "h2"})


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_every_event_is_shown_and_the_end_returned():
    display = Recorder()
    operation = ScriptedOperation([STARTED, event(Kind.MEMORY_SEEN)])
    with ctrl_c_into_inbox() as inbox:
        assert follow(operation, display, inbox) == operation.end
    assert [e["kind"] for e in display.events] == ["started", "memory-seen"]
    assert display.closed == 1


def test_ctrl_c_asks_for_a_cancel_and_waits_for_what_becomes_of_it():
    operation = ScriptedOperation([STARTED], outcome(Phase.CANCELLED), held=True)
    display = Recorder(on_event=press, on_note=operation.let_go.set)
    with ctrl_c_into_inbox() as inbox:
        found = follow(operation, display, inbox)
    assert found is not None
    assert found.end is Phase.CANCELLED
    assert operation.cancels == 1
    assert "cancel" in display.notes[0]
    assert "second" in display.notes[0]


def test_a_second_ctrl_c_detaches_and_lets_the_move_go_on():
    operation = ScriptedOperation([STARTED], held=True)
    display = Recorder(on_event=press, on_note=press)
    with ctrl_c_into_inbox() as inbox:
        assert follow(operation, display, inbox) is None
    assert operation.cancels == 1
    assert display.closed == 1
    operation.let_go.set()


def test_sigterm_detaches_at_once_and_asks_for_nothing():
    operation = ScriptedOperation([STARTED], held=True)
    display = Recorder(on_event=lambda: os.kill(os.getpid(), signal.SIGTERM))
    with ctrl_c_into_inbox() as inbox:
        assert follow(operation, display, inbox) is None
    assert operation.cancels == 0
    assert display.closed == 1
    operation.let_go.set()


def test_a_ctrl_c_before_the_first_event_is_not_lost():
    operation = ScriptedOperation([], outcome(Phase.CANCELLED), held=True)
    with ctrl_c_into_inbox() as inbox:
        press()
        follow(operation, Recorder(on_note=operation.let_go.set), inbox)
    assert operation.cancels == 1


@pytest.mark.error("operation.ended")
def test_a_cancel_that_meets_the_end_is_no_error():
    ended = error("operation.ended", operation="0a1b2c3d", end="completed")
    operation = ScriptedOperation([STARTED], cancel_error=ended, held=True)
    display = Recorder(on_event=press, on_note=operation.let_go.set)
    with ctrl_c_into_inbox() as inbox:
        assert follow(operation, display, inbox) == operation.end


@pytest.mark.error("operation.no_end")
def test_a_dead_conductor_is_told_by_its_error():
    operation = ScriptedOperation([STARTED], error("operation.no_end", operation="0a1b2c3d", said="nothing"))
    with ctrl_c_into_inbox() as inbox, pytest.raises(RefimplError) as caught:
        follow(operation, Recorder(), inbox)
    assert int(caught.value.exit_code) == 6


def test_an_error_while_reading_ends_the_following():
    class Broken(ScriptedOperation):
        def events(self):
            yield STARTED
            raise OSError("disk gone")

    with ctrl_c_into_inbox() as inbox, pytest.raises(OSError, match="disk gone"):
        follow(Broken(), Recorder(), inbox)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_afterwards_the_signals_are_what_they_were(number):
    before = signal.getsignal(number)
    with ctrl_c_into_inbox():
        assert signal.getsignal(number) is not before
    assert signal.getsignal(number) is before
