"""Random moves in simulated worlds under virtual time, thousands of them: the same table, policies and conductor.

The world itself is the witness: it notes each instant at which two copies run, and each copy that was taken away while
no other had the VM's memory. Afterwards all faults are lifted and interrupted moves are recovered, as a user would.
Of disks that move with the VM it knows which files hold every write that the guest was told is done; of a disk on
shared storage there is only one, so there nothing is said of writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from refimpl.backends.simulated import World
from refimpl.model.errors import RefimplError
from refimpl.model.events import Kind
from refimpl.model.facts import VmState
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from refimpl.model.request import MigrationRequest, PostCopy
from refimpl.model.storage import StorageWish
from tests import moves, recorded
from tests.contract.benches import VM_ID
from tests.moves import OPERATION, Circles, Rig
from tests.soak import modelled
from tests.soak.history import LEFT_TO_A_PERSON, Played, is_delegated
from tests.soak.simulated_schedule import BACKEND as BACKEND
from tests.soak.simulated_schedule import schedule as schedule
from tests.soak.simulated_world import WitnessedWorld as WitnessedWorld

SHARED, LOCAL = "/shared/web.raw", "/local/web.raw"
MOST_RECOVERIES = 4
MOST_EVENTS = 4_000
"""Of one conductor: more than any that comes to an end was seen to have."""
_LATER_MS = 30_000
_AFTERWARDS_NS = 600 * 1_000_000_000
"""How long a world lives on after the last end: what its hosts still have to do by themselves is done by then."""
_DECIDED_BY_A_PERSON = (Phase.LOST, Phase.DUAL_RUN)
"""Which of two disks is the right one after these, a person has to say: both are kept, and named."""
_UNDECIDED = (Phase.INDETERMINATE, Phase.POSTCOPY_PAUSED)
_AT_SOURCE = (Phase.REFUSED, Phase.FAILED, Phase.CANCELLED)


def world_data(told: Mapping[str, Any], *, local: bool = False) -> dict[str, Any]:
    """Return the world of a schedule as a world file has it; `local`: its disk lies on its host alone."""
    rest = {name: value for name, value in told.items() if name != "dirty"}
    path = LOCAL if local else SHARED
    vm = {
        "name": "web",
        "id": VM_ID,
        "host": "a",
        "memory_mib": 256,
        "working_set_mib": 200,
        "dirty_bytes_s": [[0, told["dirty"]]],
        "disks": [{"path": path, "local": local}],
    }
    hosts = {h: {"memory_mib": 2048, "networks": {"migration": f"192.0.2.{n}"}} for n, h in enumerate("ab", 1)}
    return {"hosts": hosts, "networks": {"migration": {}}, "vms": [vm], **rest}


def play(told: Mapping[str, Any]) -> Played:
    """Play one schedule to its last recovery, and judge it."""
    played = Played(told)
    moves.MOST_EVENTS = MOST_EVENTS
    try:
        wished = told["storage"]
        world = WitnessedWorld(world_data(told["world"], local=wished is not None))
        storage = StorageWish(**wished) if wished else None
        rig = Rig(world, replace(MigrationRequest("web", "b"), **_asked(told["request"]), storage=storage))
        _move(played, rig, world)
    except Circles as failure:
        played.violated("no-end", f"{failure} ({MOST_EVENTS} were allowed)")
    except (AssertionError, RuntimeError, RefimplError, ValueError, KeyError) as failure:
        played.violated("no-end", f"{type(failure).__name__}: {failure}")
    return played


def _asked(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a schedule asks of a move, as a request has it."""
    return {**request, "post_copy": PostCopy(request.get("post_copy", PostCopy.OFF))}


def _move(played: Played, rig: Rig, world: WitnessedWorld) -> None:
    told, not_modelled, faults = played.schedule, moves.not_modelled(world, rig.step), len(world.spec.faults)
    outcome = rig.start(
        kill_at=_named(told["kill_at"]),
        cancel_at=_named(told["cancel_at"]),
        post_copy_at=_named(told.get("post_copy_at")),
    )
    _note(played, rig, outcome)
    if outcome is not None:
        _judge_end(played, rig, world, outcome)
    forced = bool(told.get("force"))
    if not (told["lift_late"] or forced):
        world.lift()
    recoveries = 0
    while _unfinished(rig, outcome) and recoveries < MOST_RECOVERIES:
        # Without journal and claim the mark on the VM leads to it, which this rig has no eyes for.
        by_journal = told["with_journal"] or not rig.store.claims()
        after_ms = told["after_ms"] + recoveries * _LATER_MS
        outcome = rig.recover(after_ms=after_ms, with_journal=by_journal, force=forced and not recoveries)
        recoveries += 1
        _note(played, rig, outcome)
        _judge_end(played, rig, world, outcome)
        world.lift()
    world.lift()
    world.clock.advance_to(world.now_ns() + _AFTERWARDS_NS)
    _judge_rest(played, rig, world, outcome)
    modelled.check(played, rig.trace, not_modelled, faults)


def _named(name: str | None) -> Any:
    """Return a phase, an event kind, or the name of a stop point as it is."""
    if name is None or ":" in name:
        return name
    return Phase(name) if name in [*map(str, Phase)] else Kind(name)


def _note(played: Played, rig: Rig, outcome: Outcome | None) -> None:
    played.ends.append(str(outcome.end) if outcome else "killed")
    played.events.append(" ".join(rig.path()))
    played.heard |= {str(kind) for kind in rig.kinds()}


def _unfinished(rig: Rig, outcome: Outcome | None) -> bool:
    left = outcome is not None and _told_left(outcome)
    return outcome is None or outcome.end in _UNDECIDED or left


def _judge_end(played: Played, rig: Rig, world: WitnessedWorld, outcome: Outcome) -> None:
    """Judge what an end says by what is; what fell after the last look could not be known."""
    looks = [e.at_ns for e in rig.events if e.kind in (Kind.EVIDENCE_SEEN, Kind.FACTS_SEEN)]
    late = [host for host, at_ns in world.fell.items() if looks and at_ns >= looks[-1]]
    now = {c.host: c.state for c in world.copies.values()}
    guest_ended = any(c.ended_by_guest for c in world.copies.values())
    wanted = "b" if outcome.completed else "a" if outcome.end in _AT_SOURCE else None
    untouched = outcome.end in _AT_SOURCE and _never_began(rig)
    knowable = wanted and looks and not (guest_ended or untouched or wanted in late)
    if knowable and now.get(wanted or "") != outcome.vm_state:
        played.violated("untrue-end", f"{outcome.end}, and there is {_shown(world)}")
    if outcome.end is Phase.LOST and world.whole():
        played.violated("untrue-end", f"{outcome.end}, and there is {_shown(world)}")
    if outcome.end is Phase.POSTCOPY_PAUSED and not world.was_in_halves():
        played.violated("untrue-end", f"{outcome.end}, and the VM was never in two halves: {_shown(world)}")
    if outcome.end is Phase.DUAL_RUN and not world.two_ran:
        played.violated("untrue-end", "dual run, and no two copies ever ran")


def _never_began(rig: Rig) -> bool:
    """Whether the move ended before it had claimed the VM: what became of the VM is none of its business."""
    return "claim" not in rig.commands()


def _judge_rest(played: Played, rig: Rig, world: WitnessedWorld, outcome: Outcome | None) -> None:
    if world.two_ran:
        played.violated("two-running", world.two_ran[0])
    if world.stale_ran:
        _judge_stale(played, rig, world, outcome)
    if world.taken_away:
        played.violated("none-running", f"taken away: {world.taken_away[0]}")
    running = [c for c in world.copies.values() if c.state is VmState.RUNNING]
    if _power_was_lost_unseen(played, world, outcome):
        played.limited(LEFT_TO_A_PERSON, _shown(world))
        return
    if world.whole() and not running:
        played.violated("none-running", _shown(world))
    if not world.whole() and not world.fell:
        played.violated("none-running", f"{_shown(world)}, and no process ever fell")
    if outcome is None or outcome.end in _UNDECIDED:
        problems = ", ".join(p.id for p in outcome.problems) if outcome else "killed"
        played.violated("not-recoverable", f"{problems}; {_shown(world)}")
        return
    left = [f"claim of {c.operation}" for c in rig.store.claims()] + [f"mark of {m}" for m in rig.marks()]
    left += [f"job of {t.operation}" for t in world.transfers.values() if t.open]
    left += [f"{c.state} copy on {c.host}" for c in world.copies.values() if c not in running and running]
    if outcome.end not in _DECIDED_BY_A_PERSON or not _told_left(outcome):
        left += _files_left(played.schedule, world)
    if left:
        played.violated("left-behind", "; ".join(left))
    owners = {record.owner for record in rig.store.owners()} if outcome.end is Phase.LOST else None
    _judge_writes(played, world, owners)
    played.verdicts = {"copies": rig.copies(), "lease": world.holders.get("web"), "operation": OPERATION}


def _power_was_lost_unseen(played: Played, world: WitnessedWorld, outcome: Outcome | None) -> bool:
    """Whether the source died in a host that no controller could look at, when the VM was whole at the destination."""
    undecided = outcome is not None and [p.id for p in outcome.problems] == ["owner.unknown"]
    states = {c.host: (c.state, c.reason) for c in world.copies.values()}
    waits = states == {"a": (VmState.OFF, "crashed"), "b": (VmState.PAUSED, "arrived")}
    silent = ("host-dies", "host-freezes")
    away = any(f["kind"] in silent and f["host"] == "a" for f in played.schedule["world"]["faults"])
    return undecided and waits and away and str(Kind.SOURCE_BOUND) not in played.heard


def _judge_stale(played: Played, rig: Rig, world: WitnessedWorld, outcome: Outcome | None) -> None:
    """Judge a copy that went on though it was older: when delegated libvirt does so by itself, to be told."""
    note = played.limited if is_delegated(played.schedule) else played.violated
    note("stale-ran", world.stale_ran[0])
    # Without its journal a later controller cannot know what an earlier one has heard.
    known = str(Kind.DESTINATION_RAN) in played.heard and (played.schedule["with_journal"] or len(played.ends) == 1)
    told = outcome is not None and "hand_over.may_have_run" in [w.id for w in outcome.warnings]
    if known and not told and outcome is not None and outcome.end in (*_AT_SOURCE, Phase.COMPLETED):
        played.violated("untrue-end", f"{outcome.end}, and it was seen to run at the destination before")
    looks = [event["evidence"].destination for event in rig.trace if event.kind is Kind.EVIDENCE_SEEN]
    defined = bool(looks) and looks[-1].reachable and looks[-1].state is VmState.OFF
    if defined and not told and outcome is not None and outcome.end in _AT_SOURCE:
        played.violated("untrue-end", f"{outcome.end}, and not a word that it may have run at the destination")


def _told_left(outcome: Outcome) -> bool:
    return any(w.id == "cleanup.left_behind" for w in outcome.warnings)


def _files_left(told: Mapping[str, Any], world: WitnessedWorld) -> list[str]:
    """Return which files lie where they should not, when none was asked to be kept."""
    files = world.disks.files.items()
    left = [f"{p} on {h}, made by {f.operation}" for (h, p), f in files if f.operation]
    where = {c.host for c in world.copies.values()}
    kept = bool(told["storage"]) and len(told["storage"]) > 1
    if where and not kept:
        left += [f"{p} on {h}" for (h, p), f in files if f.vm == "web" and h not in where and not f.operation]
    return left


def _judge_writes(played: Played, world: WitnessedWorld, owners: set[str] | None) -> None:
    """Judge that each copy's own disk holds every write that the guest was told is done; `owners`: only of these."""
    if played.schedule["storage"] is None:
        return
    for copy in (c for c in world.copies.values() if owners is None or c.host in owners):
        file = world.disks.files.get((copy.host, LOCAL))
        if file is None or not file.whole:
            # What delegated hand-over cannot exclude is on the disk that the VM had there.
            both = all((host, LOCAL) in world.disks.files for host in "ab")
            note = played.limited if world.stale_ran and is_delegated(played.schedule) and both else played.violated
            note("write-lost", f"{LOCAL} on {copy.host}: {'behind' if file else 'gone'}; {_shown(world)}")


def _shown(world: World) -> str:
    return ", ".join(f"{c.state} ({c.reason or '-'}) on {h}" for (h, _), c in sorted(world.copies.items())) or "nothing"


def play_all(told: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Play schedules and return their lines; for a worker process."""
    lines = [play(each).to_json() for each in told]
    # They have been checked, and nobody comes to take them here.
    recorded.taken(recorded.MOVES)
    return lines
