"""Listing and showing operations: those that ended, one that was interrupted, one that cannot be read."""

from __future__ import annotations

import json
from dataclasses import replace

import click
import pytest

from refimpl.app.home import Home
from refimpl.cli import main
from refimpl.cli.operations import phases
from refimpl.model.events import Kind
from refimpl.model.phase import Phase
from refimpl.model.request import PostCopy
from tests.unit.cli import kept
from tests.unit.cli.fakes import NOW_NS, event
from tests.unit.cli.kept import operation


@pytest.fixture
def home(tmp_path, monkeypatch) -> Home:
    monkeypatch.setenv("REFIMPL_HOME", str(tmp_path))
    monkeypatch.setattr("refimpl.cli.operations.is_root", lambda: False)
    return Home(tmp_path)


def test_without_operations_the_list_says_how_to_start_one(home, capsys):
    assert main(["operations", "list"]) == 0
    assert "refimpl migrate" in capsys.readouterr().out


def test_an_interrupted_one_is_reported_with_its_mend_and_not_touched(home, capsys):
    operation(home, "11111111", Phase.COMPLETED)
    directory = operation(home, "22222222", None)
    before = sorted(p.name for p in directory.iterdir())
    assert main(["operations", "list"]) == 0
    out = click.unstyle(capsys.readouterr().out)
    assert [line.split()[-1] for line in out.splitlines()[1:3]] == ["completed", "interrupted"]
    assert "To be recovered: 22222222. Run: refimpl recover" in out
    assert "not bounded" in out
    assert sorted(p.name for p in directory.iterdir()) == before


def test_an_indeterminate_end_needs_recovery_too(home, capsys):
    operation(home, "33333333", Phase.INDETERMINATE)
    main(["operations", "list", "--json"])
    (row,) = json.loads(capsys.readouterr().out)["operations"]
    assert (row["state"], row["needs_recovery"], row["exit_code"]) == ("indeterminate", True, 6)


def test_one_that_cannot_be_read_does_not_hide_the_others(home, capsys):
    operation(home, "11111111", Phase.COMPLETED)
    (operation(home, "44444444", None) / "spec.json").write_text("{", "utf-8")
    assert main(["operations", "list"]) == 0
    out = capsys.readouterr().out
    assert "unreadable" in out
    assert "11111111" in out


def test_the_list_tells_when_each_began_and_in_which_lab(home, capsys):
    operation(home, "11111111", Phase.COMPLETED)
    main(["operations", "list", "--json"])
    (row,) = json.loads(capsys.readouterr().out)["operations"]
    assert (row["began"], row["lab"]) == ("2023-11-14T22:13:20Z", "spring")
    main(["operations", "list"])
    head, line = click.unstyle(capsys.readouterr().out).splitlines()
    assert head.split() == ["OPERATION", "BEGAN", "LAB", "VM", "SOURCE", "DESTINATION", "PHASE", "STATE"]
    assert line.split() == ["11111111", "2023-11-14T22:13:20Z", "spring", "web", "h1", "h2", "completed", "completed"]


def test_prune_removes_what_has_ended_and_nothing_else(home, capsys):
    ended = operation(home, "11111111", Phase.COMPLETED, NOW_NS)
    waiting = [operation(home, "22222222", None), operation(home, "33333333", Phase.INDETERMINATE, NOW_NS)]
    assert main(["operations", "prune", "--older-than", "30"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1 removed: 11111111")
    assert "kept 22222222: it needs recovery (refimpl recover 22222222)" in out
    assert not ended.exists()
    assert all((directory / "spec.json").exists() for directory in waiting)


@pytest.mark.parametrize("arguments", [[], ["--all", "--older-than", "3"]], ids=["neither", "both"])
def test_prune_wants_to_be_told_how_old(home, arguments):
    operation(home, "11111111", Phase.COMPLETED, NOW_NS)
    assert main(["operations", "prune", *arguments]) == 2
    assert [files.id for files in home.all()] == ["11111111"]


def test_show_tells_phases_events_intentions_and_end(home, capsys):
    operation(home, "11111111", Phase.COMPLETED)
    assert main(["operations", "show", "111"]) == 0
    out = click.unstyle(capsys.readouterr().out)
    lines = [line.split() for line in out.splitlines()]
    assert ["check", "3.0", "ms"] in lines
    assert ["3", "setup", "prepare"] in lines
    assert "VM 'web' moved from h1 to h2 and runs there." in out


def test_show_of_an_interrupted_one_says_what_to_do(home, capsys):
    operation(home, "22222222", None)
    assert main(["operations", "show", "2"]) == 0
    assert "died in phase setup. Run: refimpl recover 22222222" in capsys.readouterr().out


def test_show_as_json_has_everything(home, capsys):
    operation(home, "11111111", Phase.FAILED)
    main(["operations", "show", "1", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["outcome"]["end"] == "failed"
    assert (shown["job"]["JobState"], shown["job"]["PercentComplete"]) == (10, 1)
    assert shown["job"]["ErrorCode"] != 0
    assert shown["intentions"] == [{"step": 3, "phase": "setup", "kind": "prepare"}]
    assert [e["kind"] for e in shown["events"]] == ["started", "phase-entered", "phase-entered"]


@pytest.mark.error("operation.dead")
def test_the_bandwidth_of_a_dead_one_cannot_be_changed(home, capsys):
    operation(home, "22222222", None)
    assert main(["operations", "set", "2", "--bandwidth", "5"]) == 6
    assert "refimpl recover" in capsys.readouterr().err


@pytest.mark.error("operation.no_end")
def test_attach_to_a_dead_one_says_so_and_ends_with_6(home, capsys):
    operation(home, "22222222", None)
    assert main(["attach", "2"]) == 6
    captured = capsys.readouterr()
    assert "phase setup" in captured.out
    assert "refimpl recover 22222222" in captured.err


def test_attach_to_an_ended_one_tells_its_end_with_its_code(home, capsys):
    operation(home, "11111111", Phase.FAILED)
    assert main(["attach", "1"]) == 4


@pytest.mark.error("operation.dead")
def test_cancel_of_a_dead_one_ends_with_6(home, capsys):
    operation(home, "22222222", None)
    assert main(["cancel", "2"]) == 6


@pytest.mark.error("operation.ended")
def test_cancel_of_an_ended_one_ends_with_2(home, capsys):
    operation(home, "11111111", Phase.COMPLETED)
    assert main(["cancel", "1"]) == 2


def test_the_last_phase_has_no_duration():
    entered = [event(Kind.PHASE_ENTERED, ms, phase=name) for name, ms in (("check", 0), ("setup", 5), ("memory", 25))]
    assert phases(entered) == [
        {"phase": "check", "ms": 5.0},
        {"phase": "setup", "ms": 20.0},
        {"phase": "memory", "ms": None},
    ]


@pytest.mark.error("post_copy.not_allowed")
def test_post_copy_of_a_move_that_does_not_allow_it_is_refused(home, capsys):
    operation(home, "22222222", None)
    assert main(["operations", "post-copy", "2"]) == 3
    assert "--post-copy allowed" in capsys.readouterr().err


def test_post_copy_of_a_dead_one_cannot_be_asked_for(home, capsys, monkeypatch):
    monkeypatch.setattr(kept, "REQUEST", replace(kept.REQUEST, post_copy=PostCopy.ALLOWED))
    operation(home, "22222222", None)
    assert main(["operations", "post-copy", "2"]) == 6
    assert "refimpl recover" in capsys.readouterr().err


def test_an_end_in_two_halves_needs_recovery_too(home, capsys):
    operation(home, "33333333", Phase.POSTCOPY_PAUSED)
    main(["operations", "list", "--json"])
    (row,) = json.loads(capsys.readouterr().out)["operations"]
    assert (row["state"], row["needs_recovery"], row["exit_code"]) == ("post-copy-paused", True, 6)
