"""The conductor over a scripted backend: order of commands, journal before act, ends, recovery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from refimpl.checks.limits import limit_reached
from refimpl.engine.store import Claim, MemoryStore
from refimpl.model.errors import Problem, RefimplError, error
from refimpl.model.events import Event, Kind
from refimpl.model.facts import CopySeen, VmState
from refimpl.model.ledger import Ledger
from refimpl.model.phase import Phase, Side
from refimpl.model.request import Command, CommandKind
from tests.builders import (
    SETTINGS,
    destination,
    event,
    facts,
    host,
    ledger,
    plan,
    request,
    settings,
    source,
    vm,
)
from tests.scripted import IDENTITY, STAYED, Run, seen

C, K, P = CommandKind, Kind, Phase

STAYS = [event(K.EVIDENCE_SEEN, evidence=STAYED)]


@pytest.mark.rule("R18")
def test_a_move_from_start_to_end() -> None:
    run = Run()
    result = run.conductor.start()
    assert result.end is P.COMPLETED
    assert result.runs_on == "b"
    assert result.blackout_ms == 20.0
    assert result.sent_bytes == 7
    assert run.phases() == [
        P.CHECK,
        P.SETUP,
        P.MEMORY,
        P.SWITCH,
        P.COMMITTED,
        P.RECONCILE,
        P.CLEANUP,
        P.COMPLETED,
    ]
    assert run.backend.told == [
        C.PROBE,
        C.OBSERVE,
        C.PREPARE,
        C.START_TRANSFER,
        C.LOOK_FOR_BINDING,
        C.ALLOW_RUN,
        C.ADOPT,
        C.INSPECT,
        C.SETTLE_DESTINATION,
        C.CLEAN_UP_MOVED,
    ]
    assert run.store.claims() == ()


class Log:
    """A journal that writes what it was told into one list with the backend's commands."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, event: Event) -> None:
        if event.kind is K.COMMANDED:
            self.lines.append(f"give {event['command'].kind}")

    def intend(self, phase: Phase, ledger: Ledger, commands: Sequence[Command], *, durable: bool = True) -> None:
        self.lines += [f"intend {command.kind}{'' if durable else ', not waited for'}" for command in commands]

    def flush(self, phase: Phase, ledger: Ledger) -> None:
        self.lines.append(f"flush in {phase}")

    def end(self, phase: Phase, ledger: Ledger, outcome: dict[str, Any]) -> None:
        self.lines.append(f"end {phase}")


def test_journal_before_act_and_nothing_but_the_commit_record_in_the_blackout() -> None:
    log = Log()
    Run(journal=log).conductor.start()
    for kind in (C.CLAIM, C.PREPARE, C.START_TRANSFER, C.SETTLE_DESTINATION, C.CLEAN_UP_MOVED, C.RELEASE):
        assert log.lines.index(f"intend {kind}") < log.lines.index(f"give {kind}")
    blackout = log.lines[log.lines.index("give look-for-binding") : log.lines.index("give allow-run")]
    assert blackout == [
        "give look-for-binding",
        "intend record-commit, not waited for",
        "give record-commit",
        "intend allow-run, not waited for",
    ]
    assert f"flush in {P.SWITCH}" not in log.lines


@pytest.mark.rule("R10")
@pytest.mark.error("vm.migrating")
def test_a_second_move_of_the_same_vm_is_refused_and_the_first_claim_stays() -> None:
    store = MemoryStore(SETTINGS)
    first = Claim("ffffffff", "/home/two", IDENTITY.process, plan())
    store.claim(first)
    run = Run(store=store)
    result = run.conductor.start()
    assert result.end is P.REFUSED
    assert result.exit_code == 3
    assert [p.id for p in result.problems] == ["vm.migrating"]
    assert "/home/two" in result.problems[0].text
    assert C.PREPARE not in run.backend.told
    assert store.claims() == (first,)


@pytest.mark.rule("R5")
def test_a_refused_check_gives_no_command_after_it() -> None:
    run = Run(options={"ledger": ledger(plan=None, request=request(vm="other"))})
    result = run.conductor.start()
    assert result.end is P.REFUSED
    assert run.backend.told == [C.PROBE]
    assert result.problems[0].phase is P.CHECK


@pytest.mark.rule("R5", "R11")
@pytest.mark.error("disk.missing")
def test_what_has_changed_since_the_checks_refuses_before_anything_is_prepared() -> None:
    changed = facts(host("a", vms=(vm(),)), host("b", disks={}))
    run = Run(OBSERVE=[event(K.FACTS_SEEN, facts=changed)])
    result = run.conductor.start()
    assert (result.end, [p.id for p in result.problems]) == (P.REFUSED, ["disk.missing"])
    assert run.backend.told == [C.PROBE, C.OBSERVE]
    assert run.store.claims() == ()


class FilledMeanwhile(MemoryStore):
    """A store that shows no claims to the checks: they are made only afterwards."""

    def claims(self) -> tuple[Claim, ...]:
        return ()


@pytest.mark.rule("R7", "R19")
@pytest.mark.error("limit.reached")
def test_a_limit_that_is_reached_after_the_checks_refuses_and_queues_nothing() -> None:
    store = FilledMeanwhile(SETTINGS)
    for other in ("1", "2"):
        store.claim(Claim(other, "/home/two", IDENTITY.process, plan(vm_id=other, source="c")))
    run = Run(store=store)
    result = run.conductor.start()
    (problem,) = result.problems
    assert (result.end, problem.id, problem.side, problem.host) == (P.REFUSED, "limit.reached", Side.DESTINATION, "b")
    assert "virtual machine migration limit '2' was reached" in problem.text
    assert run.backend.told == [C.PROBE]


@pytest.mark.rule("R7")
def test_a_move_does_not_count_against_its_own_limit() -> None:
    store = MemoryStore({name: settings(maximum_migrations=1) for name in ("a", "b")})
    assert Run(store=store).conductor.start().end is P.COMPLETED


@pytest.mark.rule("R2")
@pytest.mark.parametrize(
    ("changes", "end", "id"),
    [
        pytest.param(
            {
                "START_TRANSFER": [
                    event(K.MEMORY_SEEN),
                    event(K.CALL_RETURNED, ok=False, problem=Problem(id="transfer.failed")),
                ]
            },
            P.FAILED,
            "transfer.failed",
            marks=pytest.mark.error("transfer.failed"),
        ),
        pytest.param(
            {"PREPARE": [event(K.PREPARE_FAILED, problem=Problem(id="prepare.failed"))]},
            P.FAILED,
            "prepare.failed",
            marks=pytest.mark.error("prepare.failed"),
        ),
        pytest.param(
            {"START_TRANSFER": [event(K.NATIVE_REFUSAL, problem=Problem(id="transfer.refused"))]},
            P.REFUSED,
            "transfer.refused",
            marks=pytest.mark.error("transfer.refused"),
        ),
        pytest.param(
            {"PREPARE": [event(K.NETWORK_FAILED, address="10.1.0.2")]},
            P.REFUSED,
            "network.no_connection",
            marks=[pytest.mark.error("network.no_connection"), pytest.mark.rule("R13")],
        ),
    ],
)
def test_failures_before_commit_end_at_the_source(changes: dict[str, Any], end: Phase, id: str) -> None:
    run = Run(INSPECT=STAYS, **changes)
    result = run.conductor.start()
    assert result.end is end
    assert result.runs_on == "a"
    assert [p.id for p in result.problems] == [id]
    assert run.backend.told[-2:] == [C.SETTLE_SOURCE, C.CLEAN_UP_UNDONE]
    assert (C.START_TRANSFER in run.backend.told) == ("START_TRANSFER" in changes)
    assert run.store.claims() == ()


@pytest.mark.rule("R13")
def test_the_second_network_is_taken() -> None:
    answers = iter([[event(K.NETWORK_FAILED, address="10.1.0.2")], [event(K.PREPARED, address="10.2.0.2")]])
    run = Run(PREPARE=lambda: next(answers))
    assert run.conductor.start().end is P.COMPLETED
    assert run.conductor.ledger.plan is not None
    assert run.conductor.ledger.plan.address == "10.2.0.2"


@pytest.mark.rule("R8")
def test_the_switch_is_forced_at_the_pass_limit() -> None:
    passes = [event(K.PASS_ENDED, number=n) for n in range(1, 6)]
    run = Run(
        START_TRANSFER=[event(K.MEMORY_SEEN), *passes],
        STEER_SWITCH=[event(K.STEERED, what="switch"), event(K.SWITCH_SEEN), event(K.DESTINATION_ARRIVED)],
    )
    assert run.conductor.start().end is P.COMPLETED
    assert run.backend.told.count(C.STEER_SWITCH) == 1
    assert run.kinds().index(K.PASS_LIMIT_REACHED) > run.kinds().index(K.MEMORY_SEEN)


@pytest.mark.rule("R8")
@pytest.mark.error("blackout.too_long")
def test_a_blackout_that_would_be_too_long_cancels_instead_of_the_switch() -> None:
    figures = {"remaining_bytes": 1_000, "bytes_s": 1_000}
    run = Run(
        options={"ledger": ledger(plan=None, request=request(cancel_if_blackout_exceeds_ms=999, pass_limit=2))},
        START_TRANSFER=[event(K.MEMORY_SEEN), *(event(K.PASS_ENDED, number=n, **figures) for n in (1, 2))],
        REQUEST_CANCEL=[event(K.CANCEL_ACCEPTED), event(K.CALL_RETURNED, problem=Problem("transfer.cancelled"))],
        INSPECT=STAYS,
    )
    result = run.conductor.start()
    assert (result.end, result.passes) == (P.CANCELLED, 2)
    assert "blackout.too_long" in [p.id for p in result.problems]
    assert C.STEER_SWITCH not in run.backend.told


@pytest.mark.rule("R4")
@pytest.mark.error("transfer.cancelled")
def test_a_cancel_in_memory_ends_at_the_source() -> None:
    cancelled = Problem(id="transfer.cancelled")
    run = Run(
        START_TRANSFER=[event(K.MEMORY_SEEN), event(K.CANCEL_WISHED)],
        REQUEST_CANCEL=[event(K.CANCEL_ACCEPTED), event(K.CALL_RETURNED, ok=False, problem=cancelled)],
        INSPECT=STAYS,
    )
    result = run.conductor.start()
    assert result.end is P.CANCELLED
    assert result.exit_code == 5
    assert run.backend.told.count(C.REQUEST_CANCEL) == 1


@pytest.mark.rule("R4")
def test_a_cancel_after_the_switch_is_too_late_and_a_warning() -> None:
    run = Run(
        START_TRANSFER=[event(K.SWITCH_SEEN), event(K.CANCEL_WISHED), event(K.DESTINATION_ARRIVED)],
    )
    result = run.conductor.start()
    assert result.end is P.COMPLETED_WITH_WARNINGS
    assert result.exit_code == 0
    assert [w.id for w in result.warnings] == ["cancel.too_late"]
    assert C.REQUEST_CANCEL not in run.backend.told


@pytest.mark.error("owner.lost", "owner.dual_run", "guest.ended", "owner.unknown")
def test_truthful_ends() -> None:
    gone = [event(K.CALL_RETURNED, ok=False)]
    for here, there, end, id in (
        (source(VmState.ABSENT), destination(), P.LOST, "owner.lost"),
        (source(), destination(VmState.RUNNING), P.DUAL_RUN, "owner.dual_run"),
        (source(VmState.OFF, ended_by_guest=True), destination(), P.FAILED, "guest.ended"),
        (source(VmState.UNKNOWN), destination(), P.INDETERMINATE, "owner.unknown"),
    ):
        run = Run(START_TRANSFER=gone, INSPECT=[seen(here, there)])
        result = run.conductor.start()
        assert result.end is end
        assert id in [p.id for p in result.problems]
        assert result.runs_on == ("b" if end is P.DUAL_RUN else None)
        assert (run.store.claims() == ()) is (end is not P.INDETERMINATE)


@pytest.mark.error("settle.failed")
def test_what_cannot_be_settled_keeps_its_claim() -> None:
    failed = [event(K.CANNOT_SETTLE, problem=Problem(id="settle.failed"))]
    run = Run(SETTLE_DESTINATION=failed)
    assert run.conductor.start().end is P.INDETERMINATE
    assert len(run.store.claims()) == 1


@pytest.mark.parametrize(
    ("silent", "end", "id"),
    [
        pytest.param("PROBE", P.REFUSED, "check.timeout", marks=pytest.mark.error("check.timeout")),
        pytest.param("INSPECT", P.INDETERMINATE, "owner.silent", marks=pytest.mark.error("owner.silent")),
        pytest.param("CLEAN_UP_MOVED", P.INDETERMINATE, "settle.failed", marks=pytest.mark.error("settle.failed")),
    ],
)
def test_deadlines_end_what_is_not_answered(silent: str, end: Phase, id: str) -> None:
    result = Run(**{silent: ()}).conductor.start()
    assert result.end is end
    assert [p.id for p in result.problems] == [id]


@pytest.mark.rule("R8")
@pytest.mark.error("transfer.stalled")
def test_memory_may_last_as_long_as_anything_is_sent_and_not_longer() -> None:
    figures = {"total_bytes": 100, "remaining_bytes": 50, "dirty_bytes_s": 0, "bytes_s": 1}
    reports = [0, 10, 20, 20]

    def sent() -> list[Event]:
        for number, bytes in enumerate(reports, 1):
            run.timeline.post_after(event(K.PROGRESS, sent_bytes=bytes, **figures), number * 50_000)
        return [event(K.MEMORY_SEEN)]

    run = Run(
        START_TRANSFER=sent,
        REQUEST_CANCEL=[event(K.CANCEL_ACCEPTED), event(K.CALL_RETURNED, problem=Problem("transfer.cancelled"))],
        INSPECT=[event(K.EVIDENCE_SEEN, evidence=STAYED)],
    )
    result = run.conductor.start()
    assert [p.id for p in result.problems] == ["transfer.stalled"]
    assert (result.end, result.warnings) == (P.FAILED, ())
    stalled = next(e for e in run.events if e.kind is K.DEADLINE)
    began = next(e for e in run.events if e.kind is K.PHASE_ENTERED and e["phase"] is P.MEMORY)
    assert stalled.at_ns - began.at_ns == (len(set(reports)) * 50 + 60) * 1_000_000_000


@pytest.mark.error("run.refused", "owner.unknown")
def test_a_destination_that_refuses_for_ever_needs_a_person() -> None:
    arrived = seen(source(VmState.ABSENT, bound=True), destination(VmState.PAUSED))
    refused = [event(K.RUN_REFUSED, problem=Problem(id="run.refused"))]
    result = Run(ALLOW_RUN=refused, INSPECT=[arrived]).conductor.start()
    assert result.end is P.INDETERMINATE


def test_looking_is_bounded_even_when_a_job_never_ends() -> None:
    looks = [seen(source(job_open=True, job_phase="perform3"), destination())]
    run = Run(
        START_TRANSFER=[event(K.CALL_RETURNED, ok=False)], INSPECT=looks, ADOPT=[event(K.CALL_RETURNED, ok=False)]
    )
    assert run.conductor.start().end is P.INDETERMINATE


def recovered(phase: Phase, **changes: Any) -> Run:
    return Run(options={"ledger": ledger(), "phase": phase}, **changes)


@pytest.mark.rule("R1")
@pytest.mark.parametrize("phase", [P.SETUP, P.MEMORY, P.SWITCH, P.COMMITTED, P.RECONCILE, P.CLEANUP, P.INDETERMINATE])
def test_recovery_looks_first_and_lets_an_arrived_copy_run(phase: Phase) -> None:
    looks = iter([[seen(source(VmState.ABSENT, bound=True), destination(VmState.PAUSED))]])
    run = recovered(
        phase,
        INSPECT=lambda: next(looks, [seen(source(VmState.ABSENT, bound=True), destination(VmState.RUNNING))]),
        ALLOW_RUN=[event(K.DESTINATION_RAN)],
        ADOPT=[event(K.CALL_RETURNED, ok=True)],
    )
    result = run.conductor.recover()
    assert result.end is P.COMPLETED
    assert result.recovered
    assert run.backend.told == [C.INSPECT, C.ALLOW_RUN, C.ADOPT, C.INSPECT, C.SETTLE_DESTINATION, C.CLEAN_UP_MOVED]


@pytest.mark.error("operation.interrupted")
@pytest.mark.parametrize("phase", [P.SETUP, P.MEMORY, P.UNDOING])
def test_recovery_of_one_that_never_left_the_source(phase: Phase) -> None:
    result = recovered(phase, INSPECT=STAYS).conductor.recover()
    assert result.end is P.FAILED
    assert [p.id for p in result.problems] == ["operation.interrupted"]


@pytest.mark.error("operation.interrupted")
def test_recovery_before_anything_was_touched() -> None:
    run = Run(options={"ledger": ledger(plan=None), "phase": P.CHECK})
    result = run.conductor.recover()
    assert result.end is P.FAILED
    assert run.backend.told == []
    assert [p.id for p in result.problems] == ["operation.interrupted"]


@pytest.mark.parametrize("phase", [P.SWITCH, P.RECONCILE, P.CLEANUP])
def test_recovery_without_an_answer_ends_too(phase: Phase) -> None:
    assert recovered(phase, INSPECT=()).conductor.recover().end is P.INDETERMINATE


def test_recovery_follows_a_transfer_that_still_runs_and_bounds_it_again() -> None:
    looks = iter([[seen(source(job_open=True, job_phase="perform3"), destination(VmState.PLANNED, job_open=True))]])
    adopted = iter([[event(K.ADOPTED_MEMORY), event(K.PASS_ENDED, number=9)]])
    run = recovered(
        P.MEMORY,
        INSPECT=lambda: next(looks, [seen(source(VmState.ABSENT, bound=True), destination(VmState.RUNNING))]),
        ADOPT=lambda: next(adopted, ()),
        STEER_SWITCH=[event(K.STEERED, what="switch"), event(K.SWITCH_SEEN), event(K.DESTINATION_ARRIVED)],
    )
    result = run.conductor.recover()
    assert result.end is P.COMPLETED
    assert run.phases()[:3] == [P.RECONCILE, P.MEMORY, P.SWITCH]
    assert C.STEER_SWITCH in run.backend.told


def test_recovery_of_an_ended_operation_only_gives_its_claim_back() -> None:
    store = MemoryStore(SETTINGS)
    store.claim(Claim(ledger().operation, "/home/one", IDENTITY.process, plan()))
    run = Run(store=store, options={"ledger": ledger(), "phase": P.COMPLETED})
    assert run.conductor.recover().end is P.COMPLETED
    assert run.backend.told == []
    assert store.claims() == ()


def test_late_reports_change_nothing() -> None:
    late = [event(K.MEMORY_SEEN), event(K.SWITCH_SEEN), *STAYS]
    run = Run(START_TRANSFER=[event(K.MEMORY_SEEN), event(K.CALL_RETURNED, ok=False)], INSPECT=late)
    assert run.conductor.start().end is P.FAILED
    assert run.phases().count(P.MEMORY) == 1


def test_stop_points_are_named_after_phases_and_commands() -> None:
    run = Run()
    run.conductor.start()
    for name in ("memory", "switch", "intended:allow-run", "given:allow-run", "cleanup"):
        assert name in run.stops
    assert run.stops.index("intended:allow-run") < run.stops.index("given:allow-run")


class FullDisk(Log):
    """A journal whose disk is full from some command on."""

    def __init__(self, since: CommandKind) -> None:
        super().__init__()
        self.since = since

    def intend(self, phase: Phase, ledger: Ledger, commands: Sequence[Command], *, durable: bool = True) -> None:
        super().intend(phase, ledger, commands, durable=durable)
        if any(line.startswith(f"intend {self.since}") for line in self.lines):
            raise error("journal.failed", path="/journal", detail="disk full")

    def end(self, phase: Phase, ledger: Ledger, outcome: dict[str, Any]) -> None:
        raise error("journal.failed", path="/journal", detail="disk full")


@pytest.mark.error("journal.failed")
@pytest.mark.parametrize("since", [C.PREPARE, C.RECORD_COMMIT, C.CLEAN_UP_MOVED])
def test_a_journal_lost_after_the_claim_does_not_stop_the_vm(since: CommandKind) -> None:
    result = Run(journal=FullDisk(since)).conductor.start()
    assert (result.end, result.runs_on) == (P.COMPLETED_WITH_WARNINGS, "b")
    assert [w.id for w in result.warnings] == ["journal.failed"]


@pytest.mark.error("journal.failed")
def test_without_a_journal_nothing_is_claimed() -> None:
    run = Run(journal=FullDisk(C.CLAIM))
    with pytest.raises(RefimplError, match=r"journal\.failed"):
        run.conductor.start()
    assert run.backend.told == [C.PROBE]
    assert run.store.claims() == ()


def test_a_decision_that_comes_too_late_changes_nothing() -> None:
    """A second look that is answered while the first is already acted upon."""
    twice = [seen(source(), destination()), seen(source(VmState.ABSENT), destination())]
    run = Run(START_TRANSFER=[event(K.CALL_RETURNED, ok=False)], INSPECT=twice)
    assert run.conductor.start().end is P.FAILED


def test_a_host_that_answers_again_is_waited_for() -> None:
    looks = iter([[seen(source(), CopySeen("b", False))], [seen(source(lease_held=False), CopySeen("b", False))]])
    run = Run(
        START_TRANSFER=[event(K.CALL_RETURNED, ok=False)],
        INSPECT=lambda: next(looks, [seen(source(), destination())]),
    )
    assert run.conductor.start().end is P.FAILED


@pytest.mark.rule("R7")
@pytest.mark.error("limit.storage_reached")
def test_one_more_move_with_its_disks_than_a_host_may_is_refused_at_the_claim() -> None:
    problem = limit_reached(plan(), "b", 2, ("one", "two"), storage=True)
    assert (problem.side, problem.host) == (Side.DESTINATION, "b")
    assert "2 such moves at once (under way: one, two)" in problem.text
    assert "--maximum-storage-migrations" in problem.mend
