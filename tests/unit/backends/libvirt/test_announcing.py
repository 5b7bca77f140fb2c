"""What the switch is told: the destination's port is opened, and once the VM runs QEMU says where it is now."""

from __future__ import annotations

import json
from typing import Any

import pytest

from refimpl.backends.libvirt import binding
from refimpl.backends.libvirt.binding import allow_run
from refimpl.model.events import Kind
from refimpl.model.request import VmState
from tests.unit.backends.libvirt.mover import Move, refusal

libvirt_qemu = pytest.importorskip("libvirt_qemu")

OPEN = "flush table bridge refimpl_0a1b2c3d"


def moved(patch: pytest.MonkeyPatch, **plan: Any) -> tuple[Move, list[dict[str, Any]]]:
    """Return a move whose copy has arrived, and what its QEMU is told."""
    move, told = Move(patch, **plan), []

    def command(_domain: Any, text: str, _flags: int) -> str:
        told.append(json.loads(text))
        move.call(f"announce after {len(move.events)}")
        return ""

    patch.setattr(libvirt_qemu, "qemuMonitorCommand", command)
    patch.setattr(binding, "RESUME_EVENT_TIMEOUT_S", 0.01)
    return move, told


@pytest.mark.rule("R16")
def test_the_switch_is_told_after_the_vm_was_let_run_and_more_than_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that is told while the port is shut, or that is lost, would leave the switch with the old port."""
    move, told = moved(monkeypatch)
    allow_run(move.operation)
    assert move.kinds == [Kind.DESTINATION_RAN]
    assert any(step.startswith("h2 nft") and OPEN in step for step in move.done)
    assert move.done[-1] == "announce after 1"
    assert "resume" in move.done
    (announced,) = told
    assert announced["execute"] == "announce-self"
    assert announced["arguments"]["rounds"] > 1


@pytest.mark.rule("R16")
def test_of_a_paused_vm_the_switch_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    move, told = moved(monkeypatch, vm_state=VmState.PAUSED)
    allow_run(move.operation)
    assert move.kinds == [Kind.LEFT_PAUSED]
    assert "resume" not in move.done
    assert [one["execute"] for one in told] == ["announce-self"]


@pytest.mark.rule("R16")
def test_a_copy_that_does_not_run_announces_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    move, told = moved(monkeypatch)
    move.raises["resume"] = refusal(1)
    monkeypatch.setattr("tests.unit.backends.libvirt.mover.Domain.state", lambda _: [0, 0])
    allow_run(move.operation)
    assert (move.kinds, told) == ([Kind.RUN_REFUSED], [])


def test_a_qemu_that_cannot_announce_runs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    move, _ = moved(monkeypatch)
    move.raises["announce"] = refusal(1)
    allow_run(move.operation)
    assert move.kinds == [Kind.DESTINATION_RAN]
