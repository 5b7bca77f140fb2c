"""One move in a simulated world and what has to come of it: how a scenario is written, played and judged.

What is expected is said from outside: how the move ends, where the VM is then, which phases a user sees on the way,
and what holds always (claims, marks, answers). No expectation is made from the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from refimpl.model.events import Kind
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from refimpl.model.request import MigrationRequest, Plan
from tests.contract.benches import VM_ID, world
from tests.moves import OPERATION, Happens, Rig, Step, table_step

AT_SOURCE = {"a": "running"}
AT_DESTINATION = {"b": "running"}
COMMIT = "check setup memory switch committed reconcile cleanup completed"
ANSWERS = (Kind.CANCEL_ACCEPTED, Kind.CANCEL_TOO_LATE, Kind.CANCEL_UNSUPPORTED)

NEEDS_A_PERSON = (Phase.INDETERMINATE, Phase.POSTCOPY_PAUSED)

ENTERED_ON = {
    Phase.STORAGE: {Kind.STORAGE_SEEN, Kind.ADOPTED_STORAGE},
    Phase.MEMORY: {Kind.MEMORY_SEEN, Kind.ADOPTED_MEMORY},
    Phase.SWITCH: {Kind.SWITCH_SEEN, Kind.DESTINATION_ARRIVED, Kind.ADOPTED_SWITCH},
    Phase.POSTCOPY: {Kind.POSTCOPY_SEEN, Kind.ADOPTED_POSTCOPY, Kind.POSTCOPY_RECOVERABLE},
    Phase.RECONCILE: {
        Kind.CALL_RETURNED,
        Kind.SOURCE_GONE,
        Kind.RUN_REFUSED,
        Kind.POSTCOPY_BROKEN,
        Kind.POSTCOPY_NOT_RESUMED,
        Kind.DEADLINE,
        Kind.LOOK_AGAIN,
    },
}
"""A user is told of the switch when it was seen, and that evidence is wanted only when something called for it."""


@dataclass(frozen=True)
class Scenario:
    """One move. `path`: the phases entered, the end last; `also`: what else has to hold, given the rig.

    `happens`: when that is seen or entered, this is done to the rig.
    `kill_at`: the controller dies there, and the move is recovered; `ended`: it is recovered after that end; `force`:
    with force; `between`: this is done before; `then`: after it each of these is done, and the move recovered again.
    """

    path: str
    copies: Mapping[str, str] = field(default_factory=lambda: AT_SOURCE)
    world: Mapping[str, Any] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    cancel_at: Kind | Phase | None = None
    bandwidth_at: Kind | Phase | None = None
    post_copy_at: Kind | Phase | None = None
    happens: Happens = None
    kill_at: str | Kind | None = None
    ended: Phase | None = None
    between: Callable[[Rig], None] | None = None
    force: bool = False
    then: tuple[Callable[[Rig], None], ...] = ()
    after_ms: int = 0
    with_journal: bool = True
    journal_says: Phase | None = None
    claimed: bool = False
    deadlines: tuple[str, ...] = ()
    problem: str | None = None
    also: Callable[[Rig], bool] | None = None

    @property
    def end(self) -> str:
        return self.path.split()[-1]


def fault(kind: str, **values: Any) -> dict[str, Any]:
    return {"faults": [{"kind": kind, **values}]}


def faults(*scripted: dict[str, Any]) -> dict[str, Any]:
    return {"faults": [one for some in scripted for one in some["faults"]]}


def hangs(command: str, times: int = 1) -> dict[str, Any]:
    return fault("hangs", command=command, times=times)


SOURCE_DIES = fault("source-dies", during="memory")
BOTH_RUN = fault("both-run", during="arrived")


def looked_at_once(rig: Rig) -> bool:
    """The engine went for evidence, and had it, before the call returned."""
    returned = rig.kinds().index(Kind.CALL_RETURNED)
    entered = [i for i, e in enumerate(rig.events) if e.kind is Kind.PHASE_ENTERED and e["phase"] is Phase.RECONCILE]
    return entered[0] < returned and rig.kinds().index(Kind.EVIDENCE_SEEN) < returned


def given(command: str, times: int) -> Callable[[Rig], bool]:
    return lambda rig: rig.commands().count(command) == times


def took_longer_than_s(seconds: int) -> Callable[[Rig], bool]:
    return lambda rig: rig.events[-1].at_ns - rig.events[0].at_ns > seconds * 1_000_000_000


def within_s(seconds: int) -> Callable[[Rig], bool]:
    """The VM stood still for no longer than that."""

    def stood(rig: Rig) -> bool:
        at_ns = {event.kind: event.at_ns for event in rig.events}
        return at_ns[Kind.DESTINATION_RAN] - at_ns[Kind.SOURCE_STOPPED] < seconds * 1_000_000_000

    return stood


def broken_off_first(rig: Rig) -> bool:
    """The stalled transfer was asked to end before anybody looked, and only because it was stalled."""
    commands = rig.commands()
    asked = commands.index("request-cancel")
    return asked < commands.index("inspect") and rig.kinds().count(Kind.CANCEL_WISHED) == 0


def stays_paused(rig: Rig) -> bool:
    kinds = rig.kinds()
    return kinds.count(Kind.LEFT_PAUSED) == 1 and Kind.DESTINATION_RAN not in kinds and Kind.SOURCE_STOPPED not in kinds


def started_by_host(rig: Rig) -> list[str]:
    """The hosts that would start their copy by themselves."""
    return sorted(host for (host, _), copy in rig.world.copies.items() if copy.autostart)


def play(scenario: Scenario, step: Step = table_step) -> tuple[Rig, Outcome]:
    """Play a scenario, under another step function if one is given."""
    rig = Rig(world(**scenario.world), replace(MigrationRequest("web", "b"), **scenario.request), step)
    if scenario.claimed:
        rig.claim_for_another(Plan("web", VM_ID, "a", "b"))
    outcome = rig.start(
        kill_at=scenario.kill_at,
        cancel_at=scenario.cancel_at,
        bandwidth_at=scenario.bandwidth_at,
        post_copy_at=scenario.post_copy_at,
        happens=scenario.happens,
    )
    if scenario.kill_at is not None or scenario.ended is not None:
        assert (outcome.end if outcome else None) is scenario.ended, "the stop point was never reached"
        rig.journal.phase = scenario.journal_says or rig.journal.phase
        if scenario.between is not None:
            scenario.between(rig)
        with_journal = scenario.with_journal
        outcome = rig.recover(after_ms=scenario.after_ms, with_journal=with_journal, force=scenario.force)
    for happens in scenario.then:
        happens(rig)
        outcome = rig.recover()
    assert outcome is not None
    return rig, outcome


def judge(scenario: Scenario, rig: Rig, outcome: Outcome) -> None:
    """Raise AssertionError unless what came of it is as it has to be."""
    assert " ".join(rig.path()) == scenario.path
    assert outcome.end == scenario.end
    assert rig.copies() == scenario.copies
    named = [p.id for p in (*outcome.problems, *outcome.warnings)]
    assert scenario.problem is None or scenario.problem in named, named
    assert tuple(e["name"] for e in rig.events if e.kind is Kind.DEADLINE) == scenario.deadlines
    assert scenario.also is None or scenario.also(rig)
    _always(scenario, rig, outcome)


def _always(scenario: Scenario, rig: Rig, outcome: Outcome) -> None:
    kinds, commands = rig.kinds(), rig.commands()
    claims = [claim.operation for claim in rig.store.claims()]
    # Where the owner record could not be saved, the claim is kept for whoever recovers.
    kept = outcome.end in NEEDS_A_PERSON or (rig.store.down and outcome.end is not Phase.REFUSED)
    assert claims == (["ffffffff"] if scenario.claimed else [OPERATION] if kept else [])
    _owner(rig, outcome)
    left = "cleanup.left_behind" in [w.id for w in outcome.warnings]
    assert outcome.end in NEEDS_A_PERSON or left or rig.marks() == []
    assert outcome.end in (*NEEDS_A_PERSON, Phase.LOST) or left or rig.made() == []
    owners = [f"on {record.owner}" for record in rig.store.owners()] if outcome.end is Phase.LOST else [""]
    lacking = [file for file in rig.lacking() if any(file.endswith(owner) for owner in owners)]
    # What delegated hand-over cannot exclude is told, and what may have been written elsewhere is kept.
    told = {"hand_over.may_have_run", "storage.kept"} <= {w.id for w in outcome.warnings}
    assert outcome.end is Phase.DUAL_RUN or lacking == [] or told
    stalled = sum(e.kind is Kind.DEADLINE and e["name"] in (Phase.STORAGE, Phase.MEMORY) for e in rig.events)
    wished = kinds.count(Kind.CANCEL_WISHED) + (0 if "request-cancel" in str(scenario.world) else stalled)
    wished += kinds.count(Kind.BLACKOUT_TOO_LONG)
    wished += Kind.LEASE_UNSAFE in kinds and "request-cancel" in commands
    assert outcome.end is Phase.CANCELLED or sum(kinds.count(kind) for kind in ANSWERS) == wished
    for later, earlier in (("allow-run", "record-commit"), ("start-post-copy", "record-post-copy")):
        for at in (i for i, command in enumerate(commands) if command == later):
            assert commands[at - 1] == earlier
    assert kinds.count(Kind.PREPARED) <= 1
    assert kinds.count(Kind.TRANSFER_STARTED) <= 1
    for phase, reasons in ENTERED_ON.items():
        assert all(cause in reasons for entered, cause in _causes(rig) if entered is phase)


def _owner(rig: Rig, outcome: Outcome) -> None:
    """The owner record says what the outcome says, and the VM carries it; epochs only rise."""
    recorded = [e["ownership"] for e in rig.events if e.origin == "fact" and "ownership" in e.values]
    assert all(earlier.epoch <= later.epoch for earlier, later in pairwise(recorded))
    if outcome.end is Phase.LOST:
        return  # whoever has the definition that it is started from
    record = next(iter(rig.store.owners()), None)
    if record is None or rig.store.down or outcome.end is Phase.INDETERMINATE or record.operation != OPERATION:
        return
    assert (record.owner, record.pending) == ("b" if "b" in rig.copies() and outcome.runs_on != "a" else "a", None)
    if outcome.end is Phase.POSTCOPY_PAUSED:
        return
    carried = {copy.epoch for (host, _), copy in rig.world.copies.items() if host == record.owner}
    left = "cleanup.left_behind" in [w.id for w in outcome.warnings]
    assert left or carried <= {record.epoch}, (carried, record)


def _causes(rig: Rig) -> list[tuple[Phase, Kind]]:
    """Return each phase entered with what came right before."""
    return [(e["phase"], cause.kind) for cause, e in pairwise(rig.events) if e.kind is Kind.PHASE_ENTERED]
