"""Guests of one's own, as a user brings them: made, reached by a forward, moved, reached again over the same one."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest

from tests.healing import Healing
from tests.lab import own_images
from tests.lab.cli_support import Command, command_with_lab
from tests.lab.moving import until
from tests.lab.own_images import COMMAND_LINE, OwnImages

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(bool(own_images.missing()), reason=f"needs apt install {' '.join(own_images.missing())}"),
]

NASTY = 'quote\'s "$(touch pwned)" <ü>; a,b=c'
"""A name that a VM can have."""


def empty(refimpl: Command) -> None:
    """Assert that the lab has no VM."""
    vms = refimpl("vm", "list", "--json").json["vms"]
    assert vms == [], f"VMs that are left: {vms}"


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Healing[Command]]:
    def made() -> AbstractContextManager[Command]:
        return command_with_lab(tmp_path_factory.mktemp("home"), "own", 768)

    with closing(Healing("the lab of this module", made, empty)) as commands:
        yield commands


@pytest.fixture
def refimpl(commands: Healing[Command], request: pytest.FixtureRequest) -> Iterator[Command]:
    """The command, with a lab that has no VM before and after."""
    with commands.lent(request.node) as command:
        yield command


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> OwnImages:
    return own_images.make(tmp_path_factory.mktemp("images"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def get(port: int) -> str:
    """Ask the guest's web server by a port of this machine, until it answers: it starts a moment after the address."""
    return str(until(lambda: _answer(port), "an answer of the web server"))


def _answer(port: int) -> str | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/index.html")
        return connection.getresponse().read().decode()
    except http.client.RemoteDisconnected:
        return None
    finally:
        connection.close()


def make(refimpl: Command, name: str, *options: str) -> int:
    """Make a VM on h1 and wait until it has an address; return the port that leads to its web server."""
    port = free_port()
    made = refimpl("vm", "create", name, "--host", "h1", "--start", "--forward", f"{port}:80", *options, "--json")
    assert made.code == 0, made
    assert made.json["address"] is not None
    assert made.json["forwards"] == [{"port": port, "guest_port": 80, "up": True}]
    return port


def end(refimpl: Command, name: str, port: int) -> None:
    """Remove a VM; nothing of it stays, and its port is free again."""
    assert refimpl("vm", "stop", name, "--force").code == 0
    removed = refimpl("vm", "remove", name)
    assert removed.code == 0, removed
    (disks,) = refimpl.root.glob("*/shared/disks")
    assert [path.name for path in disks.iterdir()] == [".addresses.lock"]
    socket.create_server(("127.0.0.1", port)).close()


def test_a_kernel_of_ones_own_is_reached_over_the_same_forward_after_a_move(
    refimpl: Command, images: OwnImages
) -> None:
    boot = ("--kernel", str(images.kernel), "--initrd", str(images.initrd), "--append", COMMAND_LINE)
    port = make(refimpl, "shop", *boot, "--memory", "160", "--disk", "64M")
    before = get(port)
    moved = refimpl("migrate", "shop", "h2")
    assert moved.code == 0, moved
    assert before.startswith("boot ")
    assert get(port) == before
    assert refimpl.vm("shop")["host"] == "h2"
    end(refimpl, "shop", port)


def test_a_disk_image_under_a_nasty_name_through_its_whole_life(
    refimpl: Command, images: OwnImages, tmp_path: Path
) -> None:
    user_data = tmp_path / "user data"
    user_data.write_text("#cloud-config\n{}\n")
    port = make(refimpl, NASTY, "--image", str(images.bios), "--memory", "160", "--cloud-init", str(user_data))
    before = get(port)
    shown = refimpl("vm", "show", NASTY, "--json").json["vm"]
    assert (shown["guest"], shown["firmware"]) == ("own", "bios")
    assert [Path(disk).name for disk in shown["disks"]] == ["disk1.qcow2"]
    assert shown["dvd"].endswith("/seed.iso")
    for verb, state in (("pause", "paused"), ("resume", "running")):
        assert refimpl("vm", verb, NASTY, "--json").json["state"] == state
        assert refimpl.vm(NASTY)["state"] == state
    for change, switch in (("--disconnect", None), ("--connect=vmswitch", "vmswitch")):
        assert refimpl("vm", "set", NASTY, change, "--eject", "--json").code == 0
        shown = refimpl("vm", "show", NASTY, "--json").json["vm"]
        assert (shown["adapters"][0]["switch"], shown["dvd"]) == (switch, None)
    assert get(port) == before
    moved = refimpl("migrate", NASTY, "h2")
    assert moved.code == 0, moved
    assert get(port) == before
    refused = refimpl("vm", "set", NASTY, "--processor-compatibility", "on")
    assert (refused.code, "[vm.off_needed]" in refused.err) == (3, True)
    assert refimpl("vm", "stop", NASTY, "--force").code == 0
    options = ("--processor-compatibility", "on", "--memory", "192", "--vcpus", "2")
    assert refimpl("vm", "set", NASTY, *options).code == 0
    shown = refimpl("vm", "show", NASTY, "--json").json["vm"]
    assert (shown["processor_compatibility"], shown["memory_mib"], shown["vcpus"]) == (True, 192, 2)
    assert refimpl("vm", "start", NASTY).code == 0
    end(refimpl, NASTY, port)
    assert not Path("pwned").exists()


def test_uefi_and_its_variables_move_there_and_back(refimpl: Command, images: OwnImages) -> None:
    port = make(refimpl, "efi", "--image", str(images.uefi), "--firmware", "uefi", "--memory", "256")
    before = get(port)
    (variables,) = refimpl.root.glob("*/shared/disks/efi.d/nvram.fd")
    for host in ("h2", "h1"):
        moved = refimpl("migrate", "efi", host)
        assert moved.code == 0, moved
        assert get(port) == before
        assert variables.exists()
    assert refimpl("vm", "show", "efi", "--json").json["vm"]["firmware"] == "uefi"
    end(refimpl, "efi", port)


def test_a_guest_that_asks_for_no_address_is_told_and_runs_on(refimpl: Command, images: OwnImages) -> None:
    mute = ("--kernel", str(images.kernel), "--memory", "160", "--start", "--wait-limit", "1")
    done = refimpl("vm", "create", "mute", *mute)
    assert (done.code, "[guest.no_address]" in done.err) == (8, True)
    assert refimpl.vm("mute")["state"] == "running"
    assert refimpl("vm", "stop", "mute", "--force").code == 0
    assert refimpl("vm", "remove", "mute").code == 0


def test_what_cannot_be_made_leaves_nothing(refimpl: Command, images: OwnImages) -> None:
    boot = ("--kernel", str(images.kernel))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = free_port()
        refused = refimpl("vm", "create", "x", *boot, "--forward", f"{other}:80", "--forward", f"{port}:80")
        assert (refused.code, "[forward.port_taken]" in refused.err) == (3, True)
    socket.create_server(("127.0.0.1", other)).close()
    wrong = refimpl("vm", "create", "x", *boot, "--nic", "nowhere", "--json")
    assert (wrong.code, wrong.json["problems"][0]["id"]) == (3, "vm.switch_unknown")
    refused = refimpl("vm", "create", "x", *boot, "--vtpm")
    assert (refused.code, "virtual TPM" in refused.err) == (3, True)
    (disks,) = refimpl.root.glob("*/shared/disks")
    assert [path.name for path in disks.iterdir()] == [".addresses.lock"]
