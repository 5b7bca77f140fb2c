"""The benches that every contract test runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from refimpl.model.request import HandOver
from tests.contract.benches import OpaqueHarness, SimulatedHarness
from tests.contract.harness import Bench, Harness
from tests.contract.libvirt_bench import GUEST, Bed, LibvirtHarness
from tests.lab.libvirt_support import made_lab, make_vm, placed

HARNESSES: dict[str, Callable[[], Harness]] = {
    "simulated-strict": SimulatedHarness,
    "simulated-delegated": lambda: SimulatedHarness(hand_over=HandOver.DELEGATED),
    "simulated-jitter": lambda: SimulatedHarness(jitter=0.3, seed=11),
    "opaque": OpaqueHarness,
}
LAB_HARNESSES: dict[str, Callable[[Bed], Harness]] = {"libvirt": LibvirtHarness}
"""Harnesses that need a lab; their tests carry the marker `lab`."""

_ALL = [pytest.param(make, id=name) for name, make in HARNESSES.items()] + [
    pytest.param(make, id=name, marks=pytest.mark.lab) for name, make in LAB_HARNESSES.items()
]


@pytest.fixture(scope="package")
def bed() -> Iterator[Bed]:
    """One lab and one guest for all contract tests, down again when the last of them is over."""
    with made_lab() as lab, placed(lab) as group:
        yield Bed(lab, make_vm(group, group.hosts[0], "web", **GUEST))


@pytest.fixture(params=_ALL)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A fresh pair of hosts under one backend."""
    lab = request.param in LAB_HARNESSES.values()
    harness: Harness = request.param(request.getfixturevalue("bed")) if lab else request.param()
    yield Bench(harness)
    harness.close()
