"""What is concluded of a VM in two halves, by what both hosts show: neither is ended while it may be needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from refimpl.model.events import Kind
from refimpl.model.facts import CopySeen, Half, VmState
from refimpl.model.ledger import Ledger
from refimpl.policy.post_copy import in_halves
from refimpl.policy.reconciliation import reconcile
from tests.builders import evidence, ledger

FLOWS, BROKEN = Half.FLOWS, Half.BROKEN
RUNNING, PAUSED, OFF, ABSENT = VmState.RUNNING, VmState.PAUSED, VmState.OFF, VmState.ABSENT


def copy(host: str, state: VmState = VmState.UNKNOWN, half: Half | None = None, **more: Any) -> CopySeen:
    return CopySeen(host, **{"reachable": True, "state": state, "half": half, **more})


def concluded(source: CopySeen, destination: CopySeen, known: Ledger | None = None, *, patient: bool = True) -> Any:
    made = in_halves(known or ledger(), source, destination, patient=patient)
    return made and made.kind


@pytest.mark.rule("R1")
@pytest.mark.parametrize("here", [FLOWS, BROKEN, None])
@pytest.mark.parametrize("there", [FLOWS, BROKEN])
def test_two_halves_that_are_there_are_both_kept(here: Half | None, there: Half) -> None:
    kept = {Kind.JOB_STILL_RUNS, Kind.POSTCOPY_PENDING, Kind.POSTCOPY_RECOVERABLE}
    for known in (ledger(), ledger(interrupted=True), ledger(post_copy_stuck=True), ledger(post_copy=True)):
        assert concluded(copy("a", PAUSED, here), copy("b", RUNNING, there), known) in kept


@pytest.mark.parametrize(
    ("known", "kind"),
    [
        ({}, Kind.POSTCOPY_PENDING),
        ({"interrupted": True}, Kind.POSTCOPY_RECOVERABLE),
        ({"interrupted": True, "post_copy_recoveries": 1}, Kind.POSTCOPY_PENDING),
    ],
)
@pytest.mark.parametrize("halves", [(BROKEN, BROKEN), (BROKEN, FLOWS), (FLOWS, BROKEN)])
def test_what_is_broken_is_resumed_once_for_each_wish(
    known: dict[str, Any], kind: Kind, halves: tuple[Half, Half]
) -> None:
    assert concluded(copy("a", PAUSED, halves[0]), copy("b", RUNNING, halves[1]), ledger(**known)) is kind


def test_what_flows_is_followed_and_what_stands_still_is_not() -> None:
    sides = copy("a", PAUSED, FLOWS), copy("b", RUNNING, FLOWS)
    assert concluded(*sides) is Kind.JOB_STILL_RUNS
    assert concluded(*sides, ledger(post_copy_stuck=True)) is Kind.POSTCOPY_PENDING
    assert concluded(*sides, ledger(post_copy_stuck=True, interrupted=True)) is Kind.POSTCOPY_RECOVERABLE


@pytest.mark.rule("R1")
@pytest.mark.parametrize("gone", [OFF, ABSENT])
def test_a_half_whose_other_half_is_gone_is_no_vm(gone: VmState) -> None:
    assert concluded(copy("a", gone), copy("b", RUNNING, BROKEN)) is Kind.POSTCOPY_LOST
    for half in (FLOWS, BROKEN):
        assert concluded(copy("a", PAUSED, half), copy("b", gone)) is Kind.POSTCOPY_LOST


@pytest.mark.rule("R1")
def test_a_job_whose_two_processes_are_gone_is_not_waited_for() -> None:
    torn = copy("a", OFF, job_open=True), copy("b", OFF, job_open=True)
    assert concluded(*torn, ledger(post_copy=True)) is Kind.POSTCOPY_LOST
    assert concluded(*torn) is None
    assert concluded(copy("a", OFF), copy("b", OFF), ledger(post_copy=True)) is None
    assert concluded(copy("a", PAUSED, job_open=True), copy("b", OFF), ledger(post_copy=True)) is None


@pytest.mark.rule("R1")
def test_a_source_that_has_just_ended_is_no_loss_while_the_destination_takes_in_pages() -> None:
    assert concluded(copy("a", ABSENT), copy("b", RUNNING, FLOWS)) is Kind.JOB_STILL_RUNS


def test_what_is_whole_is_judged_as_any_move() -> None:
    assert concluded(copy("a", ABSENT), copy("b", RUNNING), ledger(post_copy=True)) is None
    assert concluded(copy("a", RUNNING), copy("b", ABSENT)) is None


@pytest.mark.rule("R1")
def test_a_source_in_post_copy_never_owns_the_vm_again() -> None:
    """It stands paused like one whose move has failed; what ran at the destination is newer."""
    made = reconcile(ledger(), evidence(copy("a", PAUSED, BROKEN), copy("b", ABSENT)))
    assert made is not None
    assert made.kind is Kind.POSTCOPY_LOST


@pytest.mark.parametrize(
    ("source", "destination", "known", "patient", "kind"),
    [
        (copy("a", reachable=False), copy("b", RUNNING, FLOWS), {}, True, Kind.JOB_STILL_RUNS),
        (copy("a", reachable=False), copy("b", RUNNING, BROKEN), {}, True, Kind.HOST_SILENT),
        (copy("a", reachable=False), copy("b", RUNNING, BROKEN), {}, False, Kind.POSTCOPY_PENDING),
        (
            copy("a", reachable=False),
            copy("b", RUNNING, FLOWS),
            {"post_copy_stuck": True},
            False,
            Kind.POSTCOPY_PENDING,
        ),
        (copy("a", PAUSED, BROKEN), copy("b", reachable=False), {}, False, Kind.POSTCOPY_PENDING),
        (copy("a", reachable=False), copy("b", reachable=False), {"post_copy": True}, False, Kind.POSTCOPY_PENDING),
        (copy("a", reachable=False), copy("b", reachable=False), {}, False, None),
        (copy("a", reachable=False), copy("b", RUNNING), {"post_copy": True}, False, None),
    ],
)
def test_with_a_silent_host_nothing_is_given_up(
    source: CopySeen, destination: CopySeen, known: dict[str, Any], patient: bool, kind: Kind | None
) -> None:
    assert concluded(source, destination, replace(ledger(), **known), patient=patient) is kind
