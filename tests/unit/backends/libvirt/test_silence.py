"""Whether a source's daemon answers: asked only of one that is waited for, and told seldom."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from refimpl.backends.libvirt import connection, silence
from refimpl.backends.libvirt.silence import Silence, told_ms
from tests.unit.backends.libvirt import recorded as r


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


class Daemon:
    """A daemon that answers or not; `asked` is set once it was."""

    def __init__(self) -> None:
        self.answers = True
        self.asked = threading.Event()

    @contextlib.contextmanager
    def fresh(self, _host: Any) -> Iterator[None]:
        try:
            if not self.answers:
                raise TimeoutError("no answer")
            yield
        finally:
            self.asked.set()


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    found = Daemon()
    monkeypatch.setattr(connection, "fresh", found.fresh)
    monkeypatch.setattr(connection, "failures", lambda: (OSError,))
    monkeypatch.setattr(silence, "ASK_PERIOD_S", 0.001)
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(silence, "time", SimpleNamespace(monotonic=found.monotonic))
    return found


def waited(clock: Clock) -> tuple[Silence, threading.Event]:
    """Return a silence whose host has been waited for just so long that it is asked."""
    ended = threading.Event()
    found = Silence(r.host("h1"), ended)
    assert found.waits(True) == 0
    clock.now_s += silence.ASK_AFTER_S + 0.01
    assert found.waits(True) == 0
    return found, ended


def test_a_daemon_that_does_not_answer_is_silent_from_the_first_question_on(daemon: Daemon, clock: Clock) -> None:
    daemon.answers = False
    found, ended = waited(clock)
    assert daemon.asked.wait(10)
    clock.now_s += 1.0
    assert found.waits(True) == 1000
    assert found.waits(False) == 0, "nothing is waited for"
    ended.set()


def test_one_that_answers_is_not(daemon: Daemon, clock: Clock) -> None:
    found, ended = waited(clock)
    clock.now_s += 60.0
    for _ in range(2):
        # What is asked from now on is answered now.
        daemon.asked.clear()
        assert daemon.asked.wait(10)
    assert found.waits(True) == 0
    ended.set()
    found.close()


def test_an_ordinary_move_asks_nothing(daemon: Daemon, clock: Clock) -> None:
    found = Silence(r.host("h1"), threading.Event())
    assert found.waits(True) == 0
    clock.now_s += silence.ASK_AFTER_S - 0.01
    assert found.waits(True) == 0
    assert found.waits(False) == 0
    clock.now_s += 60
    assert found.waits(True) == 0
    assert not daemon.asked.is_set()


def test_it_is_told_ever_more_seldom() -> None:
    assert [told_ms(ms) for ms in (0, 249, 250, 499, 500, 999, 1000, 1999, 2000, 5000)] == [
        *(0, 0, 250, 250, 500, 500, 1000, 1000, 2000, 4000)
    ]
