"""A source's QEMU that dies shortly after its parallel channels failed: what is told comes after that, not before."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from refimpl.backends.libvirt import transfer as module
from refimpl.backends.libvirt.transfer import transfer
from refimpl.model.events import Kind
from refimpl.model.phase import Side
from tests.unit.backends.libvirt.mover import Move, refusal

BROKEN = 9


class Failing:
    """A move that breaks off while it sends; the source's process is a real one, which ends a little later."""

    def __init__(self, patch: pytest.MonkeyPatch, **plan: Any) -> None:
        self.move = Move(patch, **plan)
        self.process = subprocess.Popen(["sh", "-c", "read line; sleep 0.1"], stdin=subprocess.PIPE)
        self.operation = self.move.operation
        self.operation._pidfd = os.pidfd_open(self.process.pid)
        self.operation.watch.once(Kind.TRANSFER_STARTED, 7, Side.SOURCE)
        self.move.raises["migrate"] = refusal(BROKEN)
        self.move.meanwhile["migrate"] = self.process.stdin.close  # type: ignore[union-attr]
        self.over: list[bool] = []
        patch.setattr(self.operation, "returned", lambda _: self.over.append(self.operation.source_process_ended()))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.operation.forget()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    held: list[Failing] = []

    def make(**plan: Any) -> Failing:
        held.append(Failing(monkeypatch, **plan))
        return held[-1]

    monkeypatch.setattr(module, "LATE_END_MS", 30_000)
    monkeypatch.setattr(module, "STATISTICS_TIMEOUT_S", 0)
    yield make
    for failing in held:
        failing.end()


def test_the_end_of_a_qemu_whose_channels_failed_is_waited_for(made: Any) -> None:
    failing = made(compression="zstd")
    transfer(failing.operation)
    assert failing.over == [True]


@pytest.mark.parametrize("compression", ["", "xbzrle"])
def test_without_parallel_channels_nothing_is_waited_for(made: Any, compression: str) -> None:
    failing = made(compression=compression)
    failing.move.meanwhile.clear()  # the process goes on
    transfer(failing.operation)
    assert failing.over == [False]


def test_one_that_lives_is_not_waited_for_long(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LATE_END_MS", 1)
    failing = made(compression="zstd")
    failing.move.meanwhile.clear()
    transfer(failing.operation)
    assert failing.over == [False]


def test_without_a_process_that_is_held_it_goes_on(made: Any) -> None:
    failing = made(compression="zstd")
    os.close(failing.operation._pidfd)
    failing.operation._pidfd = None
    transfer(failing.operation)
    assert failing.over == [False]
