"""Watching lock daemons: real processes, held by pidfds, on hosts made of files."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
from collections.abc import Iterator

import pytest

from refimpl.backends.libvirt import follow
from refimpl.backends.libvirt.lock_watch import LockWatch
from refimpl.backends.libvirt.status import status_path
from refimpl.model.events import Kind
from refimpl.model.phase import Side
from tests.unit.backends.libvirt import recorded as r
from tests.unit.backends.libvirt.mover import Move
from tests.unit.backends.libvirt.recorded import FakeChannel

INNER = 49
RUNS = {"/run/virtlockd.pid": b"49\n", "/proc/49/comm": b"virtlockd\n"}
ANSWER_S = 10.0
Told = queue.SimpleQueue[Side]


class Host(FakeChannel):
    """A host whose lock daemon is a process of this test."""

    def __init__(self) -> None:
        super().__init__(dict(RUNS))
        command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        self.daemon = subprocess.Popen(command, stdin=subprocess.PIPE)

    def outer_pid(self, inner_pid: int) -> int | None:
        return self.daemon.pid if inner_pid == INNER else None

    def end(self) -> None:
        """Have its lock daemon end; its pid file stays, as after a kill."""
        del self.files["/proc/49/comm"]
        self.daemon.kill()
        self.daemon.wait()


@contextlib.contextmanager
def hosts() -> Iterator[tuple[Host, Host]]:
    here, there = Host(), Host()
    try:
        yield here, there
    finally:
        for host in (here, there):
            host.daemon.kill()
            host.daemon.communicate()


@contextlib.contextmanager
def watching(here: FakeChannel, there: FakeChannel) -> Iterator[Told]:
    told: Told = queue.SimpleQueue()
    watch = LockWatch(told.put)
    assert watch.hold(Side.SOURCE, here)
    assert watch.hold(Side.DESTINATION, there)
    watch.start()
    try:
        yield told
    finally:
        watch.close()


@pytest.mark.rule("R1")
def test_each_end_is_told_once() -> None:
    with hosts() as (here, there), watching(here, there) as told:
        there.end()
        assert told.get(timeout=ANSWER_S) is Side.DESTINATION
        here.end()
        assert told.get(timeout=ANSWER_S) is Side.SOURCE
    assert told.empty()


def test_a_host_that_ended_as_a_whole_is_no_matter_of_leases() -> None:
    with hosts() as (here, there), watching(here, there) as told:
        there.down = True
        there.end()
        here.end()
        # They are told in their order, so what comes first shows that the other was passed over.
        assert told.get(timeout=ANSWER_S) is Side.SOURCE
    assert told.empty()


def test_a_lock_daemon_that_does_not_run_cannot_be_held() -> None:
    watch = LockWatch(lambda _: None)
    assert not watch.hold(Side.SOURCE, FakeChannel())
    assert not watch.hold(Side.SOURCE, FakeChannel(RUNS | {"/proc/49/comm": b"bash\n"}))
    watch.start()
    watch.close()


def test_a_host_that_is_down_or_elsewhere_is_not_watched() -> None:
    down = FakeChannel()
    down.down = True
    with watching(down, FakeChannel(dict(RUNS))) as told:
        pass
    assert told.empty()


def test_a_pid_that_another_process_has_by_now_is_not_held() -> None:
    with hosts() as (here, _):

        def ends_meanwhile(_: int) -> int | None:
            here.files["/proc/49/comm"] = b"bash\n"
            return here.daemon.pid

        here.outer_pid = ends_meanwhile  # type: ignore[method-assign]
        assert not LockWatch(lambda _: None).hold(Side.SOURCE, here)


@pytest.mark.rule("R1")
def test_an_operation_tells_it_with_side_and_host_until_it_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    move = Move(monkeypatch)
    move.source.files.clear()
    for _ in range(2):
        move.operation.watch_lock_daemons()
    assert [(e.kind, e.side, e.host) for e in move.events] == [(Kind.LOCK_DAEMON_GONE, Side.SOURCE, "h1")]
    move.operation.forget()
    move.operation.forget()


@pytest.mark.rule("R1")
def test_who_adopts_a_transfer_hears_of_it_after_how_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where it stands in memory can it still be broken off."""
    move = Move(monkeypatch)
    monkeypatch.setattr(follow, "start_progress", lambda _: None)
    move.source.files[status_path(r.PLAN.vm)] = r.SOURCE_SENDS
    del move.destination.files["/proc/49/comm"]
    follow.adopt(move.operation)
    move.operation.closing.set()
    assert move.kinds == [Kind.ADOPTED_MEMORY, Kind.LOCK_DAEMON_GONE]
    move.operation.forget()
