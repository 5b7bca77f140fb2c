"""Random schedules of moves in simulated worlds: what is asked, what fails and when, all by seed and number."""

from __future__ import annotations

import random
from typing import Any

from refimpl.backends.simulated.worldfile import STRIKING, Moment
from refimpl.model.events import Kind
from refimpl.model.phase import Phase
from refimpl.model.request import CommandKind, HandOver, PostCopy

BACKEND = "simulated"
_POST_COPY_COMMANDS = (CommandKind.RECORD_POSTCOPY, CommandKind.START_POSTCOPY, CommandKind.INSPECT)
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
_ASKED = (Kind.CLAIMED, Phase.MEMORY, Phase.MEMORY, Kind.PASS_ENDED)
"""When a person asks for post-copy."""
_IN_HALVES = (
    "host-dies",
    "host-freezes",
    "link-drops",
    "stalls",
    "source-dies",
    "destination-dies",
    "lock-daemon-dies",
    "guest-powers-off",
    "call-fails",
    "call-lies",
)
"""What strikes a VM whose memory is on both hosts."""
_KILLED_IN_POST_COPY = (
    *(f"{when}:{kind}" for kind in _POST_COPY_COMMANDS for when in ("intended", "given")),
    Phase.POSTCOPY,
    Kind.POSTCOPY_SEEN,
    Kind.DESTINATION_RAN,
    Kind.POSTCOPY_BROKEN,
    Phase.RECONCILE,
    Phase.CLEANUP,
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


def schedule(seed: int, number: int) -> dict[str, Any]:
    """Return the schedule of that number: the same one for the same seed, always."""
    draw = random.Random(f"{seed}/{number}")
    delegated = draw.random() < 0.25
    killed = draw.random() < 0.4
    request = _request(draw)
    # Progress is told seldom on a slow way, so that a long move is no longer to read than another.
    latency = {"progress": 5_000} if "bandwidth_mib_s" in request else {}
    told: dict[str, Any] = {
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
        "post_copy_at": None,
        "force": False,
    }
    if draw.random() < 0.2:
        _with_post_copy(draw, told)
    if draw.random() < 0.15:
        _with_force(draw, told)
    return told


def _with_post_copy(draw: random.Random, told: dict[str, Any]) -> None:
    """Let a move use post-copy, and let something happen in it."""
    way = draw.choice((PostCopy.ALLOWED, PostCopy.ALLOWED, PostCopy.ON_PASS_LIMIT))
    told["request"] |= {"post_copy": str(way), "bandwidth_mib_s": draw.choice((0, 5, 50))}
    told["storage"] = None
    told["post_copy_at"] = str(draw.choice(_ASKED)) if way is PostCopy.ALLOWED or draw.random() < 0.2 else None
    happens = [_post_copy_fault(draw) for _ in range(draw.choice((0, 1, 1, 2)))]
    world = told["world"]
    kept = world["faults"][:1] if draw.random() < 0.3 else []
    told["world"] = world | {
        "leases": True,
        "dirty": draw.choice((20_000_000, 200_000_000, 900_000_000)),
        "latency_ms": {"progress": 1_000},
        "faults": [*kept, *happens],
    }
    if told["kill_at"]:
        told["kill_at"] = str(draw.choice(_KILLED_IN_POST_COPY))


def _post_copy_fault(draw: random.Random) -> dict[str, Any]:
    if draw.random() < 0.2:
        return {"kind": draw.choice(("post-copy-refused", "resume-refused")), "times": draw.choice((1, 1, 2))}
    kind = draw.choice((*_IN_HALVES, "link-drops"))
    fault: dict[str, Any] = {"kind": kind, "during": str(Moment.POST_COPY)}
    if kind in ("host-dies", "host-freezes", "lock-daemon-dies"):
        fault["host"] = draw.choice("ab")
    if kind in ("host-dies", "host-freezes", "link-drops", "lock-daemon-dies"):
        fault["for_ms"] = draw.choice((100, 5_000, 30_000, 200_000, None))
    if kind == "link-drops":
        fault["network"] = "migration"
    return fault


def _with_force(draw: random.Random, told: dict[str, Any]) -> None:
    """Let a host fall silent for good, and be cut off by force; it is switched on again after that."""
    host = draw.choice("aab")
    kind = draw.choice(("host-dies", "host-freezes", "host-freezes", "host-freezes"))
    silent = {"kind": kind, "host": host, "during": str(draw.choice(list(Moment)[1:])), "for_ms": None}
    held = [{"kind": "not-ended", "times": 0}] if host == "a" and draw.random() < 0.6 else []
    stuck = [{"kind": "fence-fails", "times": 1}] if draw.random() < 0.1 else []
    told["world"] = told["world"] | {"faults": [*told["world"]["faults"][:1], silent, *held, *stuck]}
    told["force"] = True


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
