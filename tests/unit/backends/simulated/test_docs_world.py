"""The commented world of the documentation is a world, with the fault that it says it has."""

from __future__ import annotations

from pathlib import Path

from refimpl.backends.simulated import load_world

DOCS = Path(__file__).parents[4] / "docs"


def test_the_commented_world_can_be_loaded() -> None:
    world = load_world(DOCS / "world.toml")
    assert [vm.name for vm in world.vms] == ["demo"]
    assert [fault.kind for fault in world.faults] == ["no-connection"]
