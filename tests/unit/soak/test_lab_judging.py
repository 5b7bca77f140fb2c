"""What the soak on real hosts calls a violation, by a scene that shows it; and the observer, by processes that run."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from refimpl.faults import FAULTS
from refimpl.hosts.wait import until
from refimpl.meter.lines import JoinedLog, join
from refimpl.meter.verdict import State
from refimpl.model.facts import VmFacts, VmState
from refimpl.model.group import ChannelSpec, HostEntry, ProcessRef
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from tests.soak.history import Played
from tests.soak.lab import Move
from tests.soak.lab_observer import Observer, Seen
from tests.soak.lab_schedule import schedule

BOOT = "abcdef"


def line(sequence: int) -> bytes:
    text = f"{BOOT} {sequence} beat {sequence}".encode()
    return b"~%s *%08x\n" % (text, zlib.crc32(text))


class SceneAsIs:
    """A scene that is as it is told to be."""

    def __init__(self, copies: dict[str, VmState], left: Sequence[str] = (), lines: Sequence[bytes] = ()) -> None:
        self._copies, self._left, self._lines = copies, list(left), dict(zip(("h1", "h2"), lines, strict=False))
        self.probe = SimpleNamespace(disks=[Path("/nonexistent")])

    def copies(self) -> dict[str, VmFacts]:
        return {host: VmFacts("soak", "id", state, 128) for host, state in self._copies.items()}

    def running(self) -> list[str]:
        return [host for host, state in self._copies.items() if state is VmState.RUNNING]

    def start_again(self) -> None:
        self._copies = {"h1": VmState.RUNNING}

    def left(self) -> list[str]:
        return self._left

    def works(self, host: str) -> bool:
        return True

    def log(self) -> JoinedLog:
        return join(self._lines or {"h1": line(1)})


def found(
    monkeypatch: pytest.MonkeyPatch,
    scene: SceneAsIs,
    end: Phase | None,
    *,
    fault: str | None = None,
    both: Sequence[float] = (),
    disk: str = "ok",
    cut_off: bool = False,
    hand_over: str = "strict",
) -> set[str]:
    """Judge a move from h1 to h2 by what a scene shows, and return which violations were found."""
    verdict = SimpleNamespace(state=State(disk), text="", to_json=dict)
    monkeypatch.setattr("tests.soak.lab.disk_verdict", lambda *_: verdict)
    move = Move.__new__(Move)
    move.scene, move.told, move.source, move.destination = scene, {}, "h1", "h2"  # type: ignore[assignment]
    move.played, move._operation, move._says, move.cut_off = Played(schedule(1, 1)), None, "", cut_off
    move.told = {"hand_over": hand_over, "side": "destination"}
    struck: Any = SimpleNamespace(struck=True, fault=FAULTS[fault]) if fault else None
    move.fault = struck
    observer: Any = SimpleNamespace(seen=Seen(looks=9, both=list(both)))
    outcome: Any = None
    if end is not None:
        outcome = SimpleNamespace(end=end, completed=end is Phase.COMPLETED, blackout_ms=1.0, problems=(), warnings=())
    assert outcome is None or {"end", "completed"} <= {*dir(Outcome), *Outcome.__slots__}
    move._judge(outcome, BOOT, 0, observer)
    return {v.what for v in move.played.violations}


R, OFF, PAUSED = VmState.RUNNING, VmState.OFF, VmState.PAUSED


@pytest.mark.parametrize(
    ("copies", "end", "fault", "violations"),
    [
        ({"h2": R}, Phase.COMPLETED, None, set()),
        ({"h1": R}, Phase.FAILED, "freeze-libvirtd", set()),
        ({"h1": R}, Phase.COMPLETED, None, {"untrue-end"}),
        ({"h2": R}, Phase.CANCELLED, None, {"untrue-end"}),
        ({"h1": R, "h2": R}, Phase.COMPLETED, None, {"two-running", "untrue-end"}),
        ({"h2": R}, Phase.DUAL_RUN, None, {"two-running"}),
        ({"h1": R}, Phase.LOST, "kill-qemu", {"untrue-end"}),
        ({"h1": OFF}, Phase.LOST, "kill-qemu", set()),
        ({"h1": OFF}, Phase.LOST, "freeze-qemu", {"none-running"}),
        ({"h1": PAUSED}, Phase.LOST, "kill-qemu", {"none-running"}),
        ({"h1": PAUSED}, Phase.FAILED, "freeze-libvirtd", {"none-running", "untrue-end"}),
        ({}, None, None, {"none-running"}),
    ],
)
def test_an_end_is_judged_by_what_is(monkeypatch, copies, end, fault, violations) -> None:
    assert found(monkeypatch, SceneAsIs(copies), end, fault=fault) == violations


def test_what_is_left_and_what_was_not_written_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = SceneAsIs({"h2": R}, left=["claim of 0a"])
    assert found(monkeypatch, scene, Phase.COMPLETED) == {"left-behind"}
    assert found(monkeypatch, SceneAsIs({"h2": R}), Phase.COMPLETED, disk="bad") == {"write-lost"}
    assert found(monkeypatch, SceneAsIs({"h2": R}), Phase.COMPLETED, disk="not measured") == {"write-lost"}


def test_two_copies_are_seen_by_their_processors_and_by_lines_that_came_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, SceneAsIs({"h2": R}), Phase.COMPLETED, both=[0.5]) == {"two-running"}
    once, twice = [line(1) + line(2), line(3)], [line(1) + line(2), line(2) + line(3)]
    assert found(monkeypatch, SceneAsIs({"h2": R}, lines=once), Phase.COMPLETED) == set()
    assert found(monkeypatch, SceneAsIs({"h2": R}, lines=twice), Phase.COMPLETED) == {"two-running"}


@pytest.mark.rule("R1")
def test_an_older_copy_that_went_on_is_counted_apart_only_where_it_cannot_be_excluded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    twice = [line(1) + line(2), line(2) + line(3)]
    scene = SceneAsIs({"h1": R}, lines=twice)
    assert found(monkeypatch, scene, Phase.FAILED, fault="kill-qemu", hand_over="delegated", disk="bad") == set()
    assert found(monkeypatch, scene, Phase.FAILED, fault="kill-qemu") == {"two-running"}
    assert found(monkeypatch, scene, Phase.FAILED, fault="kill-libvirtd", hand_over="delegated") == {"two-running"}
    beside = found(monkeypatch, scene, Phase.FAILED, fault="kill-qemu", hand_over="delegated", both=[0.5])
    assert beside == {"two-running"}


def test_a_vm_that_went_with_a_host_that_was_cut_off_is_lost_by_right(monkeypatch: pytest.MonkeyPatch) -> None:
    off = {"h2": OFF}
    assert found(monkeypatch, SceneAsIs(off), Phase.LOST, fault="freeze-libvirtd", cut_off=True) == set()
    assert found(monkeypatch, SceneAsIs(off), Phase.LOST, fault="freeze-libvirtd") == {"none-running"}


BUSY = """
import threading
def work():
    open("/proc/thread-self/comm", "w").write("CPU 0/TCG")
    print(flush=True)
    while True: pass
threading.Thread(target=work, daemon=True).start()
input()
"""
IDLE = BUSY.replace("while True: pass", "threading.Event().wait()")


@contextmanager
def process(program: str) -> Iterator[int]:
    """Give a process with a thread like a vCPU's, which runs or does not."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe) as started:
        try:
            assert started.stdout is not None
            started.stdout.readline()
            yield started.pid
        finally:
            started.kill()


class OfProcesses(Observer):
    """An observer that is told which processes the copies are."""

    def __init__(self, **pids: int) -> None:
        nobody = ChannelSpec("namespace", ProcessRef(1, 1, "boot"))
        hosts = tuple(HostEntry(name, "", "", "", "", (), 1, nobody) for name in pids)
        super().__init__(SimpleNamespace(group=SimpleNamespace(hosts=hosts)), "soak")  # type: ignore[arg-type]
        self._pids = pids

    def _qemu(self, host: HostEntry) -> int | None:
        return self._pids[host.name]


def test_the_observer_sees_two_that_run_and_not_one_that_stands_still() -> None:
    with process(BUSY) as first, process(BUSY) as second, process(IDLE) as idle:
        with OfProcesses(h1=first, h2=idle) as one:
            assert until(lambda: one.seen.looks > 20 and one.seen.ran.get("h1", 0) > 3, 30, 0.02)
        assert one.seen.both == []
        assert "h2" not in one.seen.ran
        with OfProcesses(h1=first, h2=second) as two:
            assert until(lambda: bool(two.seen.both), 30, 0.02)
