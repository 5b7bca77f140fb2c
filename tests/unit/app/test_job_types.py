"""The numbers by which a job says what kind of work it is, as Hyper-V has them (semantics 4.4)."""

from __future__ import annotations

import pytest

from refimpl.app.job import job_of
from refimpl.model.events import Event, Kind
from refimpl.model.phase import ENDS, Phase
from tests.unit.cli.fakes import outcome


@pytest.mark.rule("R9")
@pytest.mark.parametrize("phase", sorted(frozenset(Phase) - ENDS - {Phase.NEW}))
def test_a_job_says_that_it_checks_and_then_that_it_moves_and_always_of_what_kind_it_is(phase: Phase) -> None:
    told = job_of("web", "b", [Event(Kind.PHASE_ENTERED, 1, {"phase": phase}).to_json()], None).to_json()
    assert told["JobType"] == (301 if phase is Phase.CHECK else 305)
    assert told["MigrationType"] == 32768


@pytest.mark.rule("R9")
@pytest.mark.parametrize("end", [Phase.COMPLETED, Phase.COMPLETED_WITH_WARNINGS])
def test_a_job_that_succeeded_has_no_error_whatever_it_warns_of(end: Phase) -> None:
    told = job_of("web", "b", [], outcome(end)).to_json()
    assert (told["PercentComplete"], told["ErrorCode"], told["Errors"]) == (100, 0, [])
