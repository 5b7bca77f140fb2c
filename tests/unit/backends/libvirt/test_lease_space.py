"""Both hosts have to see the same lease: at the preparation, and for as long as the transfer lasts."""

from __future__ import annotations

import errno
import os
import queue
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from refimpl.backends.libvirt import lease
from refimpl.backends.libvirt.lease_space import LeaseWatch
from refimpl.backends.libvirt.operation import Operation
from refimpl.backends.libvirt.probe import probe_disks
from refimpl.backends.libvirt.transfer import prepare
from refimpl.hosts.channel import Completed
from refimpl.model.events import Event, Kind
from refimpl.model.facts import DiskFact, LeaseSpaceFact, VmFacts, VmState
from refimpl.model.phase import Side
from tests.unit.backends.libvirt.here import image, looked
from tests.unit.backends.libvirt.mover import Move
from tests.unit.backends.libvirt.recorded import FakeChannel

ANSWER_S = 10.0
FILE = "/g/shared/leases/e56501d5-d362-4955-ae31-ab63d9826159"


class Here(FakeChannel):
    """This machine: commands are really run."""

    def run(self, command: Sequence[str], *, timeout_s: float = 30.0, stdin: str | None = None) -> Completed:
        done = subprocess.run(list(command), capture_output=True, text=True)
        return Completed(done.returncode, done.stdout, done.stderr)


def test_a_lease_is_told_from_any_other_file(tmp_path: Path) -> None:
    one, other = (str(tmp_path / name) for name in ("one", "other"))
    for path in (one, other):
        lease.make(Here(), path)
    assert lease.seen_at(Here(), one) == lease.seen_at(Here(), one) != lease.seen_at(Here(), other)
    with pytest.raises(OSError, match="No such file or directory"):
        lease.seen_at(Here(), str(tmp_path / "missing" / "lease"))
    with pytest.raises(OSError, match="takes no writes"):
        lease.seen_at(FakeChannel(answers={"bash": Completed(1, "1 1\n1\n", "")}), one)


@pytest.mark.rule("R1", "R2")
@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Completed(1, "", "stat: cannot stat 'x': Stale file handle\n"), "lease.unreachable"),
        (Completed(1, "", ""), "lease.unreachable"),
        (OSError("host is down"), "lease.unreachable"),
        (Completed(0, "7 1\nab\n", ""), "lease.unshared"),
    ],
)
def test_nothing_is_prepared_where_the_lease_is_not_seen(
    monkeypatch: pytest.MonkeyPatch, answer: Completed | OSError, problem: str
) -> None:
    move = Move(monkeypatch)
    move.destination.fails["bash"] = answer
    prepare(move.operation)
    assert move.kinds == [Kind.PREPARE_FAILED]
    assert (move.problem.id, move.problem.side, move.problem.host) == (problem, Side.DESTINATION, "h2")
    assert FILE in move.problem.text
    assert not move.steps("mark", "nft")


def test_a_lease_space_that_goes_away_is_told_once_of_each_host() -> None:
    told: queue.SimpleQueue[tuple[Side, str]] = queue.SimpleQueue()
    here, there = FakeChannel({"/l": b""}), FakeChannel({"/l": b""})
    watch = LeaseWatch("/l", lambda side, why: told.put((side, why)), period_s=0.001)
    watch.start({Side.SOURCE: here, Side.DESTINATION: there})
    try:
        there.read = fails(errno.ESTALE)  # type: ignore[method-assign]
        assert told.get(timeout=ANSWER_S) == (Side.DESTINATION, "Stale file handle")
        here.read = fails(errno.ENOENT)  # type: ignore[method-assign]
        assert told.get(timeout=ANSWER_S) == (Side.SOURCE, "No such file or directory")
    finally:
        watch.close()
    assert told.empty()


def fails(number: int) -> Callable[[str], NoReturn]:
    def read(path: str) -> NoReturn:
        raise OSError(number, os.strerror(number), path)

    return read


def test_a_host_that_is_down_is_no_matter_of_the_lease_space() -> None:
    down = FakeChannel()
    down.down = True
    assert lease.gone(down, "/l") is None
    assert lease.gone(FakeChannel({"/l": b""}), "/l") is None


def test_an_operation_tells_it_with_path_and_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    move = Move(monkeypatch)
    told: queue.SimpleQueue[Event] = queue.SimpleQueue()
    move.operation = Operation("0a1b2c3d", move.operation.plan, move.operation.reach, told.put, lambda: 7)
    move.source.files[FILE] = b""
    move.destination.read = fails(errno.ENOENT)  # type: ignore[method-assign]
    for _ in range(2):
        move.operation.watch_lease()
    event = told.get(timeout=ANSWER_S)
    move.operation.forget()
    assert (event.kind, event.side, event["path"]) == (Kind.LEASE_SPACE_GONE, Side.DESTINATION, FILE)
    assert event["detail"] == "No such file or directory"


@pytest.mark.rule("R5")
def test_a_probe_tries_the_lease_space_too(tmp_path: Path) -> None:
    (tmp_path / "leases").mkdir()
    disk = DiskFact(image(tmp_path / "disk"), None)
    ends = looked("h1", disk), looked("h2", disk)
    for end in ends:
        end.facts = replace(end.facts, lease_space=LeaseSpaceFact(str(tmp_path / "leases" / "web")))
    try:
        probe_disks("0a1b2c3d", VmFacts("web", "id", VmState.RUNNING, 128), *ends)
    finally:
        for end in ends:
            assert end.look is not None
            end.look.close()
    assert [end.facts.lease_space.probed for end in ends if end.facts.lease_space] == [True, True]
    assert os.listdir(tmp_path / "leases") == []
