"""The options of the verbs about VMs: how they are read, and which of them do not go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from refimpl.app.own_guest import NicWish
from refimpl.cli import main
from refimpl.cli.vm_types import DISK, MEMORY, NIC


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (MEMORY, "512", 512),
        (MEMORY, "512M", 512),
        (MEMORY, "2G", 2048),
        (MEMORY, "2gib", 2048),
        (DISK, "10G", 10240),
        (DISK, "1T", 1 << 20),
        (DISK, "./10G", Path("10G")),
        (DISK, "a b.qcow2", Path("a b.qcow2")),
        (NIC, "vmswitch", NicWish("vmswitch")),
        (NIC, "sw,mac=52-54-00-AA-bb-01", NicWish("sw", "52:54:00:aa:bb:01")),
    ],
)
def test_values_are_read(kind: click.ParamType, text: str, value: Any) -> None:
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (MEMORY, "2X"),
        (MEMORY, "-1"),
        (MEMORY, "31"),
        (MEMORY, "2.5G"),
        (DISK, "512"),
        (DISK, "0G"),
        (DISK, "100000T"),
        (NIC, ""),
        (NIC, ",mac=52:54:00:00:00:01"),
        (NIC, "sw,mac=52:54:00:00:00"),
        (NIC, "sw,mac=53:54:00:00:00:01"),
        (NIC, "sw,vlan=3"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error(kind: click.ParamType, text: str) -> None:
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--disk", "1G"], "--disk"),
        (["--firmware", "uefi", "--no-nic"], "--firmware"),
        (["--vtpm"], "--vtpm"),
        (["--image", "x", "--writer-rate", "5"], "--writer-rate"),
        (["--image", "x", "--append", "quiet"], "--kernel"),
        (["--kernel", "x", "--cloud-init-network", "y"], "--cloud-init"),
        (["--image", "x", "--no-nic", "--forward", "80"], "--no-nic"),
        (["--image", "x", "--no-nic", "--nic", "sw"], "--no-nic"),
        (["--memory", "95M"], "--memory"),
        (["--forward", "http"], "PORT"),
        (["--memory", "lots"], "512 or 2G"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_do_not_go_together_are_told(arguments: list[str], named: str, capsys) -> None:
    assert main(["vm", "create", "shop", *arguments]) == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--connect", "sw", "--disconnect"], ["--processor-compatibility", "maybe"]])
def test_settings_that_say_nothing_or_two_things_are_told(arguments: list[str], capsys) -> None:
    assert main(["vm", "set", "shop", *arguments]) == 2
    assert "Error: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a/b", "two\nlines", "n" * 300, ""])
def test_a_name_that_no_vm_can_have_is_told_before_anything_is_looked_at(name: str, capsys) -> None:
    assert main(["vm", "create", name]) == 2
    assert "[vm.name_invalid]" in capsys.readouterr().err


def test_a_mend_shows_names_as_a_shell_has_to_be_given_them() -> None:
    from refimpl.model.errors import Problem

    problem = Problem("vm.not_off", {"vm": "a $(id)'s", "host": "h1", "state": "running"})
    assert problem.mend == "refimpl vm stop 'a $(id)'\"'\"'s'"
    assert "VM \"a $(id)'s\" on host 'h1'" in problem.text
    assert "host 'h1'" in Problem("memory.short", {"host": "h1"}).mend
