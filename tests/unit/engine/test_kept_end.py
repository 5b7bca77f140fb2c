"""How a move ended can be read when its conductor is gone: state, percentage and error of its job come from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from refimpl.app.job import job_of
from refimpl.engine.journal import FileJournal
from refimpl.model.errors import Problem
from refimpl.model.events import Kind
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from tests.builders import event
from tests.scripted import STAYED, Run

FAILS: dict[str, Any] = {
    "PREPARE": [event(Kind.PREPARE_FAILED, problem=Problem("prepare.failed", {"vm": "web"}))],
    "INSPECT": [event(Kind.EVIDENCE_SEEN, evidence=STAYED)],
}


@pytest.mark.rule("R9")
@pytest.mark.parametrize(("changes", "end"), [({}, Phase.COMPLETED), (FAILS, Phase.FAILED)])
def test_the_end_is_read_back_by_somebody_else(tmp_path: Path, changes: dict[str, Any], end: Phase) -> None:
    journal = FileJournal(tmp_path / "journal.db")
    told = Run(journal=journal, **changes).conductor.start()
    journal.close()
    kept = FileJournal(tmp_path / "journal.db")
    standing = kept.standing()
    assert standing is not None
    assert standing.outcome is not None
    assert Outcome.from_json(standing.outcome) == told
    assert (standing.phase, told.end) == (end, end)
    events = [json.loads(line) for _, line in kept.lines()]
    job = job_of("web", "b", events, Outcome.from_json(standing.outcome)).to_json()
    assert (job["PercentComplete"] == 100) is (end is Phase.COMPLETED)
    assert [problem["id"] for problem in job["Errors"]] == ([] if end is Phase.COMPLETED else ["prepare.failed"])
