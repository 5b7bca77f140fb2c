"""Random moves in simulated worlds under virtual time, thousands of them: the same table, policies and conductor.

The world itself is the witness: it notes each instant at which two copies run, and each copy that was taken away while
no other had the VM's memory. Afterwards all faults are lifted and interrupted moves are recovered, as a user would.
Of disks that move with the VM it knows which files hold every write that the guest was told is done; of a disk on
shared storage there is only one, so there nothing is said of writes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from refimpl.backends.simulated import World, parse_world
from refimpl.backends.simulated.faults import Faults
from refimpl.backends.simulated.world import Copy
from refimpl.backends.simulated.worldfile import STRIKING, Moment
from refimpl.model.errors import RefimplError
from refimpl.model.events import Kind
from refimpl.model.facts import VmState
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from refimpl.model.request import CommandKind, HandOver, MigrationRequest
from refimpl.model.storage import StorageWish
from tests import moves
from tests.contract.benches import VM_ID
from tests.moves import OPERATION, Circles, Rig
from tests.soak.history import LEFT_TO_A_PERSON, Played

BACKEND = "simulated"
SHARED, LOCAL = "/shared/web.raw", "/local/web.raw"
MOST_RECOVERIES = 4
MOST_EVENTS = 4_000
"""Of one conductor: more than any that comes to an end was seen to have."""
_LATER_MS = 30_000
_AFTERWARDS_NS = 600 * 1_000_000_000
"""How long a world lives on after the last end: what its hosts still have to do by themselves is done by then."""
_STOPS = (
    *(f"{when}:{kind}" for kind in CommandKind for when in ("intended", "given")),
    *map(
        str, (Phase.STORAGE, Phase.MEMORY, Phase.SWITCH, Phase.COMMITTED, Phase.RECONCILE, Phase.UNDOING, Phase.CLEANUP)
    ),
)
_HEARD = (Kind.FACTS_SEEN, Kind.PREPARED, Kind.MEMORY_SEEN, Kind.DESTINATION_ARRIVED, Kind.EVIDENCE_SEEN)
_CANCELS = (Kind.CLAIMED, Kind.PREPARED, Phase.MEMORY, Phase.SWITCH, Phase.COMMITTED, Phase.RECONCILE)
_HANGING = (
    "probe",
    "prepare",
    "start-transfer",
    "steer-switch",
    "request-cancel",
    "look-for-binding",
    "allow-run",
    "inspect",
    "adopt",
    "settle-source",
    "settle-destination",
    "end-source",
)
_ORDERS = (
    "hangs",
    "prepare-fails",
    "native-refusal",
    "no-connection",
    "run-refused",
    "settle-fails",
    "leaves-behind",
    "cancel-late",
    "steer-refused",
    "not-ended",
)
_STRIKES = (
    "host-dies",
    "host-freezes",
    "link-drops",
    "call-fails",
    "call-lies",
    "stalls",
    "disk-full",
    "guest-powers-off",
    "source-dies",
    "destination-dies",
)
_DECIDED_BY_A_PERSON = (Phase.LOST, Phase.DUAL_RUN)
"""Which of two disks is the right one after these, a person has to say: both are kept, and named."""
_AT_SOURCE = (Phase.REFUSED, Phase.FAILED, Phase.CANCELLED)


def schedule(seed: int, number: int) -> dict[str, Any]:
    """Return the schedule of that number: the same one for the same seed, always."""
    draw = random.Random(f"{seed}/{number}")
    delegated = draw.random() < 0.25
    killed = draw.random() < 0.4
    request = _request(draw)
    # Progress is told seldom on a slow way, so that a long move is no longer to read than another.
    latency = {"progress": 5_000} if "bandwidth_mib_s" in request else {}
    return {
        "backend": BACKEND,
        "seed": seed,
        "number": number,
        "world": {
            "seed": draw.randrange(1 << 30),
            "jitter": draw.choice((0.0, 0.2)),
            "hand_over": str(HandOver.DELEGATED if delegated else HandOver.STRICT),
            "leases": delegated or draw.random() < 0.7,
            "dirty": draw.choice((0, 20_000_000, 20_000_000, 200_000_000, 900_000_000)),
            "latency_ms": latency,
            "faults": [_fault(draw) for _ in range(draw.choice((0, 1, 1, 1, 2, 2, 3)))],
        },
        "request": request,
        "storage": _storage(draw) if draw.random() < 0.35 else None,
        "cancel_at": str(draw.choice(_CANCELS)) if draw.random() < 0.2 else None,
        "kill_at": str(draw.choice(_HEARD))
        if killed and draw.random() < 0.2
        else draw.choice(_STOPS)
        if killed
        else None,
        "with_journal": draw.random() < 0.7,
        "lift_late": draw.random() < 0.3,
        "after_ms": draw.choice((0, 0, 50, 2_000, 60_000, 3_600_000)),
    }


def _fault(draw: random.Random) -> dict[str, Any]:
    kind = draw.choice(_ORDERS if draw.random() < 0.35 else _STRIKES)
    fault: dict[str, Any] = {"kind": kind}
    if kind in map(str, STRIKING):
        fault |= _moment(draw)
    else:
        fault["times"] = draw.choice((1, 1, 2, 5))
    if kind in ("host-dies", "host-freezes"):
        fault["host"] = draw.choice("ab")
    if kind in ("host-dies", "host-freezes", "link-drops"):
        fault["for_ms"] = draw.choice((100, 1_000, 5_000, 8_000, 30_000, 200_000, None))
    if kind in ("link-drops", "no-connection"):
        fault["network"] = "migration"
    if kind == "leaves-behind":
        fault["host"] = draw.choice("ab")
    if kind == "hangs":
        fault["command"] = draw.choice(_HANGING)
    return fault


def _moment(draw: random.Random) -> dict[str, Any]:
    way = draw.random()
    if way < 0.7:
        return {"during": str(draw.choice(list(Moment)))}
    return {"on_pass": draw.randint(1, 3)} if way < 0.8 else {"at_s": round(draw.uniform(0.0, 8.0), 3)}


def _request(draw: random.Random) -> dict[str, Any]:
    request: dict[str, Any] = {"encryption": draw.random() < 0.5}
    if draw.random() < 0.3:
        request["pass_limit"] = draw.choice((1, 2, 5))
    if draw.random() < 0.2:
        request["bandwidth_mib_s"] = draw.choice((5, 50))
    if draw.random() < 0.15:
        request["cancel_if_blackout_exceeds_ms"] = draw.choice((200, 1_000, 5_000))
    return request


def _storage(draw: random.Random) -> dict[str, Any]:
    """Return what is wished of disks that lie on the source alone."""
    if draw.random() < 0.1:
        return {}  # nothing: such a move cannot be made
    kept = draw.choice((None, None, "retain_vhd_copies_on_source", "avoid_removing_vhds"))
    return {"include": True} | ({kept: True} if kept else {})


class WitnessedWorld(World):
    """A world that notes what must never be, and what was lost by a fault, at the instant at which it happens."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.two_ran: list[str] = []
        self.taken_away: list[str] = []
        self.fell: dict[str, int] = {}
        self.stale_ran: list[str] = []
        self._stale: list[Copy] = []
        super().__init__(parse_world(data))

    def run(self, copy: Copy, by_force: bool = False) -> bool:
        """Let a copy run; note when it is not the only one that does, or when the VM ran elsewhere since it stopped."""
        ran = super().run(copy, by_force)
        if ran and any(copy is stale for stale in self._stale):
            self.stale_ran.append(f"{copy.host} at {self._at()}")
        if ran:
            self._stale += [c for c in self.copies.values() if c is not copy]
        running = [c.host for c in self.copies.values() if c.state is VmState.RUNNING]
        if len(running) > 1:
            self.two_ran.append(f"{' and '.join(sorted(running))} at {self._at()}")
        return ran

    def stop(self, copy: Copy, state: VmState, reason: str) -> None:
        """Stop a copy; note when a process ends that nobody ended on purpose."""
        if state is VmState.OFF and reason in ("crashed", "shut down"):
            self.fell[copy.host] = self.now_ns()
        super().stop(copy, state, reason)

    def remove(self, copy: Copy) -> None:
        """Take a copy away; note when it had the VM's memory, no other has it, and no job of the hosts' did it."""
        ours = self.job_of(copy.vm.name) is None and copy.state in (VmState.RUNNING, VmState.PAUSED)
        if ours and self.whole() == [copy] and not any(copy is stale for stale in self._stale):
            self.taken_away.append(f"{copy.state} copy on {copy.host} at {self._at()}")
        super().remove(copy)

    def lift(self) -> None:
        """End all faults: hosts answer again, links pass, nothing scripted strikes any more."""
        self.faults._used = [1] * len(self.spec.faults)
        self.spec = self.spec.model_copy(update={"faults": ()})
        self.faults = Faults(self)
        self.links_down.clear()
        for name, host in self.hosts.items():
            if not host.answers:
                self.bring_back(name)

    def whole(self) -> list[Copy]:
        """Return the copies that have all of the VM's memory."""
        return [c for c in self.copies.values() if c.state in (VmState.RUNNING, VmState.PAUSED)]

    def _at(self) -> str:
        return f"{(self.now_ns() - self.start_ns) / 1e6:.1f} ms"


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
        rig = Rig(world, replace(MigrationRequest("web", "b"), **told["request"], storage=storage))
        _move(played, rig, world)
    except Circles as failure:
        played.violated("no-end", f"{failure} ({MOST_EVENTS} were allowed)")
    except (AssertionError, RuntimeError, RefimplError, ValueError, KeyError) as failure:
        played.violated("no-end", f"{type(failure).__name__}: {failure}")
    return played


def _move(played: Played, rig: Rig, world: WitnessedWorld) -> None:
    told = played.schedule
    outcome = rig.start(kill_at=_named(told["kill_at"]), cancel_at=_named(told["cancel_at"]))
    _note(played, rig, outcome)
    if outcome is not None:
        _judge_end(played, rig, world, outcome)
    if not told["lift_late"]:
        world.lift()
    recoveries = 0
    while _unfinished(rig, outcome) and recoveries < MOST_RECOVERIES:
        # Without journal and claim the mark on the VM leads to it, which this rig has no eyes for.
        by_journal = told["with_journal"] or not rig.store.claims()
        outcome = rig.recover(after_ms=told["after_ms"] + recoveries * _LATER_MS, with_journal=by_journal)
        recoveries += 1
        _note(played, rig, outcome)
        _judge_end(played, rig, world, outcome)
        world.lift()
    world.lift()
    world.clock.advance_to(world.now_ns() + _AFTERWARDS_NS)
    _judge_rest(played, rig, world, outcome)


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
    return outcome is None or outcome.end is Phase.INDETERMINATE or left


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
    if outcome.end is Phase.DUAL_RUN and not world.two_ran:
        played.violated("untrue-end", "dual run, and no two copies ever ran")


def _never_began(rig: Rig) -> bool:
    """Whether the move ended before it had claimed the VM: what became of the VM is none of its business."""
    return "claim" not in rig.commands()


def _judge_rest(played: Played, rig: Rig, world: WitnessedWorld, outcome: Outcome | None) -> None:
    if world.two_ran:
        played.violated("two-running", world.two_ran[0])
    if world.stale_ran:
        _judge_stale(played, world, outcome)
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
    if outcome is None or outcome.end is Phase.INDETERMINATE:
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
    _judge_writes(played, world)
    played.verdicts = {"copies": rig.copies(), "lease": world.holders.get("web"), "operation": OPERATION}


def _delegated(played: Played) -> bool:
    return bool(played.schedule["world"]["hand_over"] == HandOver.DELEGATED)


def _power_was_lost_unseen(played: Played, world: WitnessedWorld, outcome: Outcome | None) -> bool:
    """Whether the source died in a host that no controller could look at, when the VM was whole at the destination."""
    undecided = outcome is not None and [p.id for p in outcome.problems] == ["owner.unknown"]
    states = {c.host: (c.state, c.reason) for c in world.copies.values()}
    waits = states == {"a": (VmState.OFF, "crashed"), "b": (VmState.PAUSED, "arrived")}
    silent = ("host-dies", "host-freezes")
    away = any(f["kind"] in silent and f["host"] == "a" for f in played.schedule["world"]["faults"])
    return undecided and waits and away and str(Kind.SOURCE_BOUND) not in played.heard


def _judge_stale(played: Played, world: WitnessedWorld, outcome: Outcome | None) -> None:
    """Judge a copy that went on though it was older: when delegated libvirt does so by itself, to be told."""
    note = played.limited if _delegated(played) else played.violated
    note("stale-ran", world.stale_ran[0])
    # Without its journal a later controller cannot know what an earlier one has heard.
    known = str(Kind.DESTINATION_RAN) in played.heard and (played.schedule["with_journal"] or len(played.ends) == 1)
    if known and outcome is not None and outcome.end in (*_AT_SOURCE, Phase.COMPLETED):
        played.violated("untrue-end", f"{outcome.end}, and it was seen to run at the destination before")


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


def _judge_writes(played: Played, world: WitnessedWorld) -> None:
    """Judge that each copy's own disk holds every write that the guest was told is done."""
    if played.schedule["storage"] is None:
        return
    for copy in world.copies.values():
        file = world.disks.files.get((copy.host, LOCAL))
        if file is None or not file.whole:
            note = played.limited if world.stale_ran and _delegated(played) and file else played.violated
            note("write-lost", f"{LOCAL} on {copy.host}: {'behind' if file else 'gone'}; {_shown(world)}")


def _shown(world: World) -> str:
    return ", ".join(f"{c.state} ({c.reason or '-'}) on {h}" for (h, _), c in sorted(world.copies.items())) or "nothing"


def play_all(told: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Play schedules and return their lines; for a worker process."""
    return [play(each).to_json() for each in told]
