"""Forgetting operations: only those that have ended, that are old enough, and that nobody works on."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from refimpl.app.home import Home, OperationFiles, write_json
from refimpl.app.pruning import DAY_NS, prune
from refimpl.engine.journal import FileJournal
from refimpl.hosts.lock import tried
from refimpl.hosts.process import here
from refimpl.model.outcome import outcome
from refimpl.model.phase import Phase
from tests.builders import ledger, request

NOW_NS = 1_700_000_000_000_000_000


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def operation(home: Home, id: str, end: Phase | None, days_ago: float = 1.0) -> OperationFiles:
    files = home.create(id)
    group = {"id": "lab1", "name": "lab", "store_path": str(home.path / "group.db")}
    files.spec.write_text(
        json.dumps({"operation": id, "controller": "c", "request": request().to_json(), "group": group})
    )
    known = replace(ledger(operation=id), ended_ns=NOW_NS - round(days_ago * DAY_NS) if end else None)
    journal = FileJournal(files.journal)
    journal.intend(Phase.SETUP, known, [])
    if end is not None:
        journal.end(end, known, outcome(known, end).to_json())
    journal.close()
    return files


def ids(home: Home) -> list[str]:
    return sorted(files.id for files in home.all())


@pytest.mark.rule("R9")
def test_only_what_ended_long_enough_ago_is_removed(home: Home) -> None:
    operation(home, "old", Phase.COMPLETED, days_ago=10)
    operation(home, "older", Phase.FAILED, days_ago=20)
    operation(home, "young", Phase.COMPLETED, days_ago=9)
    assert prune(home, 9.5, now_ns=NOW_NS).removed == ("old", "older")
    assert ids(home) == ["young"]


def test_one_that_was_interrupted_stays(home: Home) -> None:
    operation(home, "cut", None)
    pruned = prune(home, 0, lab_gone=True, now_ns=NOW_NS)
    assert (pruned.removed, list(pruned.kept)) == ((), ["cut"])
    assert ids(home) == ["cut"]


def test_one_that_can_never_end_goes_only_by_name(home: Home, tmp_path: Path) -> None:
    files = operation(home, "orphan", None)
    spec = json.loads(files.spec.read_text())
    spec["group"]["store_path"] = str(tmp_path / "no lab here" / "group.db")
    files.spec.write_text(json.dumps(spec))
    assert "--lab-gone" in prune(home, 0, now_ns=NOW_NS).kept["orphan"]
    assert prune(home, 0, lab_gone=True, now_ns=NOW_NS).removed == ("orphan",)
    assert ids(home) == []


def test_one_whose_conductor_lives_stays_whatever_its_journal_says(home: Home) -> None:
    files = operation(home, "busy", Phase.COMPLETED)
    write_json(files.process, here(os.getpid()).to_json())
    assert prune(home, 0, now_ns=NOW_NS).kept == {"busy": "it runs"}


def test_one_that_a_conductor_has_just_locked_stays(home: Home) -> None:
    files = operation(home, "taken", Phase.COMPLETED)
    with tried(files.lock) as mine:
        assert mine
        assert prune(home, 0, now_ns=NOW_NS).kept == {"taken": "it runs"}
    assert ids(home) == ["taken"]


def test_one_that_cannot_be_read_stays(home: Home) -> None:
    operation(home, "torn", Phase.COMPLETED).spec.write_text("{")
    assert list(prune(home, 0, now_ns=NOW_NS).kept) == ["torn"]
