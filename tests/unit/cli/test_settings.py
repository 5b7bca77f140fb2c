"""Settings of hosts and their migration networks, through the commands, on a group without a lab."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from refimpl.app.settings import READERS, SettingsDesk
from refimpl.cli import main
from refimpl.cli.host import option_of
from refimpl.engine.store import GroupStore
from refimpl.model.errors import RefimplError
from refimpl.model.fencing import FenceSetting
from refimpl.model.group import ChannelSpec, Group, HostEntry, ProcessRef
from refimpl.model.settings import NAMES, HostSettings

NOBODY = ChannelSpec("namespace", ProcessRef(1, 1, "boot"))
HOSTS = tuple(HostEntry(name, "", "", "", "", (), 2048, NOBODY) for name in ("h1", "h2"))


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Group:
    GroupStore(tmp_path / "group.db")
    made = Group("lab1", "lab", HOSTS, str(tmp_path / "group.db"), "/shared", "/leases")
    for module in ("host", "network"):
        monkeypatch.setattr(f"refimpl.cli.{module}.open_lab", lambda _: SimpleNamespace(group=made))
    return made


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.rule("R12")
def test_defaults_are_hyper_v_s(group: Group, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "host", "get", "h1")["h1"] == {
        "VirtualMachineMigrationEnabled": False,
        "MaximumVirtualMachineMigrations": 2,
        "MaximumStorageMigrations": 2,
        "VirtualMachineMigrationAuthenticationType": "CredSSP",
        "VirtualMachineMigrationPerformanceOption": "Compression",
        "UseAnyNetworkForMigration": False,
        "MigrationNetworks": [],
        "PreCopyPassLimit": 5,
        "UnexpectedBlackoutMs": 10000,
        "Fence": {"agent": "own", "options": "", "tried_ns": None},
    }


CHANGES = {
    "VirtualMachineMigrationEnabled": ("TRUE", True),
    "MaximumVirtualMachineMigrations": ("0", 0),
    "MaximumStorageMigrations": ("7", 7),
    "VirtualMachineMigrationAuthenticationType": ("kerberos", "Kerberos"),
    "VirtualMachineMigrationPerformanceOption": ("tcpip", "TCPIP"),
    "UseAnyNetworkForMigration": ("true", True),
    "PreCopyPassLimit": ("9", 9),
    "UnexpectedBlackoutMs": ("250", 250),
}


def test_every_property_can_be_set() -> None:
    assert set(CHANGES) == set(NAMES) - {"MigrationNetworks", "Fence"} == set(READERS) - {"Fence", "FenceOptions"}


def test_a_fence_has_an_agent_and_options_and_is_not_tried_when_it_is_another(
    group: Group, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = ("--fence", "/usr/sbin/fence_x", "--fence-options", "ip=192.0.2.1  plug=2")
    changed = shown(capsys, "host", "set", "h2", *agent)["Fence"]
    assert changed == {"agent": "/usr/sbin/fence_x", "options": "ip=192.0.2.1 plug=2", "tried_ns": None}
    tried = replace(FenceSetting("/usr/sbin/fence_x", "ip=192.0.2.1 plug=2"), tried_ns=7)
    store = GroupStore(Path(group.store_path))
    store.change_settings("h2", lambda old: replace(old, fence=tried))
    kept = shown(capsys, "host", "set", "h2", "--pre-copy-pass-limit", "3", "--fence", "/usr/sbin/fence_x")
    assert kept["Fence"]["tried_ns"] == 7
    assert main(["host", "get", "h2"]) == 0
    assert "/usr/sbin/fence_x (tried " in capsys.readouterr().out
    assert shown(capsys, "host", "set", "h2", "--fence", "none")["Fence"]["tried_ns"] is None


@pytest.mark.parametrize("wrong", [("--fence", "fence_x"), ("--fence-options", "ip")])
def test_a_fence_that_cannot_be_is_refused(group: Group, wrong: tuple[str, str]) -> None:
    assert main(["host", "set", "h2", *wrong]) == 2
    assert SettingsDesk(group).get("h2") == HostSettings()


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_one_setting_is_changed_and_no_other(name: str, group: Group, capsys: pytest.CaptureFixture[str]) -> None:
    text, value = CHANGES[name]
    changed = shown(capsys, "host", "set", "h2", option_of(name), text)
    assert changed == {**HostSettings().to_json(), name: value}
    assert shown(capsys, "host", "get") == {"h1": HostSettings().to_json(), "h2": changed}


@pytest.mark.error("setting.invalid")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("VirtualMachineMigrationEnabled", "maybe"),
        ("MaximumVirtualMachineMigrations", "-1"),
        ("MaximumVirtualMachineMigrations", "4294967296"),
        ("PreCopyPassLimit", "0"),
        ("UnexpectedBlackoutMs", "1.5"),
        ("VirtualMachineMigrationPerformanceOption", "SMB"),
        ("VirtualMachineMigrationAuthenticationType", "none"),
    ],
)
def test_a_value_that_there_is_not_changes_nothing(
    name: str, text: str, group: Group, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["host", "set", "h1", option_of(name), text]) == 2
    said = capsys.readouterr().err
    assert f"{name} cannot be {text!r}" in said
    assert "setting.invalid" in said
    assert SettingsDesk(group).get("h1") == HostSettings()


@pytest.mark.error("setting.unknown")
def test_a_setting_that_there_is_not_is_said_with_those_that_there_are(group: Group) -> None:
    with pytest.raises(RefimplError, match="MaximumStorageMigrations") as caught:
        SettingsDesk(group).set("h1", {"MaximumMigrations": "3"})
    assert caught.value.problems[0].id == "setting.unknown"


@pytest.mark.rule("R13")
def test_networks_are_listed_by_priority(group: Group, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["network", "add", "h1", "10.90.1.5/24", "--priority", "8"]) == 0
    assert main(["network", "add", "h1", "fd00:90:3::/64", "--priority", "1"]) == 0
    assert main(["network", "add", "h1", "192.0.2.7"]) == 0
    capsys.readouterr()
    assert shown(capsys, "network", "list", "h1")["h1"] == [
        {"Subnet": "192.0.2.7/32", "Priority": 0},
        {"Subnet": "fd00:90:3::/64", "Priority": 1},
        {"Subnet": "10.90.1.0/24", "Priority": 8},
    ]
    assert main(["network", "set", "h1", "10.90.1.0/24", "--priority", "2", "--new-subnet", "10.90.0.0/16"]) == 0
    assert main(["network", "remove", "h1", "192.0.2.7/32"]) == 0
    capsys.readouterr()
    assert [n["Subnet"] for n in shown(capsys, "network", "list")["h1"]] == ["fd00:90:3::/64", "10.90.0.0/16"]


def test_any_other_network_is_said_with_the_list(group: Group, capsys: pytest.CaptureFixture[str]) -> None:
    main(["host", "set", "h1", "--use-any-network-for-migration", "true"])
    capsys.readouterr()
    main(["network", "list", "h1"])
    assert "every other network" in capsys.readouterr().out


@pytest.mark.error("network.no_subnet")
@pytest.mark.parametrize("text", ["10.90.1.0/33", "mig0", "", "10.90.1.*", "fd00::/129"])
def test_what_is_no_subnet(text: str, group: Group, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["network", "add", "h1", text]) == 2
    assert "network.no_subnet" in capsys.readouterr().err
    assert SettingsDesk(group).get("h1").networks == ()


@pytest.mark.error("network.listed")
@pytest.mark.error("network.unlisted")
def test_listed_twice_or_not_at_all(group: Group, capsys: pytest.CaptureFixture[str]) -> None:
    main(["network", "add", "h1", "10.1.0.0/24"])
    main(["network", "add", "h1", "10.2.0.0/24"])
    assert main(["network", "add", "h1", "10.1.0.9/24"]) == 2
    assert main(["network", "set", "h1", "10.2.0.0/24", "--new-subnet", "10.1.0.0/24"]) == 2
    assert main(["network", "remove", "h1", "10.3.0.0/24"]) == 2
    assert main(["network", "set", "h2", "10.1.0.0/24", "--priority", "1"]) == 2
    said = capsys.readouterr().err
    assert said.count("network.listed") == 2
    assert said.count("network.unlisted") == 2
    assert len(SettingsDesk(group).get("h1").networks) == 2


@pytest.mark.error("host.unknown")
@pytest.mark.parametrize(
    "arguments", [("host", "get"), ("host", "set", "--maximum-storage-migrations", "1"), ("network", "list")]
)
def test_a_host_that_there_is_not(arguments: tuple[str, ...], group: Group, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments[:2], "h9", *arguments[2:]]) != 0
    assert "host.unknown" in capsys.readouterr().err


def test_nothing_to_set_is_a_usage_error(group: Group, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["host", "set", "h1"]) == 2
    assert main(["network", "set", "h1", "10.1.0.0/24"]) == 2
