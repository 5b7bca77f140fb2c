"""Random schedules of real moves: mode, fault, side, moment and time, all by seed and number.

A schedule says *source* and *destination*, not hosts: where the VM is by then depends on how the moves before it ended.
"""

from __future__ import annotations

import random
from typing import Any

from refimpl.faults import FAULTS
from refimpl.faults.catalogue import Needs
from refimpl.model.events import Kind
from refimpl.model.request import PerformanceOption

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
    }
    return told


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
