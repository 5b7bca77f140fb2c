"""A real move as published: every event as the schemas say, and a page whose figures are those of the outcome."""

from __future__ import annotations

import pytest

from refimpl.app.report import operation_report
from refimpl.report.story import stand_stills
from refimpl.report.words import duration
from tests.lab.moving import Moving
from tests.unit.report.pages import Page
from tests.unit.report.published import problems_of

pytestmark = pytest.mark.lab


def test_a_real_move_is_as_published_and_has_a_page(moving: Moving) -> None:
    operation = moving.start()
    outcome = operation.wait()
    assert outcome.completed
    data = operation_report(moving.home.find(operation.id))
    for event in data.events:
        assert problems_of("event", event) == []
    (still,) = stand_stills(data.events)
    assert still.ms == pytest.approx(outcome.blackout_ms)
    page = Page(data)
    assert page.figures()["blackout"] == duration(outcome.blackout_ms)
    assert f"--lab {moving.group.name} -- {moving.spec.name}" in page.section("again")
    assert "libvirt 1" in page.section("environment")
    assert "ok" in page.section("checks")
