"""What a world shows to the checks: nothing in a healthy one, and each scripted flaw as the problem that it is."""

from __future__ import annotations

from typing import Any

import pytest

from refimpl.backends.simulated import SimulatedBackend, World, default_world, parse_world
from refimpl.engine.timeline import VirtualTimeline
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from refimpl.model.request import MigrationRequest
from tests.contract.benches import world
from tests.moves import Rig


def outcome_of(change: Any) -> Outcome:
    data = world().spec.model_dump(mode="json", by_alias=True)
    change(data)
    rig = Rig(World(parse_world(data)))
    outcome = rig.start()
    assert outcome is not None
    return outcome


def test_the_built_in_world_passes_all_checks() -> None:
    rig = Rig(World(default_world()), MigrationRequest("demo", "b"))
    outcome = rig.start()
    assert outcome is not None
    assert outcome.end is Phase.COMPLETED
    assert (outcome.problems, outcome.warnings) == ((), ())


@pytest.mark.rule("R5")
@pytest.mark.parametrize(
    ("problem", "change"),
    [
        ("host.down", lambda w: w["hosts"]["b"].update(reachable=False)),
        ("vm.unknown", lambda w: w["vms"][0].update(name="other")),
        ("vm.not_running", lambda w: w["vms"][0].update(state="off")),
        ("memory.short", lambda w: w["hosts"]["b"].update(memory_mib=100)),
        ("lock_daemon.down", lambda w: w["hosts"]["b"].update(lock_daemon=False)),
        ("lease.absent", lambda w: w["vms"][0].update(lease=False)),
        ("lease.not_held", lambda w: w["vms"][0].update(lease_held=False)),
        ("disk.missing", lambda w: w["vms"][0]["disks"][0].update(missing_on=["b"])),
        ("disk.different", lambda w: w["vms"][0]["disks"][0].update(different_on=["b"])),
        ("certificate.missing", lambda w: w["hosts"]["b"].update(certificate="missing")),
        ("certificate.expired", lambda w: w["hosts"]["b"].update(certificate="expired")),
        ("certificate.wrong_name", lambda w: w["hosts"]["a"].update(certificate="wrong-name")),
        ("certificate.untrusted", lambda w: w["hosts"]["a"].update(certificate="untrusted")),
        ("certificate.key_readable", lambda w: w["hosts"]["a"].update(certificate="key-readable")),
        ("network.none", lambda w: w["hosts"]["b"].update(networks={})),
    ],
)
def test_a_flaw_of_the_world_is_refused_by_its_check(problem: str, change: Any) -> None:
    outcome = outcome_of(change)
    assert outcome.end is Phase.REFUSED
    assert problem in [p.id for p in outcome.problems]


def test_two_machines_of_one_name_are_seen() -> None:
    rig = Rig(world())
    twin = rig.world.copy("a", "web")
    assert twin is not None
    rig.world.copies["b", "web"] = type(twin)(twin.vm, "b", type(twin.state).OFF)
    outcome = rig.start()
    assert outcome is not None
    assert "vm.name_taken" in [p.id for p in outcome.problems]
    assert rig.copies() == {"a": "running", "b": "off"}


def test_a_backend_is_told_apart_by_its_name() -> None:
    backend = SimulatedBackend(world(), lambda _: None, VirtualTimeline())
    assert backend.name == "simulated"
