"""When post-copy may be chosen: only where it could also be recovered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from refimpl.checks.report import compared
from refimpl.model.events import Kind
from refimpl.model.facts import Facts, VmState
from refimpl.model.request import HandOver, MigrationRequest, PerformanceOption, Plan, PostCopy
from refimpl.model.storage import StorageWish
from tests.builders import request, vm
from tests.judging import asked, found, judged, seen

BOTH = (HandOver.STRICT, HandOver.DELEGATED)
READY: dict[str, Any] = {"second_socket": True}
METHODS = ("zstd", "xbzrle")


def able(shown: Facts, post_copy: bool = True) -> Facts:
    return replace(shown, hand_overs=BOTH, post_copy=post_copy)


def wish(**changes: Any) -> MigrationRequest:
    return request(**{"post_copy": PostCopy.ALLOWED, **changes})


def plan_of(shown: Facts, wanted: MigrationRequest) -> Plan:
    made = judged(shown, wanted)
    assert made.kind is Kind.CHECKS_PASSED, made
    plan: Plan = made.values["plan"]
    return plan


def test_a_vm_and_a_host_that_are_ready_pass_and_the_plan_says_so() -> None:
    plan = plan_of(able(seen(vm(**READY), user_faults=True)), wish())
    assert plan.post_copy is PostCopy.ALLOWED
    assert (plan.origins["post_copy"], plan.origins["hand_over"]) == ("request", "post-copy")


def test_nothing_of_it_is_asked_for_without_it() -> None:
    assert plan_of(able(seen(vm()), post_copy=False), request()).post_copy is PostCopy.OFF


def refused(shown: Facts, wanted: MigrationRequest | None = None) -> list[str]:
    return [name for name in found(shown, wanted or wish()) if name.startswith("post_copy.")]


@pytest.mark.error("post_copy.unavailable")
def test_where_it_is_not_offered() -> None:
    assert refused(able(seen(vm(**READY), user_faults=True), post_copy=False)) == ["post_copy.unavailable"]


@pytest.mark.error("post_copy.hand_over")
def test_with_strict_hand_over() -> None:
    assert refused(able(seen(vm(**READY), user_faults=True)), wish(hand_over=BOTH[0])) == ["post_copy.hand_over"]
    assert plan_of(able(seen(vm(**READY), user_faults=True)), wish(hand_over=BOTH[1])).post_copy is PostCopy.ALLOWED


@pytest.mark.error("post_copy.storage")
def test_with_disks_that_move() -> None:
    moving = wish(storage=StorageWish(include=True, destination_path="/d"))
    assert refused(able(seen(vm(**READY), user_faults=True)), moving) == ["post_copy.storage"]


@pytest.mark.error("post_copy.not_running")
@pytest.mark.parametrize("state", [VmState.PAUSED, VmState.OFF])
def test_of_a_vm_that_does_not_run(state: VmState) -> None:
    assert refused(able(seen(vm(**READY, state=state), user_faults=True))) == ["post_copy.not_running"]


@pytest.mark.error("post_copy.no_socket")
def test_where_it_could_not_be_recovered() -> None:
    assert refused(able(seen(vm(), user_faults=True))) == ["post_copy.no_socket"]


@pytest.mark.error("post_copy.memory")
def test_with_memory_that_is_not_plain() -> None:
    assert refused(able(seen(vm(**READY, memory_backing="huge pages"), user_faults=True))) == ["post_copy.memory"]


@pytest.mark.error("post_copy.no_user_faults")
@pytest.mark.parametrize("rights", [False, None])
def test_without_rights_that_are_seen(rights: bool | None) -> None:
    assert refused(able(seen(vm(**READY), user_faults=rights))) == ["post_copy.no_user_faults"]


def test_everything_that_forbids_it_is_said_at_once() -> None:
    problems = found(able(seen(vm(state=VmState.OFF), user_faults=False)), wish())
    assert {"post_copy.not_running", "post_copy.no_socket", "post_copy.no_user_faults"} <= set(problems)


def test_with_compression_it_takes_the_method_that_goes_with_it() -> None:
    shown = able(seen(vm(**READY), here={"compression": METHODS}, compression=METHODS, user_faults=True))
    compressed: dict[str, Any] = {"performance_option": PerformanceOption.COMPRESSION}
    assert plan_of(shown, wish(**compressed)).compression == "xbzrle"
    assert plan_of(shown, request(**compressed)).compression == "zstd"


def test_where_only_the_other_method_is_there_it_is_refused() -> None:
    shown = able(seen(vm(**READY), here={"compression": METHODS}, compression=("zstd",), user_faults=True))
    assert "compression.none" in found(shown, wish(performance_option=PerformanceOption.COMPRESSION))


def test_the_report_says_what_is_risked() -> None:
    shown = able(seen(vm(**READY), user_faults=True))
    told = {c.family: c.text for c in compared(asked(shown, wish())).checked}
    assert told["post-copy"].startswith("allowed: once begun there is no way back and no cancel")
    assert told["hand-over"] == "delegated, as post-copy is asked for"
    assert {c.family: c.text for c in compared(asked(shown)).checked}["post-copy"] == "off"
