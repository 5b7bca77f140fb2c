"""What tests on a lab begin with: the `moving` guest for whole moves, or a module's guest and a driver of the seam.

One lab with one working guest is for all tests of whole moves; each of them has to leave it as it found it. That of a
module may be left half-way, and is put in order after each test. What could not be is made anew for the next test.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from refimpl.backends.libvirt.domain import VmSpec
from refimpl.lab import Lab
from refimpl.model.group import Group
from tests.healing import Healing
from tests.lab.bed import Bed
from tests.lab.libvirt_support import Driver, driven, made_lab, make_vm, network_kept, placed, plan_of
from tests.lab.moving import Moving, guests_that_move


@pytest.fixture(scope="session")
def moving_guests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Healing[Moving]]:
    with closing(guests_that_move(tmp_path_factory)) as guests:
        yield guests


@pytest.fixture
def moving(moving_guests: Healing[Moving], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Moving]:
    """The running guest, in one place before the test and in one place after it, with nothing left behind."""
    with network_kept(), moving_guests.lent(request.node) as moving:
        moving.settle_in(tmp_path)
        yield moving


@pytest.fixture
def moving_lab(moving: Moving) -> Lab:
    """The lab of the running guest."""
    return moving.lab


@contextmanager
def _made_bed() -> Iterator[Bed]:
    with made_lab() as lab, placed(lab) as group:
        yield Bed(lab, make_vm(group, group.hosts[0], "odd & <name>"))


@pytest.fixture(scope="module")
def beds() -> Iterator[Healing[Bed]]:
    with closing(Healing("the lab of this module", _made_bed, look=Bed.tidy)) as beds:
        yield beds


@pytest.fixture
def bed(beds: Healing[Bed], request: pytest.FixtureRequest) -> Iterator[Bed]:
    """A lab of two hosts with a guest that runs on one of them; the calling thread is in the management network."""
    with beds.lent(request.node) as bed:
        yield bed


@pytest.fixture
def lab(bed: Bed) -> Lab:
    """The lab."""
    return bed.lab


@pytest.fixture
def group(bed: Bed) -> Group:
    """The lab's hosts."""
    return bed.lab.group


@pytest.fixture
def spec(bed: Bed) -> VmSpec:
    """The VM that runs on one of them."""
    return bed.spec


@pytest.fixture
def driver(bed: Bed) -> Iterator[Driver]:
    """A driver of an operation that is to move it to the other host."""
    with driven(bed.lab.group, plan_of(bed.lab.group, bed.spec, bed.place(), bed.other())) as driver:
        yield driver
