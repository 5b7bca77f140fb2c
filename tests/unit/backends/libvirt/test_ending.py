"""Ending the copy of a silent source by its process: a real process, and the files of two hosts made of fakes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from refimpl.backends.libvirt import ending
from refimpl.backends.libvirt.ending import end_source, go_on, why_not
from refimpl.backends.libvirt.status import parse_status, status_path
from refimpl.hosts.wait import until
from refimpl.model.events import Kind
from tests.unit.backends.libvirt import recorded as r

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
ENDED, NOT_ENDED = Kind.SOURCE_ENDED, Kind.SOURCE_NOT_ENDED


class Source(r.FakeChannel):
    """The source's files; what `then` gives takes their place as soon as the process has been stopped."""

    def __init__(self, text: bytes, then: bytes | None, pid: int) -> None:
        super().__init__({status_path(r.PLAN.vm): text})
        self._then, self._pid = then, pid

    def read(self, path: str) -> bytes:
        if self._then is not None and state_of(self._pid) == "T":
            self.files[path] = self._then
        return super().read(path)


class Held:
    """An operation that holds a process as its source's."""

    def __init__(self, pid: int, source: bytes, destination: bytes, then: bytes | None = None) -> None:
        there = r.FakeChannel({status_path(r.PLAN.vm): destination})
        self.reach = SimpleNamespace(source_channel=Source(source, then, pid), destination_channel=there)
        self.plan = r.PLAN
        self.expected: list[bool] = []
        self.watch = SimpleNamespace(ends_source=lambda: self.expected.append(True))
        self.told: list[tuple[Kind, dict[str, Any]]] = []
        self.ending = threading.Lock()
        self._pid = pid

    def source_pidfd(self) -> int | None:
        return os.pidfd_open(self._pid) if self._pid else None

    def holds_source_process(self) -> bool:
        return bool(self._pid)

    def post(self, kind: Kind, _side: Any = None, **values: Any) -> None:
        self.told.append((kind, values))

    def ends(self) -> Kind:
        end_source(self)  # type: ignore[arg-type]
        ((kind, values),) = self.told
        assert kind is ENDED or values["reason"]
        return kind


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def goes_on(pid: int) -> bool:
    return state_of(pid) not in "TtZX"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as child:
        yield child
        child.kill()


@pytest.mark.rule("R1")
@pytest.mark.parametrize("source", [r.SOURCE_WAITS, r.SOURCE_FORGOTTEN])
def test_a_copy_that_stands_still_is_ended(process: subprocess.Popen[bytes], source: bytes) -> None:
    held = Held(process.pid, source, r.DESTINATION_ARRIVED)
    assert held.ends() is ENDED
    assert process.wait(5) == -9
    assert held.expected == [True], "its end is no end of its own"


@pytest.mark.rule("R1")
@pytest.mark.parametrize(
    ("source", "destination"),
    [
        pytest.param(r.SOURCE_WAITS, r.DESTINATION_FINISHES, id="never while the destination is in finish3"),
        pytest.param(r.SOURCE_WAITS, r.DESTINATION_RECEIVES, id="nor before the arrival"),
        pytest.param(r.SOURCE_WAITS, r.DESTINATION_RUNS, id="nor once the destination runs"),
        pytest.param(r.SOURCE_DENIED, r.DESTINATION_ARRIVED, id="nor when the source takes the VM back"),
        pytest.param(r.SOURCE_BACK, r.DESTINATION_ARRIVED, id="nor when it runs"),
        pytest.param(b"", r.DESTINATION_ARRIVED, id="nor when the source shows nothing"),
    ],
)
def test_nothing_is_done_otherwise(process: subprocess.Popen[bytes], source: bytes, destination: bytes) -> None:
    held = Held(process.pid, source, destination)
    assert held.ends() is NOT_ENDED
    assert (goes_on(process.pid), held.expected) == (True, [])


@pytest.mark.rule("R1")
@pytest.mark.parametrize("then", [r.SOURCE_DENIED, r.SOURCE_BACK])
def test_a_source_that_wakes_up_in_that_instant_goes_on(process: subprocess.Popen[bytes], then: bytes) -> None:
    held = Held(process.pid, r.SOURCE_WAITS, r.DESTINATION_ARRIVED, then)
    assert held.ends() is NOT_ENDED
    assert (goes_on(process.pid), held.expected) == (True, [])


def test_a_process_that_does_not_stop_goes_on(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "STANDS_S", 0.01)
    monkeypatch.setattr(ending, "threads_stand", lambda _held: False)
    held = Held(process.pid, r.SOURCE_WAITS, r.DESTINATION_ARRIVED)
    assert held.ends() is NOT_ENDED
    assert process.poll() is None


def test_a_host_that_shows_nothing_while_its_process_is_stopped_goes_on(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Callable[[], str]] = [lambda: "", lambda: _raise()]
    monkeypatch.setattr(ending, "_why_not", lambda _operation: answers.pop(0)())
    assert Held(process.pid, r.SOURCE_WAITS, r.DESTINATION_ARRIVED).ends() is NOT_ENDED
    assert process.poll() is None
    assert goes_on(process.pid)


def _raise() -> str:
    raise OSError("host is down")


def test_a_process_that_is_not_held_is_not_ended() -> None:
    assert Held(0, r.SOURCE_WAITS, r.DESTINATION_ARRIVED).ends() is NOT_ENDED


def test_one_that_has_ended_already_is_ended() -> None:
    with subprocess.Popen(["true"]) as child:
        held = Held(child.pid, r.SOURCE_WAITS, r.DESTINATION_ARRIVED)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert held.ends() is ENDED


def test_why_not_says_what_was_seen() -> None:
    assert why_not(parse_status(r.SOURCE_WAITS), parse_status(r.DESTINATION_ARRIVED)) == ""
    assert "running" in why_not(parse_status(r.SOURCE_BACK), parse_status(r.DESTINATION_ARRIVED))
    assert why_not(parse_status(r.SOURCE_WAITS), None)


class Left(Held):
    """An operation of a recovery, which holds nothing; the source's file names a process of this machine."""

    def __init__(self, pid: int, source: bytes, *, outer: bool = True) -> None:
        super().__init__(0, re.sub(rb"pid='\d+'", b"pid='%d'" % pid, source), r.DESTINATION_ARRIVED)
        channel = self.reach.source_channel
        channel.outer_pid = lambda found: found if outer else None
        genuine = channel.read
        channel.read = lambda path: Path(path).read_bytes() if path.startswith("/proc/") else genuine(path)

    def goes_on(self) -> list[Kind]:
        go_on(self)  # type: ignore[arg-type]
        return [kind for kind, _ in self.told]


@pytest.fixture
def halted(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGSTOP)
    assert until(lambda: state_of(process.pid) == "T", 5, 0.001)
    return process.pid


@pytest.mark.rule("R1")
@pytest.mark.parametrize("source", [r.SOURCE_WAITS, r.SOURCE_FORGOTTEN, r.SOURCE_DENIED])
def test_one_that_a_dead_controller_left_stopped_goes_on(halted: int, source: bytes) -> None:
    assert Left(halted, source).goes_on() == [Kind.SOURCE_GOES_ON]
    assert goes_on(halted)


@pytest.mark.parametrize(
    ("source", "outer", "held", "ending"),
    [
        pytest.param(r.SOURCE_BACK, True, False, False, id="a copy that runs was stopped by somebody else"),
        pytest.param(b"", True, False, False, id="no copy"),
        pytest.param(r.SOURCE_WAITS, False, False, False, id="not reached from here"),
        pytest.param(r.SOURCE_WAITS, True, True, False, id="a controller that holds it knows what it does"),
        pytest.param(r.SOURCE_WAITS, True, False, True, id="it is being ended right now"),
    ],
)
def test_nothing_else_is_let_go_on(halted: int, source: bytes, outer: bool, held: bool, ending: bool) -> None:
    left = Left(halted, source, outer=outer)
    left.holds_source_process = lambda: held  # type: ignore[method-assign]
    if ending:
        left.ending.acquire()
    assert left.goes_on() == []
    assert state_of(halted) == "T"


def test_a_process_that_was_not_stopped_is_left_alone(process: subprocess.Popen[bytes]) -> None:
    assert Left(process.pid, r.SOURCE_WAITS).goes_on() == []


def test_a_host_that_is_down_is_left_to_the_look(halted: int) -> None:
    left = Left(halted, r.SOURCE_WAITS)
    left.reach.source_channel.read = lambda _path: _raise()
    assert left.goes_on() == []
