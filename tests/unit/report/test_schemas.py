"""Published schemas: current, and true of what the command line really prints and an operation really keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from refimpl.app.home import Home
from refimpl.checks.report import compared
from refimpl.cli import main
from refimpl.meter.verdict import State, Verdict
from refimpl.model.events import FIELDS, Kind
from refimpl.model.phase import Phase
from refimpl.report import schemas
from tests.judging import asked, seen
from tests.unit.cli.fakes import outcome
from tests.unit.cli.kept import operation
from tests.unit.report.published import problems_of

PUBLISHED = Path(schemas.__file__).parents[2] / "docs" / "schemas"


def printed(capsys, *arguments: str) -> list[Any]:
    main([*arguments])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_a_published_schema_is_valid_and_current(name):
    """Not current? refimpl schema --write docs/schemas"""
    jsonschema.Draft202012Validator.check_schema(schemas.SCHEMAS[name]())
    assert (PUBLISHED / f"{name}.json").read_text("utf-8") == schemas.text(name)


def test_nothing_else_is_published():
    assert {path.stem for path in PUBLISHED.iterdir()} == set(schemas.SCHEMAS)


@pytest.mark.parametrize("options", [(), ("--pass-limit", "2"), ("--encryption", "off")])
def test_every_line_of_a_move_is_as_published(options, capsys):
    rows = printed(capsys, "migrate", "demo", "b", "--backend", "simulated", "--jsonl", *options)
    assert len(rows) > 20
    for row in rows:
        assert problems_of("line", row) == []
    for row in rows[:-1]:
        assert problems_of("event", row) == []
    assert problems_of("outcome", rows[-1]["outcome"]) == []
    assert rows[-1]["kind"] == "outcome"


def test_a_refused_move_is_as_published(capsys):
    rows = printed(capsys, "migrate", "nobody", "b", "--backend", "simulated", "--jsonl")
    assert rows[-1]["outcome"]["problems"]
    assert [problems_of("line", row) for row in rows] == [[]] * len(rows)


def test_a_command_that_did_not_come_to_an_end_is_as_published(capsys):
    (row,) = printed(capsys, "operations", "show", "nothing", "--json")
    assert row["kind"] == "problems"
    assert problems_of("line", row) == []


def test_the_demo_is_as_published(capsys):
    (row,) = printed(capsys, "demo", "--backend", "simulated", "--json")
    assert problems_of("demo-report", row) == []
    assert problems_of("line", row) == []


@pytest.mark.parametrize("shown", [seen(), seen(switches=frozenset(), disks={}, versions={}, clock=None)])
def test_a_compatibility_report_is_as_published(shown):
    made = compared(asked(shown))
    assert made.compatible == (not made.incompatibilities)
    assert problems_of("check", json.loads(json.dumps(made.to_json()))) == []


@pytest.mark.parametrize(("vm", "compatible"), [("demo", True), ("nobody", False)])
def test_what_check_prints_is_as_published(vm, compatible, capsys):
    (made,) = printed(capsys, "check", vm, "b", "--backend", "simulated", "--json")
    assert made["Compatible"] is compatible
    assert problems_of("check", made) == []


def test_the_list_of_operations_is_as_published(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REFIMPL_HOME", str(tmp_path))
    monkeypatch.setattr("refimpl.cli.operations.is_root", lambda: False)
    operation(Home(tmp_path), "11111111", Phase.COMPLETED)
    operation(Home(tmp_path), "22222222", None)
    (operation(Home(tmp_path), "33333333", None) / "spec.json").write_text("{", "utf-8")
    (made,) = printed(capsys, "operations", "list", "--json")
    assert [row["state"] for row in made["operations"]] == ["completed", "interrupted", "unreadable"]
    assert problems_of("operations-list", made) == []


def test_verdicts_are_as_published():
    found = [Verdict("disk", State.OK, "fine", {"blocks": 7}, "guest.jsonl").to_json()]
    kept = {"schema": 1, "vm": "web", "source": "a", "destination": "b", "verdicts": found}
    assert problems_of("verdicts", kept) == []


def test_every_value_that_an_event_carries_has_a_type():
    event = schemas.SCHEMAS["event"]()
    carried = {rule["if"]["properties"]["kind"]["const"]: rule["then"] for rule in event["allOf"]}
    for kind in Kind:
        assert set(carried[kind]["properties"]["values"]["properties"]) == set(FIELDS.get(kind, ()))


@pytest.mark.parametrize(
    ("change", "at"), [({"end": "elsewhere"}, "end"), ({"passes": "many"}, "passes"), ({"new_figure_ms": 1}, "")]
)
def test_what_is_not_as_published_is_found(change, at):
    """The validation of these tests can fail."""
    told = json.loads(json.dumps({**outcome().to_json(), **change}))
    assert [text.partition(":")[0] for text in problems_of("outcome", told)] == [at]


def test_the_verb_lists_prints_and_writes(tmp_path, capsys):
    assert main(["schema"]) == 0
    assert set(schemas.SCHEMAS) == {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert main(["schema", "line"]) == 0
    assert json.loads(capsys.readouterr().out)["$id"].startswith("urn:refimpl:schema:line:")
    assert main(["schema", "--write", str(tmp_path / "new")]) == 0
    assert len(list((tmp_path / "new").iterdir())) == len(schemas.SCHEMAS)
    assert main(["schema", "nothing"]) == 2
