"""A host without a fence is a warning before a move, and no reason to refuse it."""

from __future__ import annotations

import pytest

from refimpl.model.events import Kind
from refimpl.model.fencing import NONE, FenceSetting
from refimpl.model.phase import Side
from tests.builders import facts, settings
from tests.judging import judged


@pytest.mark.error("fence.missing")
@pytest.mark.parametrize(("host", "side"), [("a", Side.SOURCE), ("b", Side.DESTINATION)])
def test_a_host_without_a_fence_is_warned_of(host: str, side: Side) -> None:
    without = {host: settings(fence=FenceSetting(NONE))}
    made = judged(facts(settings={"a": settings(), "b": settings(), **without}))
    assert made.kind is Kind.CHECKS_PASSED
    (warning,) = made.values["warnings"]
    assert (warning.id, warning.host, warning.side) == ("fence.missing", host, side)


def test_an_agent_is_a_fence_tried_or_not() -> None:
    agents = {host: settings(fence=FenceSetting("/usr/sbin/fence_x")) for host in ("a", "b")}
    assert judged(facts(settings=agents)).values["warnings"] == ()
