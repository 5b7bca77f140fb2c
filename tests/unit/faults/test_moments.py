"""Moments are awaited and not guessed: stop points, events that set a fault off, and a phase that never comes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refimpl.backends.libvirt.watch import NativeEvent
from refimpl.faults.moments import armed, arrived, hold, migration_is, ran, stopped_at
from refimpl.hosts.stops import stop_point
from refimpl.lab.errors import LabError
from refimpl.model.events import Kind
from refimpl.model.group import ChannelSpec, HostEntry, ProcessRef
from refimpl.model.phase import Phase

HOST = HostEntry("h1", "", "", "", "", (), 1, ChannelSpec("namespace", ProcessRef(1, 1, "x")))


class Told:
    """An operation that tells some events, and then waits until it is let go."""

    id = "0a1b2c3d"

    def __init__(self, *events: dict[str, Any], waits: bool = False) -> None:
        self._events, self._go = events, threading.Event()
        if not waits:
            self._go.set()

    def events(self) -> Iterator[dict[str, Any]]:
        yield from self._events
        assert self._go.wait(10)

    def go(self) -> None:
        self._go.set()


def phase(name: str) -> dict[str, Any]:
    return {"kind": "phase-entered", "values": {"phase": name}}


def test_an_event_sets_it_off_once() -> None:
    acts: list[int] = []
    told = Told({"kind": "prepared"}, {"kind": "memory-seen"}, {"kind": "memory-seen"}, waits=True)
    with armed(told, Kind.MEMORY_SEEN, lambda: acts.append(1)) as trigger:
        assert trigger.fired.wait(10)
        told.go()
    assert acts == [1]


def test_what_fails_at_its_moment_is_kept() -> None:
    def act() -> None:
        raise OSError("gone")

    told = Told({"kind": "memory-seen"}, waits=True)
    with armed(told, Kind.MEMORY_SEEN, act) as trigger:
        assert trigger.fired.wait(10)
        told.go()
    assert str(trigger.failure) == "gone"


def test_after_the_block_nothing_is_done() -> None:
    acts: list[int] = []
    with armed(Told(), Kind.MEMORY_SEEN, lambda: acts.append(1)) as trigger:
        pass
    trigger.fire()
    assert acts == []


@pytest.mark.error("fault.not_held")
def test_a_move_that_ends_before_the_phase_is_not_held() -> None:
    told = Told(phase("check"), phase("refused"))
    with pytest.raises(LabError, match="refused"), hold(told, Phase.MEMORY, HOST, "id"):
        raise AssertionError("not reached")


def test_only_the_memory_phase_is_held_by_limits() -> None:
    with pytest.raises(ValueError, match="stop point"), hold(Told(), Phase.SWITCH, HOST, "id"):
        raise AssertionError("not reached")


def test_who_comes_to_a_stop_point_stands_there_until_it_is_let_go(tmp_path: Path) -> None:
    with stopped_at("here", tmp_path / "marker") as stop:
        thread = threading.Thread(target=stop_point, args=("here",))
        thread.start()
        assert stop.reached() == os.getpid()
        assert thread.is_alive()
    thread.join(10)
    assert not thread.is_alive()
    assert "REFIMPL_TEST_STOP" not in os.environ


def test_a_stop_point_that_is_never_reached_is_not_awaited_for_ever(tmp_path: Path) -> None:
    with stopped_at("there", tmp_path / "marker") as stop:
        assert stop.reached(alive=lambda: False) is None


def native(source: str, name: str = "", status: str = "", event: int = -1, detail: int = -1) -> NativeEvent:
    return NativeEvent(source, 1, name=name, details={"status": status}, event=event, detail=detail)


def test_the_moments_of_the_switch_are_told_apart() -> None:
    switching = native("qmp", "MIGRATION", "device")
    waits, runs = native("lifecycle", event=3, detail=0), native("qmp", "RESUME")
    assert migration_is("device", "completed")(switching)
    assert not migration_is("completed")(switching)
    assert [arrived(each) for each in (switching, waits, runs, native("lifecycle", event=3, detail=1))] == [
        False,
        True,
        False,
        False,
    ]
    assert [ran(each) for each in (switching, waits, runs)] == [False, False, True]
