"""Moves that conductors in the test's own process make, kept until the test is over (`tests.traced`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from refimpl.model.events import Event

if TYPE_CHECKING:
    from tests.handover_model.world import Options

T = TypeVar("T")


@dataclass(frozen=True)
class Move:
    """The events of all conductors of one move, perhaps still to come; its guards where the events do not tell them."""

    events: list[Event]
    guards: Options | None = None


MOVES: list[Move] = []
LEFT_OUT: list[str] = []
"""Why moves are not to be checked, one reason each."""


def record(events: list[Event], guards: Options | None = None, not_modelled: str = "") -> None:
    """Have a move checked when the test is over, unless there is a reason why no model of hosts has it."""
    if not_modelled:
        LEFT_OUT.append(not_modelled)
    else:
        MOVES.append(Move(events, guards))


def taken(things: list[T]) -> list[T]:
    """Take everything out of one of the lists above."""
    found = list(things)
    things.clear()
    return found
