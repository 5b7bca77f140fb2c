"""What a world shows to the checks: nothing in a healthy one, and each scripted flaw as the problem that it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from refimpl.backends.simulated import SimulatedBackend, World, default_world, host_settings, parse_world
from refimpl.engine.timeline import VirtualTimeline
from refimpl.model.errors import RefimplError
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from refimpl.model.request import MigrationRequest, PerformanceOption
from tests.contract.benches import world
from tests.moves import Rig

ISO = {"path": "/iso/setup.iso", "device": "cdrom"}


def settings(data: Any, **named: Any) -> None:
    data["hosts"]["b"]["settings"] = named


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
        ("memory.short", lambda w: w["hosts"]["b"].update(memory_mib=100)),
        ("lock_daemon.down", lambda w: w["hosts"]["b"].update(lock_daemon=False)),
        ("lease.absent", lambda w: w["vms"][0].update(lease=False)),
        ("lease.not_held", lambda w: w["vms"][0].update(lease_held=False)),
        ("lease.unreachable", lambda w: w["hosts"]["b"].update(lease_space="missing")),
        ("lease.unshared", lambda w: w["hosts"]["b"].update(lease_space="own")),
        ("disk.missing", lambda w: w["vms"][0]["disks"][0].update(missing_on=["b"])),
        ("disk.different", lambda w: w["vms"][0]["disks"][0].update(different_on=["b"])),
        ("certificate.missing", lambda w: w["hosts"]["b"].update(certificate="missing")),
        ("certificate.expired", lambda w: w["hosts"]["b"].update(certificate="expired")),
        ("certificate.wrong_name", lambda w: w["hosts"]["a"].update(certificate="wrong-name")),
        ("certificate.untrusted", lambda w: w["hosts"]["a"].update(certificate="untrusted")),
        ("certificate.key_readable", lambda w: w["hosts"]["a"].update(certificate="key-readable")),
        ("network.none", lambda w: w["hosts"]["b"].update(networks={})),
        ("cpu.vendor", lambda w: w["hosts"]["b"].update(cpu={"vendor": "AMD"})),
        ("cpu.features", lambda w: w["hosts"]["a"].update(cpu={"features": ["sse2", "avx"]})),
        ("accelerator.missing", lambda w: w["hosts"]["b"].update(accelerators=[])),
        ("machine.unsupported", lambda w: w["hosts"]["b"].update(machine_types=["simulated-0"])),
        ("switch.missing", lambda w: w["hosts"]["b"].update(switches=["dmz"])),
        ("compression.none", lambda w: w["hosts"]["b"].update(compression=[])),
        ("clock.skew", lambda w: w["hosts"]["b"].update(clock_skew_ms=-400_000)),
        ("disk.unshared", lambda w: w["vms"][0]["disks"][0].update(unshared_with=["b"])),
        ("disk.read_only", lambda w: w["vms"][0]["disks"][0].update(read_only_on=["b"])),
        ("disk.format", lambda w: w["vms"][0]["disks"][0].update(content="vhdx")),
        ("disk.transient", lambda w: w["vms"][0]["disks"][0].update(transient=True)),
        ("disk.cache", lambda w: w["vms"][0]["disks"][0].update(cache="writeback", shared_file_system=False)),
        ("media.missing", lambda w: w["vms"][0].update(disks=[{**ISO, "missing_on": ["b"]}])),
        (
            "media.different",
            lambda w: w["vms"][0].update(disks=[{**ISO, "different_on": ["b"], "other_content_on": ["b"]}]),
        ),
        ("device.unmovable", lambda w: w["vms"][0].update(unmovable=[{"kind": "PCI device", "name": "gpu"}])),
        ("vm.snapshots", lambda w: w["vms"][0].update(snapshots=["before"])),
        ("vm.busy", lambda w: w["vms"][0].update(busy="backup")),
        ("migration.disabled", lambda w: settings(w, VirtualMachineMigrationEnabled=False)),
        ("limit.reached", lambda w: settings(w, MaximumVirtualMachineMigrations=0)),
        ("network.none", lambda w: settings(w, MigrationNetworks=[{"Subnet": "10.0.0.0/8"}])),
    ],
)
def test_a_flaw_of_the_world_is_refused_by_its_check(problem: str, change: Any) -> None:
    outcome = outcome_of(change)
    assert outcome.end is Phase.REFUSED
    assert problem in [p.id for p in outcome.problems]


@pytest.mark.parametrize(
    ("warning", "change"),
    [
        ("clock.apart", lambda w: w["hosts"]["a"].update(clock_skew_ms=500, clock_uncertainty_ms=20)),
        (
            "version.older",
            lambda w: [w["hosts"][h].update(versions={"qemu": q}) for h, q in (("a", "12"), ("b", "11"))],
        ),
        ("advisory.warning", lambda w: w["hosts"]["b"].update(versions={"libvirt": "8.8.0"})),
    ],
)
def test_a_lesser_flaw_is_a_warning_that_stays_with_the_outcome(warning: str, change: Any) -> None:
    outcome = outcome_of(change)
    assert outcome.end is Phase.COMPLETED_WITH_WARNINGS
    assert [w.id for w in outcome.warnings] == [warning]


def test_what_lies_within_the_reading_or_is_emulated_is_no_flaw() -> None:
    assert outcome_of(lambda w: w["hosts"]["b"].update(clock_skew_ms=500, clock_uncertainty_ms=500)).warnings == ()
    baseline = [lambda w: w["hosts"]["a"].update(cpu={"features": ["sse2", "avx"]})]
    baseline += [lambda w: w["hosts"]["b"].update(cpu={"features": ["sse2"]})]
    baseline += [lambda w: w["vms"][0].update(processor_compatibility=True)]
    assert outcome_of(lambda w: [change(w) for change in baseline]).end is Phase.COMPLETED


@pytest.mark.rule("R12")
def test_settings_of_a_host_are_those_of_the_file_and_the_rest_as_ever() -> None:
    data = world().spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    usual = host_settings(World(parse_world(data)))["a"]
    data["hosts"]["a"]["settings"] = {"VirtualMachineMigrationPerformanceOption": "TCPIP", "PreCopyPassLimit": 3}
    changed = host_settings(World(parse_world(data)))["a"]
    assert changed == replace(usual, performance_option=PerformanceOption.TCPIP, pass_limit=3)


@pytest.mark.error("world.invalid")
@pytest.mark.parametrize(
    ("key", "value"),
    [("settings", {"Maximum": 2}), ("settings", {"MigrationNetworks": [{"Subnet": "x"}]}), ("cpu", {"vendor": 3})],
)
def test_a_wrong_part_of_a_host_is_named(key: str, value: Any) -> None:
    data = world().spec.model_dump(mode="json", by_alias=True)
    data["hosts"]["a"][key] = value
    with pytest.raises(RefimplError, match=rf"hosts\.a\.{key}\."):
        parse_world(data)


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
