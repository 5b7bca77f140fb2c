"""Links of a lab: cut, slowed down, put right whatever happens; networks of one's own; no way down in mid-move."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from refimpl.app.labs import build, wish_of
from refimpl.hosts.command import run_local
from refimpl.hosts.factory import channel_for
from refimpl.lab import Lab, LabError, LabState, LinkState, layout, list_labs, shelf
from refimpl.lab.requirements import Finding
from tests.lab.cli_support import Command
from tests.lab.lab_support import state_directory
from tests.lab.moving import Moving, wait_for

pytestmark = pytest.mark.lab

FILE = """
name = "own"
[management]
rate_mbit_s = 900
[[networks]]
name = "slow"
subnet = "192.168.77.0/28"
priority = 2
rate_mbit_s = 50
[[networks]]
name = "fast"
subnet = "fd12:3456::/64"
priority = 1
[[hosts]]
name = "left"
memory_mib = 512
[hosts.settings]
MaximumVirtualMachineMigrations = 5
[[hosts]]
name = "right"
"""


def connects(lab: Lab, host: str, address: str, limit_s: int = 20) -> bool:
    """Tell whether a host reaches another one's libvirt at an address within some time."""
    entry = lab.group.host(host)
    assert entry is not None
    command = ["timeout", str(limit_s), "bash", "-c", 'exec 3<>"/dev/tcp/$1/16514"', "bash", address]
    return channel_for(entry).run(command).status == 0


def limits(netns: str, device: str) -> list[str]:
    """Return the kinds of what shapes a device."""
    done = run_local(["ip", "netns", "exec", netns, "tc", "-j", "qdisc", "show", "dev", device])
    return [qdisc["kind"] for qdisc in json.loads(done.stdout)]


@pytest.mark.parametrize("network", ["management", "migration", "migration2"])
def test_what_is_cut_does_not_connect_and_comes_back_whatever_happens(moving_lab: Lab, network: str) -> None:
    link = moving_lab.link("h2", network)
    assert connects(moving_lab, "h1", link.address)

    def cut_and_fail() -> None:
        with link.restored():
            link.cut()
            assert link.state() == LinkState(up=False)
            assert not connects(moving_lab, "h1", link.address, limit_s=1)
            raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        cut_and_fail()
    assert link.state() == LinkState()
    assert connects(moving_lab, "h1", link.address)


def test_a_limit_holds_in_both_directions_and_goes_again(moving_lab: Lab) -> None:
    link = moving_lab.link("h1", "migration2")
    ends = [(layout.netns_name(moving_lab.id, "sw"), link.port), (layout.netns_name(moving_lab.id, "h1"), link.device)]
    with link.restored():
        for rate in (100, 7, 100_000):
            link.shape(rate)
            assert link.state() == LinkState(rate_mbit_s=rate)
            assert [limits(*end) for end in ends] == [["tbf"], ["tbf"]]
        assert connects(moving_lab, "h2", link.address)
    assert not any("tbf" in limits(*end) for end in ends)
    link.mend()
    for rate in (-1, 100_001):
        with pytest.raises(ValueError, match="Mbit/s"):
            link.shape(rate)


@pytest.mark.error("lab.network_unknown")
def test_an_unknown_network_is_told_with_those_that_are_known(moving_lab: Lab) -> None:
    with pytest.raises(LabError, match="management, migration, migration2, vm"):
        moving_lab.link("h1", "nowhere")


@pytest.mark.error("lab.moving")
def test_a_lab_is_not_taken_down_while_a_move_runs(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    operation = moving.start(source=source, destination=destination, bandwidth_mib_s=3)
    wait_for(operation, "memory-seen")
    moving.hold_memory(source)
    refused = Command(moving.lab.paths.root, moving.home.path)("lab", "down", moving.lab.name)
    assert refused.code == 8
    assert "[lab.moving]" in refused.err
    assert operation.id in refused.err
    with pytest.raises(LabError, match=operation.id):
        moving.lab.down(only_idle=True)
    assert all(host.healthy for host in moving.lab.status())
    moving.release_memory(source)
    operation.wait()
    assert moving.lab.moves() == ()


@pytest.fixture
def root() -> Iterator[Path]:
    with state_directory() as directory:
        yield directory


def test_a_lab_of_a_file_has_its_hosts_networks_and_speeds(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(FILE)
    steps: list[str] = []
    lab = build(wish_of(None, None, None, file), lambda name, _: steps.append(name), root)
    left, right = lab.group.hosts
    assert (left.name, left.memory_mib, right.name, right.memory_mib) == ("left", 512, "right", 2048)
    assert [(n.name, n.address, n.priority) for n in right.migration_networks] == [
        ("slow", "192.168.77.12", 2),
        ("fast", "fd12:3456::12", 1),
    ]
    for network in right.migration_networks:
        assert connects(lab, "left", network.address)
    assert {(x.network, x.state().rate_mbit_s) for x in lab.links()} == {
        ("management", 900),
        ("slow", 50),
        ("fast", 0),
        ("vm", 0),
    }
    link = lab.link("left", "slow")
    link.shape(3)
    link.mend()
    assert link.state().rate_mbit_s == 50
    lab.host_power_off("right")
    lab.host_power_on("right")
    assert all(host.healthy for host in lab.status())
    done = Command(root, tmp_path / "home")("host", "get", "left", "--json")
    assert (done.code, done.json["left"]["MaximumVirtualMachineMigrations"]) == (0, 5)
    assert steps[-1] == "settings"


def test_without_ipv6_in_the_kernel_both_networks_are_ipv4_and_it_is_said(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shelf, "ipv6", lambda: Finding("IPv6", False, "no such protocol"))
    lab = build(wish_of("old", None, None, None), root=root)
    assert "no IPv6" in lab.remarks[0]
    networks = lab.group.hosts[1].migration_networks
    assert [n.name for n in networks] == ["migration", "migration2"]
    assert all("." in n.address and connects(lab, "h1", n.address) for n in networks)
    file = tmp_path / "lab.toml"
    file.write_text(FILE)
    with pytest.raises(LabError, match="IPv6"):
        build(wish_of(None, None, None, file), root=root)
    assert [(x.name, x.state) for x in list_labs(root)] == [("old", LabState.UP)]
