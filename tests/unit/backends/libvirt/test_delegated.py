"""Delegated hand-over on hosts made of fakes: what is heard, what is opened then, and what is told of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from refimpl.backends.libvirt import delegated, evidence, follow
from refimpl.backends.libvirt.backend import LibvirtBackend
from refimpl.backends.libvirt.status import Status, status_path
from refimpl.backends.libvirt.transfer import transfer
from refimpl.backends.libvirt.watch import NativeEvent
from refimpl.hosts.channel import Completed
from refimpl.model.events import Kind
from refimpl.model.request import HandOver, VmState
from tests.unit.backends.libvirt import recorded as r
from tests.unit.backends.libvirt.mover import Move

libvirt = pytest.importorskip("libvirt")

OPEN = "h2 nft flush table bridge refimpl_0a1b2c3d"
RESUMED = NativeEvent("qmp", 7_000, name="RESUME", domain="the copy")
ARRIVED = NativeEvent("lifecycle", 7_000, event=libvirt.VIR_DOMAIN_EVENT_SUSPENDED, detail=0, domain="the copy")
REFUSED = Completed(1, "", "Error: Operation not permitted")


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    told: list[Any] = []
    monkeypatch.setattr(delegated, "announce", told.append)
    return told


def heard(patch: pytest.MonkeyPatch, native: NativeEvent, source: Status | None = None, **plan: Any) -> Move:
    """Return a delegated move in whose transfer this was heard of the destination."""
    move = Move(patch, **{"hand_over": HandOver.DELEGATED, **plan})
    patch.setattr(delegated, "read_status", lambda *_: source)
    move.meanwhile["migrate"] = lambda: move.operation._destination_told(native)
    return move


def open_at(move: Move) -> int:
    return move.done.index(OPEN)


@pytest.mark.rule("R16")
def test_the_port_is_opened_when_the_copy_is_heard_to_run_and_that_is_told_after(
    monkeypatch: pytest.MonkeyPatch, announced: list[Any]
) -> None:
    move = heard(monkeypatch, RESUMED)
    transfer(move.operation)
    assert move.kinds == [Kind.DESTINATION_RAN, Kind.CALL_RETURNED]
    assert open_at(move) > move.done.index("migrate")
    assert move.events[0].at_ns == 7_000, "QEMU's own time, not that of the opening"
    assert move.events[0]["port_ms"] >= 0
    _end_of_opening()
    assert announced == ["the copy"]


def test_nothing_is_opened_before(monkeypatch: pytest.MonkeyPatch, announced: list[Any]) -> None:
    move = heard(monkeypatch, NativeEvent("qmp", 1, name="MIGRATION", details={"status": "completed"}))
    transfer(move.operation)
    assert OPEN not in move.done
    assert announced == []


@pytest.mark.rule("R16")
@pytest.mark.parametrize("why", ["refused", "the source runs"])
def test_a_port_that_stays_shut_is_told_honestly(
    monkeypatch: pytest.MonkeyPatch, announced: list[Any], why: str
) -> None:
    running = Status("running", "migration canceled", 4711)
    move = heard(monkeypatch, RESUMED, running if why == "the source runs" else None)
    move.destination.fails["nft"] = REFUSED
    transfer(move.operation)
    assert move.kinds == [Kind.DESTINATION_RAN, Kind.CALL_RETURNED]
    assert move.events[0]["port_ms"] is None
    assert (OPEN in move.done) is (why == "refused")
    _end_of_opening()
    assert announced == []


def test_the_return_of_the_call_waits_for_what_it_comes_after(
    monkeypatch: pytest.MonkeyPatch, announced: list[Any]
) -> None:
    move = heard(monkeypatch, RESUMED)
    begun, go_on = threading.Event(), threading.Event()

    def slowly(_operation: object) -> bool:
        begun.set()
        return go_on.wait(10)

    monkeypatch.setattr(delegated, "open_port", slowly)
    calling = threading.Thread(target=transfer, args=(move.operation,))
    calling.start()
    assert begun.wait(10)
    assert Kind.CALL_RETURNED not in move.kinds
    go_on.set()
    calling.join(10)
    assert move.kinds == [Kind.DESTINATION_RAN, Kind.CALL_RETURNED]


def test_a_paused_vm_stays_paused_and_its_port_is_opened(monkeypatch: pytest.MonkeyPatch, announced: list[Any]) -> None:
    move = heard(monkeypatch, ARRIVED, vm_state=VmState.PAUSED)
    transfer(move.operation)
    assert move.kinds == [Kind.LEFT_PAUSED, Kind.CALL_RETURNED]
    assert OPEN in move.done
    assert "resume" not in move.done


def test_a_copy_that_is_paused_is_not_one_that_has_arrived(
    monkeypatch: pytest.MonkeyPatch, announced: list[Any]
) -> None:
    """Nothing is let run from here, so there is no arrival: somebody has paused it."""
    move = heard(monkeypatch, ARRIVED)
    transfer(move.operation)
    assert move.kinds == [Kind.CALL_RETURNED]


@pytest.mark.parametrize(("hand_over", "opened"), [(HandOver.DELEGATED, True), (HandOver.STRICT, False)])
def test_who_adopts_a_move_whose_copy_runs_already_opens_its_port(
    monkeypatch: pytest.MonkeyPatch, announced: list[Any], hand_over: HandOver, opened: bool
) -> None:
    move = heard(monkeypatch, RESUMED, Status("paused", "migration", 1), hand_over=hand_over)
    states = (Status("paused", "migration", 1, "migration out", "confirm3"), Status("running", "migrated", 2))
    monkeypatch.setattr(follow, "_statuses", lambda _: states)
    monkeypatch.setattr(follow, "_follow", lambda _: None)
    follow.adopt(move.operation)
    assert (OPEN in move.done) is opened


@pytest.mark.parametrize(("hand_over", "arrived"), [(HandOver.DELEGATED, False), (HandOver.STRICT, True)])
def test_a_paused_copy_waits_for_nobody_where_libvirt_lets_run(
    monkeypatch: pytest.MonkeyPatch, hand_over: HandOver, arrived: bool
) -> None:
    """Else a delegated VM that somebody paused after its move would never be found at home (handover 1.2)."""
    move = Move(monkeypatch, hand_over=hand_over)
    move.destination.files[status_path(r.PLAN.vm)] = r.DESTINATION_ARRIVED
    move.destination.files["/proc/54/stat"] = b"54 (qemu) S 1"
    monkeypatch.setattr(evidence, "_ask", lambda _host, _vm, copy: copy)
    evidence.inspect(move.operation)
    assert move.events[-1]["evidence"].destination.arrived is arrived


def test_it_can_be_chosen_and_is_not_the_backends_own() -> None:
    backend = LibvirtBackend(r.GROUP, lambda _: None, lambda: 0)
    assert backend.capabilities().hand_overs == (HandOver.STRICT, HandOver.DELEGATED)
    backend.close()


def _end_of_opening() -> None:
    for thread in threading.enumerate():
        if thread.name == "libvirt-port":
            thread.join(10)
