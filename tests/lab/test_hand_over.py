"""Strict and delegated hand-over where a lost answer leaves two running copies (libvirt-qemu 3.3, S2 and S4).

The VM has no disk, so that no image lock can help: only the hand-over and the lease are left. No user gets a VM without
a lease through the checks; here the engine begins behind them.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from refimpl.app.real_time import RealTimeline
from refimpl.backends.libvirt import connection
from refimpl.backends.libvirt.backend import LibvirtBackend
from refimpl.backends.libvirt.domain import VmSpec
from refimpl.engine.conductor import Conductor, Identity
from refimpl.engine.journal import NoJournal
from refimpl.engine.store import MemoryStore
from refimpl.faults.moments import Heard, migration_is
from refimpl.hosts.wait import until
from refimpl.lab import Lab
from refimpl.meter.lines import join
from refimpl.model.events import Event, Kind
from refimpl.model.group import Group, ProcessRef
from refimpl.model.ledger import Ledger
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from refimpl.model.request import HandOver, MigrationRequest, Plan
from tests.fault_table import as_told
from tests.handover_model.world import Options
from tests.lab.libvirt_support import host_of, line_bytes, made_lab, make_vm, placed, plan_of, wait_for_lines
from tests.lab.moving import Moving
from tests.lab.striking import MOMENT_S, at_the_end, daemon_frozen, given_up
from tests.lab.unanswered import SLOW_MIB_S, unanswered
from tests.recorded import record

pytestmark = pytest.mark.lab

STRICT, DELEGATED = HandOver.STRICT, HandOver.DELEGATED
ATTEMPTS = 5
"""How often a source is to fall silent: it may have heard the answer before its daemon is frozen."""


@dataclass
class Stage:
    """A lab with a VM that has a lease and one that has none, each wherever its last move left it."""

    lab: Lab
    group: Group
    vms: dict[bool, VmSpec]
    store: MemoryStore = field(default_factory=MemoryStore)

    def plan(self, lease: bool, hand_over: HandOver, **other: Any) -> Plan:
        spec = self.vms[lease]
        (source,) = (host.name for host in self.group.hosts if self._has(host.name, spec.id))
        destination = next(host.name for host in self.group.hosts if host.name != source)
        return plan_of(self.group, spec, source, destination, hand_over=hand_over, **other)

    def _has(self, host: str, vm_id: str) -> bool:
        with connection.fresh(host_of(self.group, host)) as fresh:
            return connection.find(fresh, vm_id) is not None

    def source_is_clear(self, plan: Plan) -> bool:
        """Whether the source of a plan has the VM no more."""
        return not self._has(plan.source, plan.vm_id)

    def conduct(self, plan: Plan, events: list[Event]) -> Outcome:
        """Have the engine carry out a plan from behind the checks; `events` gets what it tells."""
        timeline = RealTimeline()
        lease = self.vms[True].name == plan.vm
        strict = plan.hand_over is HandOver.STRICT
        record(events, Options(strict=strict, lease=lease, ends_silent=strict))
        request = MigrationRequest(plan.vm, plan.destination, plan.source, hand_over=plan.hand_over)
        ledger = Ledger(uuid.uuid4().hex[:8], self.group.id, request, plan.hand_over, plan=plan, claimed=True)
        with closing(LibvirtBackend(self.group, timeline.post, time.time_ns)) as backend:
            conductor = Conductor(
                ledger,
                backend,
                timeline,
                store=self.store,
                journal=NoJournal(),
                identity=Identity("test", ProcessRef(os.getpid(), 0, "boot")),
                phase=Phase.SETUP,
                listeners=[events.append],
            )
            passed = {"plan": plan, "warnings": (), "checked": ()}
            return conductor.run(Event(Kind.CHECKS_PASSED, time.time_ns(), passed))


@dataclass(frozen=True)
class Seen:
    """How a move ended, and how many lines its guest wrote twice: each of them on both hosts, by two copies."""

    outcome: Outcome
    events: list[Event]
    twice: int

    def as_told(self, case: str) -> None:
        """Assert that it is as a case of the fault table says."""
        as_told(case, self.outcome, [event.to_json() for event in self.events])


def moved(stage: Stage, plan: Plan, teller: str, moment: Heard, of: str | None = None) -> Seen:
    """Move with a daemon, the destination's unless said, frozen at a moment that a host tells of.

    It goes on when the source has given the move up; the source's own, when the move has ended. A plan that is slow is
    let on in its memory phase, from where on the source hears no answer.
    """
    before = {entry.name: len(line_bytes(entry, plan.vm)) for entry in stage.group.hosts}
    moves, events = list[Future[Outcome]](), list[Event]()

    def freed() -> bool:
        return moves[0].done() if of == plan.source else given_up(host_of(stage.group, plan.source), plan.vm)

    with ThreadPoolExecutor(1) as pool, unanswered(stage.lab, plan.source, plan.destination) as answer:
        with daemon_frozen(stage.lab, of or plan.destination, (teller, plan.vm_id, moment), freed):
            moves.append(pool.submit(stage.conduct, plan, events))
            if plan.bandwidth_mib_s:
                assert until(lambda: any(event.kind is Kind.MEMORY_SEEN for event in events), MOMENT_S, 0.01)
                answer.let_on(plan.vm_id)
        outcome = moves[0].result()
    wait_for_lines(host_of(stage.group, outcome.runs_on or plan.source), plan.vm, 20)
    log = join({entry.name: line_bytes(entry, plan.vm)[before[entry.name] :] for entry in stage.group.hosts})
    places: dict[tuple[str, int], set[str]] = {}
    for line in log.lines:
        places.setdefault((line.boot, line.sequence), set()).add(line.host)
    assert places
    return Seen(outcome, events, sum(len(hosts) > 1 for hosts in places.values()))


def in_s2(stage: Stage, *, lease: bool, hand_over: HandOver) -> Seen:
    plan = stage.plan(lease, hand_over)
    return moved(stage, plan, plan.source, migration_is("device"))


def in_s4(stage: Stage, *, lease: bool, hand_over: HandOver) -> Seen:
    plan = stage.plan(lease, hand_over, bandwidth_mib_s=SLOW_MIB_S)
    return moved(stage, plan, plan.destination, at_the_end(hand_over))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with made_lab() as lab, placed(lab) as group:
        guests = {lease: f"10.90.2.{50 + lease}/24" for lease in (True, False)}
        hosts = {True: group.hosts[0], False: group.hosts[1]}
        made = {
            lease: make_vm(group, hosts[lease], f"vm{lease:d}", disk=False, lease=lease, address=guests[lease])
            for lease in guests
        }
        yield Stage(lab, group, made)


BOTH = pytest.param(True, STRICT, "", marks=pytest.mark.full)
"""Both guards at once: no user has fewer, so the fault table has it, with disks."""


@pytest.mark.rule("R1")
def test_s2_without_lease_and_strict_two_copies_run(stage: Stage) -> None:
    seen = in_s2(stage, lease=False, hand_over=DELEGATED)
    assert seen.twice > 0
    seen.as_told("S2-bare")


@pytest.mark.rule("R1")
@pytest.mark.parametrize(
    ("lease", "hand_over", "case"), [(True, DELEGATED, "S2L-no-disk"), (False, STRICT, "S2-no-lease"), BOTH]
)
def test_s2_with_either_one_copy_runs(stage: Stage, lease: bool, hand_over: HandOver, case: str) -> None:
    seen = in_s2(stage, lease=lease, hand_over=hand_over)
    assert (seen.twice, seen.outcome.end) == (0, Phase.FAILED)
    if case:
        seen.as_told(case)


@pytest.mark.rule("R1")
def test_s4_without_lease_and_strict_two_copies_run(stage: Stage) -> None:
    seen = in_s4(stage, lease=False, hand_over=DELEGATED)
    assert seen.twice > 0
    seen.as_told("S4-bare")


@pytest.mark.rule("R1")
@pytest.mark.parametrize(
    ("lease", "hand_over", "case"),
    [
        pytest.param(True, DELEGATED, "S4L-no-disk", marks=pytest.mark.full),
        (False, STRICT, "S4-no-lease"),
        BOTH,
    ],
)
def test_s4_with_either_one_copy_runs(stage: Stage, lease: bool, hand_over: HandOver, case: str) -> None:
    seen = in_s4(stage, lease=lease, hand_over=hand_over)
    assert (seen.twice, seen.outcome.end) == (0, Phase.COMPLETED if hand_over is DELEGATED else Phase.FAILED)
    if case:
        seen.as_told(case)


@pytest.mark.full
@pytest.mark.rule("R1")
@pytest.mark.parametrize("lease", [True, False])
def test_a_silent_source_is_answered_by_ending_its_process(stage: Stage, lease: bool) -> None:
    """Its daemon is frozen as long as the move lasts. It may have heard of the arrival before that; then try again."""
    for _ in range(ATTEMPTS):
        plan = stage.plan(lease, STRICT)
        seen = moved(stage, plan, plan.destination, at_the_end(STRICT), of=plan.source)
        assert (seen.outcome.completed, seen.outcome.runs_on, seen.twice) == (True, plan.destination, 0)
        # Thawed, the daemon finds its copy gone and does what it had to do next.
        assert until(partial(stage.source_is_clear, plan), 30.0, 0.1)
        warned = {warning.id for warning in seen.outcome.warnings}
        if "source.ended" in warned:
            break
    assert "source.ended" in warned
    assert seen.outcome.blackout_ms is not None


def test_a_delegated_move_there_and_back_opens_the_port_and_leaves_nothing(moving: Moving) -> None:
    for _ in range(2):
        operation = moving.start(hand_over=DELEGATED)
        kinds = {event["kind"] for event in operation.events()}
        outcome = operation.outcome()
        assert (outcome.end, outcome.hand_over) == (Phase.COMPLETED, DELEGATED)
        assert not kinds & {Kind.DESTINATION_ARRIVED, Kind.BINDING_SEEN}
        assert outcome.port_ms is not None
        assert outcome.blackout_ms is not None
        assert moving.place() == outcome.runs_on


def test_a_delegated_move_whose_conductor_dies_at_the_switch_is_ended_by_recovery(moving: Moving) -> None:
    destination = moving.other()
    operation = moving.kill_at("switch", hand_over=DELEGATED)
    moving.forget_journal(operation)
    outcome = moving.recover()
    assert (outcome.completed, outcome.hand_over, outcome.runs_on) == (True, DELEGATED, destination)
