"""The benches that every contract test runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from refimpl.model.request import HandOver
from tests.contract.benches import OpaqueHarness, SimulatedHarness
from tests.contract.harness import Bench, Harness

HARNESSES: dict[str, Callable[[], Harness]] = {
    "simulated-strict": SimulatedHarness,
    "simulated-delegated": lambda: SimulatedHarness(hand_over=HandOver.DELEGATED),
    "simulated-jitter": lambda: SimulatedHarness(jitter=0.3, seed=11),
    "opaque": OpaqueHarness,
}
LAB_HARNESSES: dict[str, Callable[[], Harness]] = {}
"""Harnesses that need a lab; their tests carry the marker `lab`."""

_ALL = [pytest.param(make, id=name) for name, make in HARNESSES.items()] + [
    pytest.param(make, id=name, marks=pytest.mark.lab) for name, make in LAB_HARNESSES.items()
]


@pytest.fixture(params=_ALL)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A fresh pair of hosts under one backend."""
    harness: Harness = request.param()
    yield Bench(harness)
    harness.close()
