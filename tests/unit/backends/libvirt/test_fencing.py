"""FENCE: what proves that a host was cut off, and what becomes of a fence that fails or lies."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from refimpl.backends.libvirt import fencing, lease
from refimpl.backends.libvirt.fencing import fence
from refimpl.backends.libvirt.status import status_path
from refimpl.model.events import Kind
from refimpl.model.fencing import NONE, FenceOrder, FenceSetting
from refimpl.model.phase import Side
from tests.unit.backends.libvirt import recorded as r
from tests.unit.backends.libvirt.test_ending import goes_on

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")


class Host(r.FakeChannel):
    """A host that shows its copy, whose process can be found."""

    def __init__(self, text: bytes, pid: int) -> None:
        super().__init__({status_path(r.PLAN.vm): text})
        self.pid = pid

    def outer_pid(self, inner_pid: int) -> int | None:
        return self.pid


class Power:
    """A fence that ends a process, or only says so."""

    name = "a switch"

    def __init__(self, pid: int, *, works: bool = True, admits: bool = False) -> None:
        self.pid, self.works, self.admits = pid, works, admits
        self.off_now = False

    def on(self) -> bool:
        return not self.off_now or self.admits

    def off(self) -> None:
        if self.works:
            os.kill(self.pid, 9)
        self.off_now = True


class Silent:
    """An operation of which one host is silent."""

    def __init__(self, channel: r.FakeChannel, lease_file: str, host: str = "h1") -> None:
        there = r.FakeChannel()
        self.id, self.plan, self.lease = "op", r.PLAN, lease_file
        self.fence_order = FenceOrder(host, FenceSetting())
        sides = ((Side.SOURCE, r.host("h1"), channel), (Side.DESTINATION, r.host("h2"), there))
        self.reach = SimpleNamespace(sides=lambda: sides)
        self.told: list[tuple[Kind, dict[str, Any]]] = []

    def post(self, kind: Kind, _side: Side, **values: Any) -> None:
        self.told.append((kind, values))

    def is_fenced(self) -> dict[str, Any]:
        fence(self)  # type: ignore[arg-type]
        ((kind, values),) = self.told
        assert kind is Kind.FENCED, values
        return values

    def is_not(self) -> str:
        fence(self)  # type: ignore[arg-type]
        ((kind, values),) = self.told
        assert kind is Kind.FENCE_FAILED
        return f"{values['problem'].id}: {values['problem'].text}"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as child:
        yield child
        child.kill()


@pytest.fixture
def lease_file(tmp_path: Path) -> str:
    (tmp_path / "lease").touch()
    return str(tmp_path / "lease")


def has(monkeypatch: pytest.MonkeyPatch, power: Power) -> None:
    monkeypatch.setattr(fencing, "fence_of", lambda _host, _setting: power)
    monkeypatch.setattr(fencing, "GONE_TIMEOUT_MS", 50)


@pytest.mark.rule("R1")
@pytest.mark.parametrize(
    ("shown", "stood"), [(r.SOURCE_WAITS, True), (r.SOURCE_DENIED, False), (r.SOURCE_BACK, False), (r.BOOTED, False)]
)
def test_it_is_proved_and_told_how_the_copy_stood(
    process: subprocess.Popen[bytes], lease_file: str, monkeypatch: pytest.MonkeyPatch, shown: bytes, stood: bool
) -> None:
    has(monkeypatch, Power(process.pid))
    values = Silent(Host(shown, process.pid), lease_file).is_fenced()
    assert values["stood"] is stood
    assert "process there has ended" in values["proof"]
    assert "its lease is free" in values["proof"]


def test_of_a_host_that_shows_nothing_less_is_proved(lease_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, Power(0, works=False))
    channel = r.FakeChannel()
    channel.down = True
    assert Silent(channel, lease_file).is_fenced()["stood"] is None


@pytest.mark.rule("R1")
@pytest.mark.error("fence.failed")
@pytest.mark.parametrize(("admits", "why"), [(False, "process there has not ended"), (True, "still says")])
def test_a_fence_that_does_nothing_is_found_out_and_the_copy_goes_on(
    process: subprocess.Popen[bytes], lease_file: str, monkeypatch: pytest.MonkeyPatch, admits: bool, why: str
) -> None:
    has(monkeypatch, Power(process.pid, works=False, admits=admits))
    said = Silent(Host(r.SOURCE_WAITS, process.pid), lease_file).is_not()
    assert said.startswith("fence.failed")
    assert why in said
    assert goes_on(process.pid)


@pytest.mark.rule("R1")
def test_a_lease_that_is_still_held_there_is_no_proof(lease_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, Power(0, works=False))
    locks = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = ["python3", "-c", locks, lease_file]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        held = Silent(r.FakeChannel(), lease_file)
        assert "lease is still held" in held.is_not()
        monkeypatch.setattr(lease, "held", lambda _channel, _file: True)
        other = Silent(r.FakeChannel(), lease_file)
        assert "held by host h2" in other.is_fenced()["proof"]
        holder.kill()


@pytest.mark.rule("R1")
@pytest.mark.error("fence.failed")
def test_the_word_of_a_fence_alone_is_no_proof(
    process: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has(monkeypatch, Power(process.pid))
    away = str(tmp_path / "not mounted" / "lease")
    assert "neither the VM's process nor its lease can be seen" in Silent(r.FakeChannel(), away).is_not()
    assert "process there has ended" in Silent(Host(r.SOURCE_WAITS, process.pid), away).is_fenced()["proof"]


@pytest.mark.error("fence.none")
def test_without_a_fence_nothing_is_done(lease_file: str) -> None:
    operation = Silent(r.FakeChannel(), lease_file)
    operation.fence_order = FenceOrder("h1", FenceSetting(NONE))
    assert operation.is_not().startswith("fence.none")


def test_a_destination_has_no_copy_that_could_be_older(
    process: subprocess.Popen[bytes], lease_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    has(monkeypatch, Power(process.pid))
    operation = Silent(r.FakeChannel(), lease_file, host="h2")
    assert operation.is_fenced()["stood"] is None
