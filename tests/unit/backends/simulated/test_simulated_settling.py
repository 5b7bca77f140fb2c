"""What keeps the simulated backend from putting hosts in order: a silent source that may run again."""

from __future__ import annotations

import pytest

from refimpl.model.events import Kind
from refimpl.model.request import Command, CommandKind, HandOver, MigrationRequest
from tests.contract.benches import SimulatedHarness
from tests.contract.harness import Bench

ROOMS = ((1, "a", 2048), (2, "b", 255))


@pytest.mark.rule("R1")
@pytest.mark.parametrize(("lease", "kind"), [(True, Kind.SETTLED), (False, Kind.CANNOT_SETTLE)])
def test_a_silent_source_that_is_not_bound_is_harmless_only_without_the_lease(lease: bool, kind: Kind) -> None:
    lost = [] if lease else [{"kind": "lock-daemon-dies", "host": "b", "during": "ran"}]
    bench = Bench(SimulatedHarness(hand_over=HandOver.DELEGATED, faults=lost))
    bench.start()
    bench.wait_for(Kind.DESTINATION_RAN)
    bench.h.host_down("a")
    assert bench.ask(CommandKind.SETTLE_DESTINATION, Kind.SETTLED, Kind.CANNOT_SETTLE).kind is kind


@pytest.mark.rule("R6")
def test_what_has_no_room_any_more_is_not_prepared() -> None:
    hosts = {name: {"memory_mib": mib, "networks": {"migration": f"192.0.2.{n}"}} for n, name, mib in ROOMS}
    bench = Bench(SimulatedHarness(hosts=hosts))
    assert bench.ask(CommandKind.PREPARE, Kind.PREPARED, Kind.PREPARE_FAILED).kind is Kind.PREPARE_FAILED
    assert "b" not in bench.copies()


def test_a_command_without_the_plan_that_it_needs_is_a_defect() -> None:
    bench = Bench(SimulatedHarness())
    with pytest.raises(ValueError, match="inspect needs a plan"):
        bench.h.backend.submit(Command(CommandKind.INSPECT, "0a1b2c3d", 1, MigrationRequest("web", "b")))
