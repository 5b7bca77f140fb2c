"""Every verb that has --json: what it prints is published, and so is what it says when it cannot begin."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import pytest

from refimpl.app.home import Home
from refimpl.cli import main
from refimpl.cli.context import json_option
from refimpl.report import schemas
from tests.unit.cli.commands import all_commands
from tests.unit.report.published import problems_of, schema_of, unpublished

PARTS = {"event", "outcome", "verdicts", "problems", "fault"}
"""Schemas of no verb's own: parts of a line, a file that is kept, errors, and what every fault prints."""
COMMON = {"line", "check"}
"""Schemas that are named for what they are of, not for a verb."""
WORDS = {"subnet": "10.0.0.0/8", "operation_id": "0a1b"}
NEEDS_NOTHING = {"lab fault list"}
"""Verbs that begin on any machine."""
MORE = {
    "check": ["web", "h2"],
    "doctor": ["--mend", "--yes"],
    "host set": ["--pre-copy-pass-limit", "3"],
    "lab link": ["--network", "migration"],
    "migrate": ["web", "h2"],
    "network set": ["--priority", "1"],
    "operations prune": ["--all"],
    "vm set": ["--eject"],
}
"""What a verb wants to be told beside its arguments."""


def verbs_with_json() -> dict[str, click.Command]:
    found = {}
    for name, command in all_commands():
        if any("--json" in parameter.opts for parameter in command.params):
            found[name] = command
    return found


VERBS = verbs_with_json()


@pytest.mark.parametrize("name", VERBS)
def test_what_a_verb_prints_as_json_is_published(name: str) -> None:
    """A verb without: give it the option by `refimpl.cli.context.json_option`, and make the schema."""
    schema = schema_of(VERBS[name])
    assert schema in schemas.SCHEMAS
    assert schema not in PARTS
    made = schemas.SCHEMAS[schema]()
    assert schema in COMMON or f"refimpl {name.split()[0]}" in made["title"]
    wide = click.Context(VERBS[name], info_name=name, terminal_width=200)
    assert f"refimpl schema {schema})" in VERBS[name].get_help(wide)


def test_every_schema_is_of_a_verb_or_of_a_part() -> None:
    assert {schema_of(command) for command in VERBS.values()} | PARTS == set(schemas.SCHEMAS)


def test_a_verb_whose_json_is_not_published_would_be_found() -> None:
    plain = click.Command("x", params=[click.Option(["--json"], is_flag=True)])
    assert schema_of(plain) is None
    assert schema_of(json_option("vm")(click.Command("x"))) == "vm"


def test_what_a_command_line_printed_is_judged_by_its_verbs_schema() -> None:
    told = {"vm": "web", "host": None, "state": None}
    assert unpublished(["vm", "remove", "web", "--json"], json.dumps(told)) == []
    assert unpublished(["vm", "remove", "web", "--json"], json.dumps({**told, "state": "gone"}))
    assert unpublished(["lab", "link", "h1", "--json"], json.dumps(told))
    assert unpublished(["migrate", "web", "h2", "--jsonl"], json.dumps(told))
    assert unpublished(["vm", "remove", "web", "--json"], json.dumps({"kind": "problems"}))
    assert unpublished(["vm", "remove", "web"], "no JSON") == []


@pytest.mark.parametrize("name", [name for name in VERBS if name not in NEEDS_NOTHING])
def test_why_a_verb_could_not_begin_is_json_too(name, tmp_path: Path, monkeypatch, capsys) -> None:
    def closed(_: object = None) -> None:
        raise PermissionError(13, "Permission denied", "/labs/00/registry.jsonl")

    monkeypatch.setenv("REFIMPL_HOME", str(tmp_path))
    monkeypatch.setattr("refimpl.cli.context.is_root", lambda: False)
    monkeypatch.setattr("refimpl.lab.list_labs", closed)
    monkeypatch.setattr(Home, "all", closed)
    monkeypatch.setattr(sys, "argv", ["/opt/x/bin/refimpl", name])
    arguments = [p for p in VERBS[name].params if isinstance(p, click.Argument) and p.required]
    words = [WORDS.get(p.name or "", "web") for p in arguments]
    code = main([*name.split(), *words, *MORE.get(name, ()), "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert problems_of("problems", told) == []
    assert problems_of("line", told) == []
    assert (told["exit_code"], told["problems"][0]["id"]) in [(8, "root.needed"), (8, "machine.failed")]
    assert code == 8
