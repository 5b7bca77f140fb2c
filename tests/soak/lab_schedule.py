"""Random schedules of real moves: mode, fault, side, moment and time, all by seed and number.

A schedule says *source* and *destination*, not hosts: where the VM is by then depends on how the moves before it ended.
"""

from __future__ import annotations

import random
from typing import Any

from refimpl.faults import FAULTS
from refimpl.faults.catalogue import Needs
from refimpl.model.events import Kind
from refimpl.model.request import HandOver, PerformanceOption, PostCopy

BACKEND = "lab"
SIDES = ("source", "destination")
_EVENTS = (Kind.CLAIMED, Kind.PREPARED, Kind.MEMORY_SEEN, Kind.SWITCH_SEEN, Kind.DESTINATION_ARRIVED, Kind.SOURCE_BOUND)
_EVENTS_LATE = (Kind.DESTINATION_RAN, Kind.CALL_RETURNED)
_CANCELS = (Kind.CLAIMED, Kind.PREPARED, Kind.MEMORY_SEEN, Kind.SWITCH_SEEN)
_STATES = ("active", "pre-switchover", "device", "completed")
_STOPS = (
    "intended:prepare",
    "given:prepare",
    "intended:start-transfer",
    "memory",
    "switch",
    "committed",
    "intended:allow-run",
    "given:allow-run",
    "reconcile",
    "cleanup",
)
_WAYS = ("before", "held", "held", "event", "event", "event", "qmp", "qmp", "stop", "stop")
_SECONDS = (0.3, 1.0, 2.0, 5.0, 8.0)
_IN_HALVES = (
    "link-down",
    "link-down",
    "link-one-way",
    "kill-conductor",
    "freeze-conductor",
    "kill-libvirtd",
    "freeze-libvirtd",
    "kill-virtlockd",
    "kill-qemu",
    "freeze-qemu",
)
"""What strikes a VM in post-copy."""
_SILENT = ("freeze-libvirtd", "freeze-libvirtd", "link-down")
_GIVEN_UP_AT = ("memory", "memory", "switch", "switch", "reconcile", "cleanup")
_STRICT_ALONE = ("committed", "intended:allow-run", "given:allow-run")
"""Where a controller dies whose move is taken over by force, from a host that falls silent then."""
_OFTEN = ("kill-qemu", "freeze-libvirtd", "kill-libvirtd", "kill-conductor")


def schedule(seed: int, number: int) -> dict[str, Any]:
    """Return the schedule of that number: the same one for the same seed, always."""
    draw = random.Random(f"lab/{seed}/{number}")
    fault = draw.choice((*FAULTS, *_OFTEN))
    told: dict[str, Any] = {
        "backend": BACKEND,
        "seed": seed,
        "number": number,
        "performance_option": str(draw.choice(list(PerformanceOption))),
        "encryption": draw.random() < 0.5,
        "fault": None if draw.random() < 0.06 else fault,
        "side": draw.choice(SIDES),
        "moment": _moment(draw, fault),
        "for_s": draw.choice(_SECONDS),
        "network": draw.choice(("migration", "management")),
        "direction": draw.choice(("to", "from")),
        "rate_mbit_s": draw.choice((1, 20)),
        "place": draw.choice(("shared", "store", "home")),
        "cancel_at": str(draw.choice(_CANCELS)) if draw.random() < 0.08 else None,
        "stop_goes_first": draw.random() < 0.5,
        "hand_over": str(HandOver.STRICT),
        "post_copy": str(PostCopy.OFF),
        "force": False,
    }
    kind = draw.random()
    if kind < 0.25:
        _with_post_copy(draw, told)
    elif kind < 0.5:
        told["hand_over"] = str(HandOver.DELEGATED)
    if 0.15 < kind < 0.35:
        _with_force(draw, told)
    return told


def _with_post_copy(draw: random.Random, told: dict[str, Any]) -> None:
    """Let a move use post-copy, most often slow enough for something to happen in it."""
    told["post_copy"] = str(draw.choice((PostCopy.ALLOWED, PostCopy.ALLOWED, PostCopy.ON_PASS_LIMIT)))
    told["hand_over"] = None
    told["performance_option"] = str(draw.choice((PerformanceOption.TCPIP, PerformanceOption.COMPRESSION)))
    told["cancel_at"] = str(Kind.DESTINATION_RAN) if draw.random() < 0.1 else None
    if draw.random() < 0.8:
        told["fault"] = draw.choice(_IN_HALVES) if told["fault"] else None
        told["moment"] = {"way": "post-copy"}
        told["network"] = "migration" if draw.random() < 0.8 else "management"
        told["for_s"] = draw.choice((0.3, 2.0, 5.0, 12.0))


def _with_force(draw: random.Random, told: dict[str, Any]) -> None:
    """Let the controller die and a host fall silent, to be cut off by force and switched on again."""
    told |= {"force": True, "fault": draw.choice(_SILENT), "network": "management", "cancel_at": None}
    strict = told["hand_over"] == HandOver.STRICT
    more = _STRICT_ALONE if strict else ("post-copy",) * 3 if told["post_copy"] != PostCopy.OFF else ()
    told["moment"] = {"way": "given-up", "name": draw.choice((*_GIVEN_UP_AT, *more))}


def _moment(draw: random.Random, fault: str) -> dict[str, str]:
    way = draw.choice(_WAYS)
    if not FAULTS[fault].needs and way == "before":
        way = "event"
    if Needs.VM in FAULTS[fault].needs and way == "before":
        way = "held"
    match way:
        case "event":
            return {"way": way, "kind": str(draw.choice((*_EVENTS, *_EVENTS_LATE)))}
        case "qmp":
            return {"way": way, "state": draw.choice(_STATES)}
        case "stop":
            return {"way": way, "name": draw.choice(_STOPS)}
        case _:
            return {"way": way}
