"""The contract tests themselves: on a backend that is broken on purpose, the test that is about it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from refimpl.backends.simulated import SimulatedBackend
from refimpl.backends.simulated.transfer import Transfer
from refimpl.engine.backend import Backend, Post
from refimpl.model.events import Event, Kind
from refimpl.model.facts import Evidence, Facts, Scope, VmState
from refimpl.model.request import Command, HandOver, Plan
from refimpl.model.request import CommandKind as C
from tests.contract import test_adopting, test_cancel, test_disks, test_looking, test_settling, test_transfer
from tests.contract.benches import SimulatedHarness
from tests.contract.harness import OTHER_OPERATION, Bench


class Broken(SimulatedBackend):
    """A simulated backend whose faults are set by `break_it`."""

    def __init__(self, harness: SimulatedHarness, post: Post, **faults: Any) -> None:
        self.faults = faults
        super().__init__(harness.world, self._posting(post), harness.timeline)

    def _posting(self, post: Post) -> Post:
        change = self.faults.get("events")
        if change is None:
            return post
        return lambda event: [post(e) for e in change(event)] and None

    def observe(self, scope: Scope) -> Facts:
        self.faults.get("observe", lambda _: None)(self)
        return super().observe(scope)

    def submit(self, command: Command) -> None:
        for given in self.faults.get("commands", lambda c: [c])(command):
            super().submit(given)


class BrokenHarness(SimulatedHarness):
    """A harness of the broken backend; `world_changes` go into its world."""

    def __init__(self, world_changes: dict[str, Any], **faults: Any) -> None:
        super().__init__(**world_changes)
        self._faults = faults

    def _make(self, post: Post) -> Backend:
        return Broken(self, post, **self._faults)


def twice(kind: Kind) -> Callable[[Event], list[Event]]:
    return lambda event: [event, event] if event.kind is kind else [event]


def never(kind: Kind) -> Callable[[Event], list[Event]]:
    return lambda event: [] if event.kind is kind else [event]


def instead(kind: Kind, other: Kind, **values: Any) -> Callable[[Event], list[Event]]:
    return lambda event: [Event(other, event.at_ns, values)] if event.kind is kind else [event]


def reworded(command: Command, kind: C, **changes: Any) -> list[Command]:
    return [replace(command, **changes) if command.kind is kind else command]


def overwriting(plan: Plan | None) -> Plan:
    assert plan is not None
    assert plan.storage is not None
    return replace(plan, storage=replace(plan.storage, allow_overwrite=True))


def run_by_itself(command: Command) -> list[Command]:
    assert command.plan is not None
    return reworded(command, C.START_TRANSFER, plan=replace(command.plan, hand_over=HandOver.DELEGATED))


def first_only(kind: C) -> Callable[[Command], list[Command]]:
    given: list[Command] = []

    def change(command: Command) -> list[Command]:
        given.extend([command] if command.kind is kind else [])
        return [] if command in given[1:] else [command]

    return change


def stamp_everything(backend: Broken) -> None:
    for copy in backend.world.copies.values():
        copy.operation = OTHER_OPERATION


def always_bound(event: Event) -> list[Event]:
    if event.kind is not Kind.EVIDENCE_SEEN:
        return [event]
    seen: Evidence = event["evidence"]
    lie = Evidence(replace(seen.source, bound=True), seen.destination)
    return [Event(event.kind, event.at_ns, {"evidence": lie})]


def unreachable_is_absent(event: Event) -> list[Event]:
    if event.kind is not Kind.EVIDENCE_SEEN:
        return [event]
    sides = (event["evidence"].source, event["evidence"].destination)
    lie = Evidence(*(side if side.reachable else replace(side, reachable=True, state=VmState.ABSENT) for side in sides))
    return [Event(event.kind, event.at_ns, {"evidence": lie})]


def ran_before_stopped(event: Event) -> list[Event]:
    """Show the destination running before the source has stopped."""
    swapped = {Kind.SOURCE_STOPPED: Kind.DESTINATION_RAN, Kind.DESTINATION_RAN: Kind.SOURCE_STOPPED}
    return [Event(swapped.get(event.kind, event.kind), event.at_ns, event.values)]


BREAKS: dict[str, tuple[Callable[[Bench], None], dict[str, Any], dict[str, Any]]] = {
    "facts twice": (test_looking.test_observe_answers_once_with_all_hosts, {}, {"events": twice(Kind.FACTS_SEEN)}),
    "observe that marks": (test_looking.test_observe_is_free_of_side_effects, {}, {"observe": stamp_everything}),
    "always bound": (test_looking.test_inspect_before_a_move_shows_the_vm_at_the_source, {}, {"events": always_bound}),
    "down is absent": (
        partial(test_looking.test_inspect_of_a_host_that_is_down_says_not_reachable, side="destination"),
        {},
        {"events": unreachable_is_absent},
    ),
    "prepared twice": (
        test_transfer.test_prepare_answers_once_and_marks_the_source,
        {},
        {"events": twice(Kind.PREPARED)},
    ),
    "prepared over nowhere": (
        test_transfer.test_prepare_says_which_network_does_not_connect,
        {},
        {"events": instead(Kind.NETWORK_FAILED, Kind.PREPARED)},
    ),
    "both run": (
        test_transfer.test_a_move_ends_with_one_copy_at_the_destination,
        {"faults": [{"kind": "both-run", "during": "arrived"}]},
        {},
    ),
    "returned twice": (
        test_transfer.test_the_call_returns_once_and_nothing_of_the_transfer_follows,
        {},
        {"events": twice(Kind.CALL_RETURNED)},
    ),
    "never returned": (
        test_transfer.test_the_call_returns_once_and_nothing_of_the_transfer_follows,
        {"faults": [{"kind": "hangs", "command": "start-transfer"}]},
        {},
    ),
    "ran before it stopped": (
        test_transfer.test_what_is_shown_comes_in_order,
        {},
        {"events": ran_before_stopped},
    ),
    "phases not shown": (test_transfer.test_phases_are_shown, {"hidden": ["memory-seen"]}, {}),
    "no stop told": (test_transfer.test_the_blackout_can_be_told, {"hidden": ["source-stopped"]}, {}),
    "not steered": (
        test_transfer.test_steering_ends_a_pre_copy_that_does_not_converge,
        {"faults": [{"kind": "steer-refused"}], "latency_ms": {"progress": 60_000}},
        {"events": instead(Kind.NOT_STEERABLE, Kind.STEERED, what="switch")},
    ),
    "runs by itself": (
        test_transfer.test_the_destination_waits_until_it_is_allowed_to_run,
        {},
        {"commands": run_by_itself},
    ),
    "binding not told": (
        test_transfer.test_a_binding_that_does_not_change_is_told_once,
        {},
        {"events": twice(Kind.BINDING_SEEN)},
    ),
    "ran twice": (test_transfer.test_allowed_twice_runs_once, {}, {"events": twice(Kind.DESTINATION_RAN)}),
    "cancel forgotten": (
        test_cancel.test_cancelled_before_the_transfer_there_is_none,
        {},
        {"commands": lambda c: reworded(c, C.REQUEST_CANCEL, operation=OTHER_OPERATION)},
    ),
    "cancel accepted at the switch": (
        test_cancel.test_from_the_switch_on_it_is_too_late,
        {},
        {"events": instead(Kind.CANCEL_TOO_LATE, Kind.CANCEL_ACCEPTED)},
    ),
    "settled for nobody": (
        test_settling.test_settling_for_a_destination_that_does_not_run_keeps_the_source,
        {},
        {"events": instead(Kind.CANNOT_SETTLE, Kind.SETTLED)},
    ),
    "settled for one who only waits": (
        test_settling.test_settling_for_a_destination_that_was_not_let_run_is_refused,
        {},
        {"events": instead(Kind.CANNOT_SETTLE, Kind.SETTLED)},
    ),
    "not settled without the other": (
        test_settling.test_settling_for_a_source_that_runs_needs_no_destination,
        {},
        {"events": instead(Kind.SETTLED, Kind.CANNOT_SETTLE)},
    ),
    "silence not named": (
        test_settling.test_settling_for_a_destination_that_runs_needs_no_source,
        {},
        {"events": instead(Kind.LEFT_BEHIND, Kind.CLEANED)},
    ),
    "gone by the hand-over": (
        test_transfer.test_a_source_that_the_hand_over_ends_is_not_gone_by_itself,
        {},
        {"events": lambda e: [Event(Kind.SOURCE_GONE, e.at_ns), e] if e.kind is Kind.CALL_RETURNED else [e]},
    ),
    "not told again": (
        test_transfer.test_allowed_by_the_next_controller_it_is_told_again,
        {},
        {"commands": first_only(C.ALLOW_RUN)},
    ),
    "adopted though it runs": (
        test_adopting.test_once_it_runs_there_the_next_controller_waits_for_its_end,
        {},
        {"events": lambda e: [Event(Kind.ADOPTED_SWITCH, e.at_ns), e] if e.kind is Kind.CALL_RETURNED else [e]},
    ),
    "prepared copy stays": (
        test_settling.test_settling_for_the_source_removes_what_was_prepared,
        {},
        {"commands": lambda c: [] if c.kind is C.CLEAN_UP else reworded(c, C.SETTLE_SOURCE, operation=OTHER_OPERATION)},
    ),
    "marks stay": (
        test_settling.test_cleaning_up_takes_off_the_marks_of_this_operation,
        {"faults": [{"kind": "leaves-behind", "times": 0}]},
        {"events": instead(Kind.LEFT_BEHIND, Kind.CLEANED)},
    ),
    "cleans all marks": (
        test_settling.test_cleaning_up_leaves_what_another_operation_made,
        {},
        {"commands": lambda c: reworded(c, C.CLEAN_UP, operation="0a1b2c3d")},
    ),
    "copies stay": (
        test_disks.test_what_was_made_goes_when_the_source_is_the_vm,
        {},
        {"commands": lambda c: [replace(c, kind=C.CLEAN_UP) if c.kind is C.CLEAN_UP_UNDONE else c]},
    ),
    "copies go too early": (
        test_disks.test_as_long_as_nobody_knows_whose_copy_is_the_vm_no_file_goes,
        {},
        {"commands": lambda c: [replace(c, kind=C.CLEAN_UP_UNDONE) if c.kind is C.CLEAN_UP else c]},
    ),
    "the source's disk goes too early": (
        test_disks.test_disks_are_copied_before_memory_and_go_at_the_source_at_the_very_end,
        {},
        {"commands": lambda c: [c, replace(c, kind=C.CLEAN_UP_MOVED)] if c.kind is C.SETTLE_DESTINATION else [c]},
    ),
    "the source's disk stays": (
        test_disks.test_disks_are_copied_before_memory_and_go_at_the_source_at_the_very_end,
        {},
        {"commands": lambda c: reworded(c, C.CLEAN_UP_MOVED, plan=replace(c.plan, storage=None))},
    ),
    "a stranger's file is taken": (
        test_disks.test_a_file_that_is_there_is_refused_and_stays,
        {},
        {"commands": lambda c: reworded(c, C.PREPARE, plan=overwriting(c.plan))},
    ),
    "disks are not shown": (
        test_disks.test_disks_are_copied_before_memory_and_go_at_the_source_at_the_very_end,
        {},
        {"events": never(Kind.STORAGE_SEEN)},
    ),
    "adopts its own": (
        test_adopting.test_an_own_call_is_told_how_it_stands_and_returns_once,
        {},
        {"events": lambda e: [e, Event(Kind.ADOPTED_MEMORY, e.at_ns)] if e.kind is Kind.EVIDENCE_SEEN else [e]},
    ),
    "job not seen": (
        test_adopting.test_adopted_in_memory_it_goes_through,
        {},
        {"events": instead(Kind.ADOPTED_MEMORY, Kind.CALL_RETURNED)},
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_backend_fails_its_contract_test(name: str) -> None:
    contract_test, world_changes, faults = BREAKS[name]
    bench = Bench(BrokenHarness(world_changes, **faults))
    with pytest.raises((AssertionError, KeyError)):
        contract_test(bench)


def test_a_transfer_that_ends_with_its_controller_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(SimulatedHarness())
    lose = bench.h.lose_backend

    def lose_all() -> None:
        lose()
        for transfer in bench.h.world.transfers.values():  # type: ignore[attr-defined]
            transfer.break_off("the controller died")

    monkeypatch.setattr(bench.h, "lose_backend", lose_all)
    with pytest.raises(AssertionError):
        test_adopting.test_the_transfer_outlives_its_controller(bench)


def test_a_source_that_is_not_torn_down_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transfer, "_torn_down", lambda self: self._return(ok=True))
    bench = Bench(SimulatedHarness())
    with pytest.raises(AssertionError):
        test_transfer.test_a_move_ends_with_one_copy_at_the_destination(bench)
