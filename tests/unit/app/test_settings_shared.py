"""What is set of a host is there for every controller of the group, and decides a move that is asked for anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from refimpl.app.settings import SettingsDesk
from refimpl.engine.store import GroupStore, completed
from refimpl.model.events import Kind
from refimpl.model.group import ChannelSpec, Group, HostEntry, ProcessRef
from refimpl.model.request import PerformanceOption
from refimpl.model.settings import MigrationSubnet
from tests.builders import OPERATION, facts, request
from tests.judging import judged

NOBODY = ChannelSpec("namespace", ProcessRef(1, 1, "boot"))
HOSTS = tuple(HostEntry(name, "", "", "", "", (), 2048, NOBODY) for name in ("a", "b"))
T, Z = PerformanceOption.TCPIP, PerformanceOption.COMPRESSION


@pytest.fixture
def group(tmp_path: Path) -> Group:
    GroupStore(tmp_path / "group.db")
    made = Group("lab1", "lab", HOSTS, str(tmp_path / "group.db"), "/shared", "/leases")
    for host in ("a", "b"):
        SettingsDesk(made).set(host, {"VirtualMachineMigrationEnabled": "true"})
        SettingsDesk(made).add_network(host, "10.2.0.0/24", 2)
        SettingsDesk(made).add_network(host, "10.1.0.0/24", 1)
    return made


@pytest.mark.rule("R12")
@pytest.mark.parametrize(("here", "there"), [(T, Z), (Z, T)])
@pytest.mark.parametrize("asked", [None, T, Z])
def test_the_sources_option_decides_wherever_the_move_is_asked_for(
    group: Group, here: PerformanceOption, there: PerformanceOption, asked: PerformanceOption | None
) -> None:
    for host, option in (("a", here), ("b", there)):
        SettingsDesk(group).set(host, {"VirtualMachineMigrationPerformanceOption": option})
    seen = completed(facts(), GroupStore(Path(group.store_path)), OPERATION)
    made = judged(seen, request(performance_option=asked))
    assert made.kind is Kind.CHECKS_PASSED
    plan = made.values["plan"]
    assert plan.performance_option is (asked or here)
    assert bool(plan.compression) is ((asked or here) is Z)
    assert plan.origins["performance_option"] == ("request" if asked else "host a")


@pytest.mark.rule("R13")
def test_networks_keep_the_priority_that_they_were_given(group: Group) -> None:
    assert SettingsDesk(group).get("b").networks == (
        MigrationSubnet("10.2.0.0/24", 2),
        MigrationSubnet("10.1.0.0/24", 1),
    )
    seen = completed(facts(), GroupStore(Path(group.store_path)), OPERATION)
    assert judged(seen).values["plan"].networks == ("10.1.0.2", "10.2.0.2")
    SettingsDesk(group).set_network("b", "10.1.0.0/24", priority=3, new_subnet=None)
    seen = completed(facts(), GroupStore(Path(group.store_path)), OPERATION)
    assert judged(seen).values["plan"].networks == ("10.2.0.2", "10.1.0.2")
