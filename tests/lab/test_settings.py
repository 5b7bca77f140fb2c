"""Settings of real hosts: limits over two controllers, the source's option, migration off; bandwidth while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from refimpl.app.home import Home
from refimpl.app.operations import Operation, start
from refimpl.backends.libvirt import vms
from refimpl.backends.libvirt.domain import VmSpec
from refimpl.engine.store import GroupStore
from refimpl.model.events import Kind
from refimpl.model.group import HostEntry
from refimpl.model.phase import Phase
from refimpl.model.request import MigrationRequest, PerformanceOption, Steer
from refimpl.model.settings import HostSettings
from tests.lab.libvirt_support import make_vm
from tests.lab.moving import Moving, until

pytestmark = pytest.mark.lab


@contextmanager
def changed(moving: Moving, host: str, **settings: Any) -> Iterator[None]:
    store = GroupStore(Path(moving.group.store_path))
    before = store.settings()[host]
    store.change_settings(host, lambda old: replace(old, **settings))
    try:
        yield
    finally:
        store.change_settings(host, lambda _: before)


@contextmanager
def more_vms(moving: Moving, host: HostEntry, names: dict[str, bool]) -> Iterator[list[VmSpec]]:
    """Give VMs by their names; those whose guest has to work are waited for."""
    made: list[VmSpec] = []
    try:
        for number, (name, works) in enumerate(names.items()):
            made.append(make_vm(moving.group, host, name, works=works, address=f"10.90.2.{150 + number}/24"))
        yield made
    finally:
        for spec in made:
            place = next(h for h in moving.group.hosts if moving.hosts()[h.name].vm(spec.name) is not None)
            vms.stop(place, spec.name, force=True)
            vms.remove(moving.group, place, spec.name)


def events(operation: Operation) -> list[dict[str, Any]]:
    return list(operation.events())


def in_memory(moving: Moving, operation: Operation, home: Home) -> None:
    files = home.find(operation.id)
    until(lambda: any('"memory-seen"' in line for _, line in files.lines()), f"{operation.id} copies memory")


@pytest.mark.rule("R7")
@pytest.mark.rule("R12")
@pytest.mark.error("limit.reached")
def test_two_controllers_three_moves_limit_two_and_faster_on_the_way(moving: Moving, tmp_path: Path) -> None:
    source = next(h for h in moving.group.hosts if h.name == moving.place())
    target = moving.other()
    homes = Home(tmp_path / "one"), Home(tmp_path / "two")
    option = PerformanceOption.TCPIP
    vms = {"second": True, "third": False}
    with more_vms(moving, source, vms), changed(moving, source.name, performance_option=option):
        slow = {"destination": target, "bandwidth_mib_s": 3}
        first = start(homes[0], moving.group, MigrationRequest(moving.spec.name, **slow))
        second = start(homes[1], moving.group, MigrationRequest("second", **slow))
        in_memory(moving, first, homes[0])
        in_memory(moving, second, homes[1])
        refused = start(homes[0], moving.group, MigrationRequest("third", **slow)).wait()
        assert refused.end is Phase.REFUSED
        assert {p.id for p in refused.problems} == {"limit.reached"}
        assert {p.host for p in refused.problems} == {source.name, target}
        assert "virtual machine migration limit '2' was reached" in refused.problems[0].text
        claims = GroupStore(Path(moving.group.store_path)).claims()
        assert {claim.operation for claim in claims} == {first.id, second.id}
        third = moving.hosts()[source.name].vm("third")
        assert third is not None
        assert third.operation is None
        for operation in (first, second):
            operation.set_bandwidth(0)
        for operation in (first, second):
            told = events(operation)
            assert operation.outcome().completed
            steered = [e for e in told if e["kind"] == Kind.STEERED and e["values"]["what"] == Steer.BANDWIDTH]
            assert len(steered) == 1
            plan = next(e["values"]["plan"] for e in told if e["kind"] == Kind.CHECKS_PASSED)
            assert plan["performance_option"] == option
            assert plan["origins"]["performance_option"] == f"host {source.name}"


@pytest.mark.rule("R12")
@pytest.mark.error("migration.disabled")
@pytest.mark.parametrize("side", ["source", "destination"])
def test_migration_that_is_off_at_either_host_is_refused_there(side: str, moving: Moving) -> None:
    host = moving.place() if side == "source" else moving.other()
    assert HostSettings().migration_enabled is False
    with changed(moving, host, migration_enabled=False):
        outcome = moving.start().wait()
    assert outcome.end is Phase.REFUSED
    assert [(p.id, p.side, p.host) for p in outcome.problems] == [("migration.disabled", side, host)]


@pytest.mark.rule("R13")
@pytest.mark.error("network.none")
def test_with_no_migration_network_left_nothing_begins(moving: Moving) -> None:
    with changed(moving, moving.other(), networks=()):
        outcome = moving.start().wait()
    assert [(p.id, p.host) for p in outcome.problems] == [("network.none", moving.other())]
    assert outcome.end is Phase.REFUSED
