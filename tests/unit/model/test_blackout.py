"""The blackout of a move: from the last STOP that was not taken back to the first RESUME at the destination."""

from __future__ import annotations

import pytest

from refimpl.model.events import Event, Kind
from refimpl.model.learning import record
from refimpl.model.ledger import Ledger
from refimpl.model.outcome import outcome
from refimpl.model.phase import Phase
from tests.builders import ledger

STOP, BACK, RAN = Kind.SOURCE_STOPPED, Kind.SOURCE_RESUMED, Kind.DESTINATION_RAN


def told(*events: tuple[Kind, int]) -> Ledger:
    """Return what is known after these events, each with its time in milliseconds."""
    known = ledger(qemu_downtime_ms=999.0)
    for kind, at_ms in events:
        values = {"port_ms": float(at_ms)} if kind is RAN else {}
        known = record(known, Event(kind, at_ms * 1_000_000, values), Phase.SWITCH)
    return known


@pytest.mark.rule("R18")
@pytest.mark.parametrize(
    ("events", "blackout_ms"),
    [
        (((STOP, 100), (RAN, 130)), 30.0),
        (((STOP, 100), (RAN, 130), (RAN, 200)), 30.0),
        (((STOP, 100), (BACK, 110), (STOP, 150), (RAN, 190)), 40.0),
        (((STOP, 100), (STOP, 120), (RAN, 130)), 10.0),
        (((STOP, 100), (BACK, 110), (RAN, 190)), None),
        (((STOP, 100), (BACK, 110)), None),
        (((STOP, 100),), None),
        (((RAN, 130),), None),
        ((), None),
    ],
    ids=["plain", "a second RESUME", "a stop taken back", "a second stop", "back", "failed", "stop", "ran", "nothing"],
)
def test_a_stop_taken_back_and_a_second_resume_do_not_count(
    events: tuple[tuple[Kind, int], ...], blackout_ms: float | None
) -> None:
    made = outcome(told(*events), Phase.COMPLETED)
    assert made.blackout_ms == blackout_ms
    assert made.qemu_downtime_ms == 999.0, "QEMU's own figure is another one"


@pytest.mark.rule("R18")
def test_what_the_port_took_is_of_the_resume_that_counts() -> None:
    assert outcome(told((STOP, 1), (RAN, 2), (RAN, 3)), Phase.COMPLETED).port_ms == 2.0
