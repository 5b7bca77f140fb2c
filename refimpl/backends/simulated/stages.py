"""How far a simulated transfer can be, and what its native call returns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from refimpl.model.errors import Problem
from refimpl.model.request import Plan


class Stage(IntEnum):
    """How far a transfer is. FINISH: arrived, the source may still take it back. BOUND: it may not.

    POST_COPY, of some only and then instead of FINISH: runs at the destination, part of the memory is at the source.
    """

    STARTING = 0
    STORAGE = 1
    MEMORY = 2
    SWITCH = 3
    POST_COPY = 4
    FINISH = 5
    BOUND = 6
    OVER = 7


@dataclass(frozen=True)
class Result:
    """What the native call returns."""

    ok: bool
    problem: Problem | None
    sent_bytes: int
    qemu_downtime_ms: float | None


def cancelled(plan: Plan) -> Problem:
    """Return the problem with which a move ends that was broken off on request."""
    return Problem(id="transfer.cancelled", values={"vm": plan.vm, "source": plan.source})
