"""What the commit record is for: it tells a recovery whose journal does not have it that the destination may run."""

from __future__ import annotations

import pytest

from refimpl.model.phase import Phase
from tests import recorded
from tests.contract.benches import world
from tests.moves import Rig
from tests.property.scenario import AT_DESTINATION


class TwiceStruck(Rig):
    """A rig whose moves the world alone judges: a controller and a host that die are more than one fault."""

    def _record(self) -> None:
        self.trace = []
        recorded.record(self.trace, not_modelled="a controller that is killed, and the source's host with it")


@pytest.mark.rule("R1", "R2")
@pytest.mark.parametrize("with_journal", [True, False], ids=["a journal from before", "no journal"])
@pytest.mark.parametrize("killed_at", ["given:record-commit", "intended:allow-run", "given:allow-run"])
def test_what_was_committed_runs_though_controller_and_source_died_then(killed_at: str, with_journal: bool) -> None:
    """The source's definition is still there, so that its end could as well have come after it took the VM back."""
    rig = TwiceStruck(world())
    assert rig.start(kill_at=killed_at) is None
    rig.world.lose_host("a")
    assert rig.recover(with_journal=with_journal).end is Phase.INDETERMINATE, "the source is silent"
    rig.world.bring_back("a")
    assert rig.copies() == {"a": "off", "b": "paused"}
    assert rig.recover(with_journal=with_journal).completed
    assert rig.copies() == AT_DESTINATION


@pytest.mark.rule("R1")
def test_what_was_not_committed_is_left_to_a_person_then() -> None:
    rig = TwiceStruck(world())
    assert rig.start(kill_at="intended:record-commit") is None
    rig.world.lose_host("a")
    assert rig.recover().end is Phase.INDETERMINATE
    rig.world.bring_back("a")
    assert rig.recover().end is Phase.INDETERMINATE
    assert rig.copies() == {"a": "off", "b": "paused"}


def test_a_store_that_does_not_answer_keeps_nothing_from_being_recovered() -> None:
    rig = TwiceStruck(world())
    assert rig.start(kill_at="given:record-commit") is None
    rig.store.down = True
    assert rig.recover(after_ms=60_000).completed
    assert rig.copies() == AT_DESTINATION
