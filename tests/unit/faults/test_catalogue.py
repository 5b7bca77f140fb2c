"""Every fault is declared whole, is done by something, and the page and the verbs say what the declarations say."""

from __future__ import annotations

import dataclasses
import json

import click
import jsonschema
import pytest

from refimpl.cli import main
from refimpl.cli.lab_fault import fault
from refimpl.faults import FAULTS
from refimpl.faults.catalogue import Claim, Fault, Needs
from refimpl.faults.strikes import STRIKES
from refimpl.report.schemas import SCHEMAS


def test_every_declared_fault_is_done_by_something_and_nothing_else_is() -> None:
    assert set(STRIKES) == set(FAULTS)


@pytest.mark.parametrize("declared", FAULTS.values(), ids=lambda f: f.name)
def test_a_declaration_says_all(declared: Fault) -> None:
    for field in dataclasses.fields(declared):
        if field.name not in ("needs", "lasting"):
            assert getattr(declared, field.name), field.name
    assert declared.lasting != declared.undone.startswith("not at all")
    assert Claim.NOTHING not in declared.claims or declared.claims == (Claim.NOTHING,)


def test_only_the_end_of_the_process_that_has_the_memory_may_lose_the_vm() -> None:
    assert [f.name for f in FAULTS.values() if f.may_lose_vm] == ["kill-qemu"]


@pytest.mark.parametrize("declared", FAULTS.values(), ids=lambda f: f.name)
def test_the_verb_says_what_the_fault_does_and_risks_and_asks_for_what_it_needs(declared: Fault) -> None:
    verb = fault.get_command(click.Context(fault), declared.name)
    assert verb is not None
    assert verb.get_short_help_str(200) == declared.title
    for text in (declared.does, declared.undone, *declared.claims):
        assert str(text) in (verb.help or "")
    required = {p.name for p in verb.params if isinstance(p, click.Option) and p.required}
    assert required == set(map(str, declared.needs))
    assert any("--for" in p.opts for p in verb.params) == declared.lasting


def test_the_list_is_printed_for_people_and_as_json(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("REFIMPL_LAB_ROOT", str(tmp_path))
    assert main(["lab", "fault", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in FAULTS)
    assert main(["lab", "fault", "list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    jsonschema.validate(told, SCHEMAS["fault-list"]())
    assert [row["name"] for row in told["faults"]] == list(FAULTS)


@pytest.mark.parametrize(
    "arguments",
    [
        ["kill-qemu", "--host", "h1"],
        ["link-slow", "--host", "h1", "--network", "migration"],
        ["link-slow", "--host", "h1", "--network", "migration", "--rate", "0"],
        ["link-one-way", "--host", "h1", "--network", "migration", "--direction", "up"],
        ["freeze-qemu", "--host", "h1", "--vm", "web", "--for", "-1"],
        ["kill-conductor", "--for", "3"],
        ["disk-full", "--place", "cellar"],
        ["burn-down"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_strikes_nothing(arguments, capsys) -> None:
    assert main(["lab", "fault", *arguments]) == 2
    assert "Error: " in capsys.readouterr().err


def test_every_need_is_used() -> None:
    assert {need for f in FAULTS.values() for need in f.needs} == set(Needs)
