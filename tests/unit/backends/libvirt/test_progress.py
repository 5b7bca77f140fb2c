"""Progress of a transfer, on a source made of fakes."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from refimpl.backends.libvirt import connection, progress
from refimpl.backends.libvirt.operation import Call, Operation, Reach
from refimpl.backends.libvirt.tap import Taps
from refimpl.model.events import Event, Kind
from refimpl.model.phase import Side
from tests.unit.backends.libvirt import recorded as r

pytest.importorskip("libvirt")

STATISTICS = {"memory_total": 100, "memory_remaining": 40, "memory_processed": 70, "memory_bps": 20}


class Source:
    """Answers as told, then with statistics."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def jobStats(self) -> Any:
        answer = self.answers.pop(0) if self.answers else STATISTICS
        if isinstance(answer, Exception):
            raise answer
        return answer


def told(source: Source, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[Event]:
    """Return what is told up to the first PROGRESS of a transfer of which a pass has just ended."""
    events: list[Event] = []
    enough = threading.Event()

    def post(event: Event) -> None:
        events.append(event)
        if event.kind is Kind.PROGRESS:
            operation.call = Call.RETURNED
            enough.set()

    plan = replace(r.PLAN, **changes)
    monkeypatch.setattr(progress, "PERIOD_S", 0.001)
    monkeypatch.setattr(connection.Connections, "to", lambda _self, host: host)
    monkeypatch.setattr(connection, "find", lambda _host, _id: source)
    reach = Reach(r.GROUP, plan, connection.Connections(), Taps(lambda: 0))
    operation = Operation("op", plan, reach, post, lambda: 0)
    operation.call = Call.RUNNING
    operation.watch.once(Kind.MEMORY_SEEN, 0, Side.SOURCE)
    operation.unmeasured = [Event(Kind.PASS_ENDED, 0, {"number": 1}, side=Side.SOURCE)]
    progress.start_progress(operation)
    assert enough.wait(20), "no progress was told"
    return events


def test_a_pass_is_told_with_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, reported = told(Source(), monkeypatch, cancel_if_blackout_exceeds_ms=100)
    assert (ended["number"], ended["remaining_bytes"], ended["bytes_s"]) == (1, 40, 20.0)
    assert reported["sent_bytes"] == 70


@pytest.mark.rule("R8")
def test_a_source_that_does_not_answer_for_a_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without progress a transfer is taken for stalled; without its passes it has no end."""
    ended, reported = told(Source(OSError("busy"), {}), monkeypatch, cancel_if_blackout_exceeds_ms=100)
    assert (ended["number"], ended["remaining_bytes"]) == (1, None)
    assert reported["sent_bytes"] == 70
