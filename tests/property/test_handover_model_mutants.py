"""The model can fail: guards of table, policies and backend are broken on purpose, and each time it finds what follows.

A guard whose loss another one makes good shows as a person being needed for nothing; that, too, is a violation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from refimpl.backends.libvirt import status
from refimpl.engine import decisions
from refimpl.engine.phases import TABLE, Row
from refimpl.engine.step import step
from refimpl.model.decision import Decision, decision
from refimpl.model.events import Event, Kind
from refimpl.model.facts import CopySeen, Evidence
from refimpl.model.ledger import Ledger
from refimpl.model.phase import Phase
from refimpl.model.request import CommandKind
from refimpl.policy.closing import closing
from refimpl.policy.reconciliation import reconcile
from tests.handover_model import disks
from tests.handover_model.checker import STUCK, Result, check
from tests.handover_model.model import DUAL, FILE_GONE, NEEDLESS, THROWN, Bounds, Model
from tests.handover_model.world import Options

STRICT, DISKS = Options(), Options(disks=True)
FREEZE, CRASH, NOTHING = (Bounds(kinds=("freeze",)), Bounds(kinds=("crash",)), Bounds(faults=0))
FALSELY_FAILED = "ended failed, and the source does not run"
FALSELY_LOST = "ended lost, and a copy with the newest memory is there"

Key = tuple[Phase, Kind]


def with_rows(
    rows: Mapping[Key, Row | None], bounds: Bounds, *, progress: bool = False, options: Options = STRICT
) -> Result:
    """Check with some rows of the table replaced, or removed."""

    def other(phase: Phase, kind: Kind) -> Row:
        row = rows.get((phase, kind), step(phase, kind))
        return row or Row(phase)

    return check(Model(options, bounds, other), progress=progress)


def with_judgement(
    patch: pytest.MonkeyPatch, kind: Kind, policy: Callable[[Ledger, Event], Decision | None], bounds: Bounds
) -> Result:
    """Check with one policy replaced."""
    patch.setitem(decisions.POLICIES, kind, policy)  # type: ignore[arg-type]
    return check(Model(STRICT, bounds))


def seen_otherwise(change: Callable[[CopySeen, CopySeen], tuple[CopySeen, CopySeen]]) -> Callable[..., Decision | None]:
    """Return reconciliation that takes one thing for another."""

    def policy(ledger: Ledger, event: Event) -> Decision | None:
        evidence: Evidence = event["evidence"]
        source, destination = change(evidence.source, evidence.destination)
        return reconcile(ledger, Event(event.kind, 0, {"evidence": Evidence(source, destination)}))

    return policy


@pytest.mark.rule("R1")
def test_unbroken_it_finds_nothing_within_the_same_bounds() -> None:
    """A freeze; a daemon that is killed, and no fault at all, are in the tests of the model."""
    assert check(Model(STRICT, FREEZE)).complete


@pytest.mark.rule("R1")
def test_let_run_on_arrival() -> None:
    at_once = Row(Phase.COMMITTED, (CommandKind.RECORD_COMMIT,))
    rows = {(phase, Kind.DESTINATION_ARRIVED): at_once for phase in (Phase.MEMORY, Phase.SWITCH)}
    assert with_rows(rows, FREEZE).violation == DUAL


def test_a_copy_that_arrived_is_taken_for_a_bound_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(ledger: Ledger, event: Event) -> Decision | None:
        return decision(Kind.SOURCE_BOUND, why="arrived")

    assert with_judgement(monkeypatch, Kind.BINDING_SEEN, blind, FREEZE).violation == DUAL


def test_bound_one_step_of_libvirt_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "BOUND_PHASE", "perform3_done")
    assert check(Model(STRICT, FREEZE)).violation == DUAL


def test_the_source_is_killed_while_the_destination_finishes() -> None:
    assert check(Model(Options(kill_in_finish=True), CRASH)).violation == THROWN


def test_an_open_job_is_overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    def overlooks(source: CopySeen, destination: CopySeen) -> tuple[CopySeen, CopySeen]:
        return replace(source, job_open=False), replace(destination, job_open=False)

    result = with_judgement(monkeypatch, Kind.EVIDENCE_SEEN, seen_otherwise(overlooks), CRASH)
    assert result.violation == NEEDLESS


def test_a_silent_source_is_taken_for_a_bound_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def hopes(source: CopySeen, destination: CopySeen) -> tuple[CopySeen, CopySeen]:
        return replace(source, bound=source.bound or not source.reachable), destination

    result = with_judgement(monkeypatch, Kind.EVIDENCE_SEEN, seen_otherwise(hopes), FREEZE)
    assert result.violation == DUAL


def instead(of: Kind, kind: Kind) -> Callable[[Ledger, Event], Decision | None]:
    """Return reconciliation that gives one verdict in place of another."""

    def policy(ledger: Ledger, event: Event) -> Decision | None:
        made = reconcile(ledger, event)
        return decision(kind, why="confused") if made is not None and made.kind is of else made

    return policy


def test_a_source_that_is_there_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    despairs = instead(Kind.SOURCE_OWNS, Kind.MEMORY_GONE)
    assert with_judgement(monkeypatch, Kind.EVIDENCE_SEEN, despairs, CRASH).violation == FALSELY_LOST


def test_sides_are_confused(monkeypatch: pytest.MonkeyPatch) -> None:
    confused = instead(Kind.DESTINATION_OWNS, Kind.SOURCE_OWNS)
    assert with_judgement(monkeypatch, Kind.EVIDENCE_SEEN, confused, NOTHING).violation == NEEDLESS


def test_the_end_is_not_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    def liar(ledger: Ledger, event: Event) -> Decision | None:
        made = closing(ledger, event)
        finished = made is not None and made.kind in (Kind.FINISHED, Kind.FINISHED_WITH_WARNINGS)
        return decision(Kind.UNDONE_FAILED) if finished else made

    monkeypatch.setitem(decisions.POLICIES, Kind.CLEANED, liar)  # type: ignore[arg-type]
    rows = {(Phase.CLEANUP, Kind.UNDONE_FAILED): TABLE[Phase.UNDOING, Kind.UNDONE_FAILED]}
    assert with_rows(rows, NOTHING).violation == FALSELY_FAILED


def test_a_job_that_still_runs_is_left_to_a_person() -> None:
    rows = {(Phase.RECONCILE, Kind.JOB_STILL_RUNS): Row(Phase.INDETERMINATE)}
    assert with_rows(rows, CRASH).violation == NEEDLESS


def test_a_bound_source_is_overlooked_after_a_recovery() -> None:
    assert with_rows({(Phase.RECONCILE, Kind.SOURCE_BOUND): None}, CRASH).violation == NEEDLESS


@pytest.mark.rule("R17")
def test_the_disks_of_the_source_are_removed_before_its_copy_runs_elsewhere() -> None:
    early = Row(Phase.COMMITTED, (CommandKind.CLEAN_UP_MOVED, CommandKind.ALLOW_RUN))
    assert with_rows({(Phase.COMMITTED, Kind.COMMIT_RECORDED): early}, NOTHING, options=DISKS).violation == FILE_GONE


@pytest.mark.rule("R17")
def test_the_copied_disks_are_removed_although_a_vm_there_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both guards have to be gone: the engine's, which names them only, and the host's, which keeps what is used."""
    removed = {(Phase.SETTLING, Kind.SETTLED): Row(Phase.SETTLING, (CommandKind.CLEAN_UP_UNDONE,))}
    dies = Bounds(kinds=("qemu",))
    assert with_rows(removed, dies, options=DISKS).violation is None
    monkeypatch.setattr(disks, "is_used", lambda _: False)
    assert check(Model(DISKS, dies)).violation is None
    assert with_rows(removed, dies, options=DISKS).violation == FILE_GONE


def test_it_goes_in_circles() -> None:
    """An answer that is waited for in vain is no violation of safety: only going back from all ends finds it."""
    rows: dict[Key, Row | None] = {
        (Phase.RECONCILE, Kind.DESTINATION_OWNS): Row(Phase.RECONCILE, (CommandKind.INSPECT,)),
        (Phase.RECONCILE, Kind.DEADLINE): None,
    }
    assert with_rows(rows, NOTHING).violation is None
    assert with_rows(rows, NOTHING, progress=True).violation == STUCK
