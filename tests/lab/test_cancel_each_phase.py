"""Ctrl-C in each phase: before the switch the VM stays, from the switch on it goes through with a warning (R4)."""

from __future__ import annotations

import pytest

from refimpl.model.phase import Phase
from tests.lab.cli_support import Command
from tests.lab.moving import Moving

pytestmark = pytest.mark.lab

STAYS, MOVES = Phase.CANCELLED, Phase.COMPLETED_WITH_WARNINGS


@pytest.mark.rule("R2", "R4")
@pytest.mark.parametrize(
    ("stop", "end"),
    [
        ("intended:observe", STAYS),
        ("intended:claim", STAYS),
        ("intended:prepare", STAYS),
        ("intended:start-transfer", STAYS),
        ("switch", MOVES),
        ("committed", MOVES),
        ("intended:allow-run", MOVES),
        ("reconcile", MOVES),
        ("cleanup", MOVES),
    ],
)
def test_ctrl_c(moving: Moving, stop: str, end: Phase) -> None:
    source, destination = moving.place(), moving.other()
    command = Command(moving.lab.paths.root, moving.home.path)
    with moving.stop_at(stop) as point:
        with command.running("migrate", moving.spec.name, destination, "--lab", moving.lab.id) as move:
            point.reached()
            move.ctrl_c()
            move.wait_for("Ctrl-C")
            point.go()
            done = move.end()
    assert done.code == (5 if end is STAYS else 0), done
    if end is MOVES:
        assert "cancel.too_late" in done.out + done.err
    assert moving.place() == (source if end is STAYS else destination)


@pytest.mark.rule("R2", "R4")
def test_ctrl_c_in_memory(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    command = Command(moving.lab.paths.root, moving.home.path)
    arguments = ("migrate", moving.spec.name, destination, "--lab", moving.lab.id, "--bandwidth", "3")
    with command.running(*arguments) as move:
        move.wait_for("phase memory")
        moving.hold_memory(source)
        move.ctrl_c()
        done = move.end()
    assert done.code == 5, done
    assert moving.place() == source
