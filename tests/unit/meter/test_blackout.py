from __future__ import annotations

from typing import Any

import pytest

from refimpl.meter.blackout import blackout
from refimpl.meter.verdict import State
from refimpl.model.events import Event, Kind


def seen(kind: str, host: str, at_ms: int) -> dict[str, Any]:
    return {"kind": kind, "host": host, "at_ns": at_ms * 1_000_000}


def stop(at_ms: int, host: str = "a") -> dict[str, Any]:
    return seen("source-stopped", host, at_ms)


def ran(at_ms: int, host: str = "b") -> dict[str, Any]:
    return seen("destination-ran", host, at_ms)


def resumed(at_ms: int) -> dict[str, Any]:
    return seen("source-resumed", "a", at_ms)


def test_it_is_the_time_from_stop_to_run():
    assert blackout([stop(100), ran(325)], "a", "b").figures["blackout_ms"] == 225


def test_a_destination_that_ran_500_ms_later_adds_just_that():
    assert blackout([stop(100), ran(825)], "a", "b").figures["blackout_ms"] == 725


def test_an_attempt_that_was_taken_back_does_not_count():
    assert blackout([stop(100), resumed(150), stop(400), ran(450)], "a", "b").figures["blackout_ms"] == 50


@pytest.mark.parametrize(
    "events",
    [
        [stop(100)],
        [ran(325)],
        [],
        [stop(100), ran(325, host="c")],
        [stop(100, host="c"), ran(325)],
        [ran(100), stop(325)],
        [stop(100), resumed(150), ran(325)],
    ],
)
def test_it_refuses_when_an_event_is_missing_or_the_order_is_impossible(events):
    verdict = blackout(events, "a", "b")
    assert (verdict.state, "blackout_ms" in verdict.figures) == (State.NOT_MEASURED, False)


def test_it_reads_the_engine_s_events():
    events = [Event(Kind.SOURCE_STOPPED, 1_000_000, host="a"), Event(Kind.DESTINATION_RAN, 3_500_000, host="b")]
    assert blackout([event.to_json() for event in events], "a", "b").figures["blackout_ms"] == 2.5
