"""The fault tables as records: a row for what goes wrong, a case for each way in which a move can meet it.

What plain libvirt does was measured (libvirt-qemu 3.3; of leases, handover 3); what the engine does is what a test
asserts of each case. `docs/fault-table.md` is made from here, so that it says nothing that no test has seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from refimpl.model.events import Kind
from refimpl.model.outcome import Outcome
from refimpl.model.phase import EXIT_CODES, ExitCode, Phase, Side
from refimpl.model.request import HandOver
from refimpl.report.data import JsonEvent
from refimpl.report.story import looks
from refimpl.report.words import label

TESTS = "tests/lab/test_fault_table.py"


class At(StrEnum):
    """The moment of a blow: held, or told by an event."""

    STORAGE = "while disks are copied"
    MEMORY = "while memory is sent"
    CONVERGING = "when memory begins to be sent, and nothing holds the switch"
    SWITCH = "when the source has begun to send the last part"
    ARRIVED = "when all has arrived and the destination's daemon is to answer"
    UNANSWERED = "when the source waits for that answer"
    BOUND = "when the source is bound and the destination is to be let run"


class Until(StrEnum):
    """How long it stands."""

    ONCE = ""
    SOURCE_FREE = "until the source has given the move up"
    DESTINATION_FREE = "until the destination has given the move up"
    RETURNED = "until the transfer has broken off"
    ENDED = "until the move has ended"


class Then(StrEnum):
    """What a person does when the move has ended, as its outcome says."""

    RECOVER = "refimpl recover"
    MEND_SOURCE = "refimpl lab mend (source)"
    MEND_DESTINATION = "refimpl lab mend (destination)"
    START = "refimpl vm start"


class Lives(StrEnum):
    """What the VM has its disk on."""

    SHARED = "shared disk"
    OWN = "own disk to another path"
    NONE = "no disk"


@dataclass(frozen=True, slots=True)
class Blow:
    """One fault of `refimpl.faults`, or something that a person does (`tests.lab.striking.DEEDS`); on a side.

    `network`: of a link. The blows of a case come one after the other; the last is undone first.
    """

    does: str
    side: Side
    at: At
    until: Until = Until.ONCE
    network: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One move that meets a row, and all that is asserted of it.

    `vm_at`: the side on which the VM runs when all is done; None: it was lost, and is off at the source. `verdict`,
    `why`: the last decision, and a pattern of what its reason begins with. `then`: what a person does after the end;
    `recovered`: the end of `refimpl recover`. `channels`: whether memory goes by several of them. `test`: where the
    case is tested, if not by the table's own tests. `full`: in `ci/full` only.
    """

    name: str
    hand_over: HandOver = HandOver.STRICT
    disk: Lives = Lives.SHARED
    lease: bool = True
    channels: bool = True
    blows: tuple[Blow, ...] = ()
    end: Phase = Phase.FAILED
    vm_at: Side | None = Side.SOURCE
    verdict: Kind = Kind.SOURCE_OWNS
    why: str = "running at the source"
    problems: tuple[str, ...] = ("transfer.failed",)
    warnings: tuple[str, ...] = ()
    then: tuple[Then, ...] = ()
    recovered: Phase | None = None
    test: str = ""
    full: bool = False

    @property
    def code(self) -> ExitCode:
        """The exit code of the end."""
        return EXIT_CODES[self.end]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the tables. `plain`: what plain libvirt leaves, with its own hand-over; a lease only where it says."""

    id: str
    what: str
    plain: str
    cases: tuple[Case, ...]


S, D = Side.SOURCE, Side.DESTINATION
STRICT, DELEGATED = HandOver.STRICT, HandOver.DELEGATED
OWN, NONE = Lives.OWN, Lives.NONE
_HAND_OVER, _LEASES, _STORAGE = (
    f"tests/lab/test_{name}.py::test_" for name in ("hand_over", "lease_health", "storage_moves")
)


def _frozen(side: Side, at: At, until: Until = Until.SOURCE_FREE) -> tuple[Blow, ...]:
    return (Blow("freeze-libvirtd", side, at, until),)


def _killed(side: Side, at: At, until: Until, what: str = "libvirtd") -> tuple[Blow, ...]:
    return (Blow(f"kill-{what}", side, at, until),)


def _done(side: Side, at: At, does: str) -> tuple[Blow, ...]:
    return (Blow(does, side, at),)


def _cut(at: At, *networks: str) -> tuple[Blow, ...]:
    return tuple(Blow("link-down", D, at, Until.ENDED, network) for network in networks)


AT_CONVERGING = _frozen(S, At.CONVERGING, Until.DESTINATION_FREE)
KILLED_AT_SWITCH = _killed(D, At.SWITCH, Until.RETURNED)
AT_SWITCH, AT_END = _frozen(D, At.SWITCH), _frozen(D, At.ARRIVED)
CUT_AT_END = (*_cut(At.ARRIVED, "management"), *_cut(At.UNANSWERED, "migration"))
PARTED_AT_END = (Blow("part-hosts", D, At.ARRIVED, Until.SOURCE_FREE),)
BOTH_DAEMONS = (*_frozen(D, At.ARRIVED, Until.RETURNED), *_killed(S, At.UNANSWERED, Until.ONCE))
MOVED: dict[str, Any] = {"end": Phase.COMPLETED, "vm_at": D, "verdict": Kind.DESTINATION_OWNS, "problems": ()}
THERE = MOVED | {"why": "runs at the destination, source paused"}
TWO: dict[str, Any] = {
    "hand_over": DELEGATED,
    "disk": NONE,
    "lease": False,
    "end": Phase.DUAL_RUN,
    "vm_at": D,
    "verdict": Kind.BOTH_RAN,
    "why": "running at the source and at the destination",
    "problems": ("transfer.failed", "owner.dual_run"),
}
BARE: dict[str, Any] = {"disk": NONE, "lease": False}
LEFT: dict[str, Any] = {"warnings": ("cleanup.left_behind",), "then": (Then.RECOVER,), "recovered": Phase.FAILED}
UNHEARD: dict[str, Any] = {"hand_over": DELEGATED, "blows": AT_SWITCH, "warnings": ("hand_over.may_have_run",)}
RETAKEN: dict[str, Any] = {"warnings": ("lease.taken_again",)}
UNDECIDED: dict[str, Any] = {
    "end": Phase.INDETERMINATE,
    "verdict": Kind.UNKNOWN,
    "problems": ("transfer.failed", "owner.unknown"),
    "then": (Then.RECOVER,),
    "full": True,
}
CUT_OFF: dict[str, Any] = UNDECIDED | {"why": "host {destination} does not answer", "blows": CUT_AT_END}
NOT_TRIED = "not tried."
SILENT = "runs at the source with its lease"

_ALL = (
    Row(
        "S1",
        "The destination's libvirtd freezes at the switch for longer than its peer waits; the disk is shared.",
        "One copy: the source runs on, and the lock of the image ends the copy that the thawed daemon lets run.",
        (
            Case(name="strict", blows=AT_SWITCH),
            Case(name="delegated", full=True, **UNHEARD),
        ),
    ),
    Row(
        "S2",
        "The same, and nothing locks the disk.",
        "**Both run**: the thawed daemon does what it was told long ago.",
        (
            Case(name="bare", blows=AT_SWITCH, test=f"{_HAND_OVER}s2_without_lease_and_strict_two_copies_run", **TWO),
            Case(name="no-lease", blows=AT_SWITCH, test=f"{_HAND_OVER}s2_with_either_one_copy_runs", **BARE),
            Case(name="strict", disk=OWN, blows=AT_SWITCH),
        ),
    ),
    Row(
        "S2L",
        "S2 with a lease on a space that both hosts share.",
        "One copy: the thawed one is refused the lease.",
        (
            Case(name="no-disk", disk=NONE, test=f"{_HAND_OVER}s2_with_either_one_copy_runs", **UNHEARD),
            Case(name="delegated", disk=OWN, full=True, **UNHEARD),
        ),
    ),
    Row(
        "S3",
        "The destination's libvirtd freezes when its copy runs, so that its answer is lost; the disk is shared.",
        "The destination runs; the source is refused the image and stands still for ever.",
        (
            Case(name="strict", blows=AT_END, why="paused at the source", full=True),
            Case(name="delegated", hand_over=DELEGATED, blows=AT_END, **THERE),
        ),
    ),
    Row(
        "S4",
        "The same, and nothing locks the disk.",
        "**Both run**: the source takes the lost answer for a no.",
        (
            Case(name="bare", blows=AT_END, test=f"{_HAND_OVER}s4_without_lease_and_strict_two_copies_run", **TWO),
            Case(name="no-lease", blows=AT_END, test=f"{_HAND_OVER}s4_with_either_one_copy_runs", **BARE),
            Case(name="strict", disk=OWN, blows=AT_END),
        ),
    ),
    Row(
        "S4L",
        "S4 with a lease on a space that both hosts share.",
        "The destination runs; the source is refused the lease and stands still for ever.",
        (
            Case(
                name="no-disk",
                hand_over=DELEGATED,
                disk=NONE,
                blows=AT_END,
                test=f"{_HAND_OVER}s4_with_either_one_copy_runs",
                full=True,
                **THERE,
            ),
            Case(name="delegated", hand_over=DELEGATED, disk=OWN, blows=AT_END, full=True, **THERE),
        ),
    ),
    Row(
        "S5",
        "The source's libvirtd freezes while memory converges, so that nobody lets QEMU switch.",
        "The guest stands still as long as the daemon does, then runs on; a lease that it had is lost (seen here).",
        (
            Case(name="strict", blows=AT_CONVERGING, **RETAKEN),
            Case(name="delegated", hand_over=DELEGATED, blows=AT_CONVERGING, full=True, **RETAKEN),
        ),
    ),
    Row(
        "S6",
        "S2, and the destination is told to arrive paused (libvirt's `PAUSED`).",
        "One copy runs; the other stands still until somebody ends it.",
        (Case(name="strict", blows=AT_SWITCH, test=f"{TESTS}::test_row_with_its_disk[S2-strict]", disk=OWN),),
    ),
    Row(
        "K1",
        "The source's libvirtd is killed while memory is sent.",
        "The guest runs on; the destination's copy is ended when its daemon misses the peer.",
        (
            Case(name="started-again", channels=False, blows=_killed(S, At.MEMORY, Until.RETURNED)),
            Case(
                name="stays-away",
                channels=False,
                blows=_killed(S, At.MEMORY, Until.ENDED),
                why="host {source} does not answer",
                recovered=Phase.FAILED,
                **UNDECIDED,
            ),
        ),
    ),
    Row(
        "K2",
        "The destination's libvirtd is killed while memory is sent.",
        "The guest runs on; the half-made copy stays there until the daemon is started again, which ends it.",
        (Case(name="strict", blows=_killed(D, At.MEMORY, Until.ENDED), why=SILENT, **LEFT),),
    ),
    Row(
        "K3",
        "The destination's QEMU is killed while memory is sent.",
        "The guest runs on at the source.",
        (Case(name="strict", channels=False, blows=_killed(D, At.MEMORY, Until.ONCE, "qemu")),),
    ),
    Row(
        "K4",
        "The source's QEMU is killed while memory is sent.",
        "The guest is lost; the half-made copy is ended.",
        (
            Case(
                name="strict",
                blows=_killed(S, At.MEMORY, Until.ONCE, "qemu"),
                end=Phase.LOST,
                vm_at=None,
                verdict=Kind.MEMORY_GONE,
                why=r"source off, destination \w+; its QEMU ended",
                problems=("owner.lost",),
                then=(Then.START,),
            ),
        ),
    ),
    Row(
        "K5",
        "The source's libvirtd is killed while it waits for the answer, and the destination's is frozen meanwhile.",
        "The destination runs; the source stands still for ever, without a job.",
        (
            Case(name="strict", blows=BOTH_DAEMONS, why="paused at the source, paused at the destination"),
            Case(name="delegated", hand_over=DELEGATED, blows=BOTH_DAEMONS, full=True, **THERE),
        ),
    ),
    Row(
        "K6",
        "The destination's libvirtd is killed at the switch.",
        "The source runs on at once; a lease that it had is lost (seen here). The copy goes when the daemon is back.",
        (
            Case(name="strict", blows=KILLED_AT_SWITCH, **RETAKEN),
            Case(name="delegated", hand_over=DELEGATED, blows=KILLED_AT_SWITCH, full=True, **RETAKEN),
        ),
    ),
    Row(
        "N1",
        "The destination's link is cut for good while memory is sent.",
        "The guest runs on; the move breaks off after the time that a peer may be silent, 30 s by default.",
        (
            Case(name="migration", blows=_cut(At.MEMORY, "migration")),
            Case(
                name="management-too", blows=_cut(At.MEMORY, "migration", "management"), why=SILENT, full=True, **LEFT
            ),
        ),
    ),
    Row(
        "N2",
        "The destination's links are cut for good when all has arrived there.",
        NOT_TRIED,
        (
            Case(name="strict", recovered=Phase.FAILED, **CUT_OFF),
            Case(name="delegated", hand_over=DELEGATED, vm_at=D, recovered=Phase.COMPLETED, **CUT_OFF),
            Case(name="from-the-source-only", blows=PARTED_AT_END, why="paused at the source", full=True),
            Case(name="from-the-source-only-delegated", hand_over=DELEGATED, blows=PARTED_AT_END, full=True, **THERE),
        ),
    ),
    Row(
        "A1",
        "Somebody cancels while memory is sent, or aborts libvirt's job behind the engine's back.",
        "The guest runs on; the copy is gone.",
        (
            Case(
                name="cancel",
                blows=_done(S, At.MEMORY, "cancel"),
                end=Phase.CANCELLED,
                problems=("transfer.cancelled",),
            ),
            Case(name="job-aborted", blows=_done(S, At.MEMORY, "abort-job")),
        ),
    ),
    Row(
        "T4",
        "The same while disks are copied.",
        "The guest runs on; the **half-copied disk stays** at the destination.",
        (
            Case(
                name="cancel",
                disk=OWN,
                blows=_done(S, At.STORAGE, "cancel"),
                end=Phase.CANCELLED,
                problems=("transfer.cancelled",),
                test=f"{_STORAGE}cancelled_while_disks_are_copied",
            ),
            Case(name="job-aborted", disk=OWN, blows=_done(S, At.STORAGE, "abort-job")),
        ),
    ),
    Row(
        "T11",
        "Somebody suspends the guest at the source while memory is sent.",
        "The move completes at once, and the guest **runs** at the destination.",
        (
            Case(
                name="strict",
                blows=_done(S, At.MEMORY, "suspend"),
                **MOVED | {"why": "runs at the destination, source absent"},
            ),
        ),
    ),
    Row(
        "T12",
        "Somebody destroys the half-made copy at the destination while memory is sent.",
        "The guest runs on at the source.",
        (Case(name="strict", channels=False, blows=_done(D, At.MEMORY, "destroy")),),
    ),
    Row(
        "V1",
        "The virtlockd of the VM's host is killed while no move is under way.",
        "The lease is lost silently; a second copy could start elsewhere.",
        (
            Case(
                name="no-move",
                end=Phase.REFUSED,
                verdict=Kind.CHECKS_REFUSED,
                why="",
                problems=("lease.not_held", "lock_daemon.down"),
                then=(Then.MEND_SOURCE,),
                test=f"{_LEASES}a_lost_lease_is_seen_and_taken_again_while_the_guest_runs_on",
            ),
        ),
    ),
    Row(
        "V2",
        "The destination's virtlockd is killed while memory is sent.",
        NOT_TRIED,
        (
            Case(
                name="strict",
                blows=_killed(D, At.MEMORY, Until.ENDED, "virtlockd"),
                problems=("lease.unsafe",),
                warnings=("lease.lost",),
                then=(Then.MEND_DESTINATION,),
                test=f"{_LEASES}a_destination_that_loses_its_lock_daemon_is_not_moved_to",
            ),
        ),
    ),
    Row(
        "V3",
        "The source's virtlockd is killed while memory is sent.",
        "The destination takes the lease and runs.",
        (
            Case(
                name="strict",
                blows=_killed(S, At.MEMORY, Until.ENDED, "virtlockd"),
                warnings=("lease.lost",),
                then=(Then.MEND_SOURCE,),
                test=f"{_LEASES}a_source_that_loses_its_lock_daemon_is_moved_away_from_with_a_warning",
                **MOVED | {"end": Phase.COMPLETED_WITH_WARNINGS, "why": "runs at the destination, source absent"},
            ),
        ),
    ),
    Row(
        "V4",
        "The destination's virtlockd is killed when the source is bound.",
        NOT_TRIED,
        (
            Case(
                name="strict",
                blows=_killed(D, At.BOUND, Until.ENDED, "virtlockd"),
                end=Phase.INDETERMINATE,
                vm_at=D,
                verdict=Kind.UNKNOWN,
                why="the destination refused to run",
                problems=("run.refused", "owner.unknown"),
                warnings=("lease.lost",),
                then=(Then.MEND_DESTINATION, Then.RECOVER),
                recovered=Phase.COMPLETED_WITH_WARNINGS,
                test=f"{_LEASES}a_destination_that_loses_it_when_the_source_is_bound_runs_the_vm_once_it_is_mended",
            ),
        ),
    ),
)

ROWS: Mapping[str, Row] = {row.id: row for row in _ALL}
"""All rows by their ids: those of libvirt-qemu 3.3, and V for virtlockd that is killed."""

CASES: Mapping[str, Case] = {f"{row.id}-{case.name}": case for row in _ALL for case in row.cases}
"""All cases by row and name, as the table's test names them."""


def cases_here() -> Iterator[tuple[str, Case]]:
    """Yield the cases of the table's own tests."""
    return ((id, case) for id, case in CASES.items() if not case.test)


def shown_by(id: str) -> str:
    """Return the id of the test that shows a case."""
    case = CASES[id]
    return case.test or f"{TESTS}::test_row{'_with_its_disk' if case.disk is Lives.OWN else ''}[{id}]"


def as_told(id: str, outcome: Outcome, events: Sequence[JsonEvent], also: tuple[str, ...] = ()) -> None:
    """Assert that a move ended as its case says, and that its report tells the verdict and the reason.

    `also`: warnings that are the test's own.
    """
    case = CASES[id]
    assert (outcome.end, outcome.exit_code, outcome.hand_over) == (case.end, case.code, case.hand_over), outcome
    assert tuple(dict.fromkeys(problem.id for problem in outcome.problems)) == case.problems, outcome.problems
    # That a VM without a lease runs without it is known beforehand.
    warned = {warning.id for warning in outcome.warnings} - (set() if case.lease else {"lease.not_taken"})
    assert warned == {*case.warnings, *also}, outcome.warnings
    if case.end is Phase.REFUSED:
        assert not looks(events)
        return
    last = looks(events)[-1]
    assert last.decision == label(case.verdict), last
    assert re.match(case.why.format(source=outcome.source, destination=outcome.destination), last.why), last
