"""What tests on a lab begin with: the `moving` guest, or a lab of a module with a VM and a driver for each test.

One lab with one working guest is for all tests of whole moves; each of them has to leave it as it found it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from refimpl.backends.libvirt.domain import VmSpec
from refimpl.lab import Lab, leftovers
from refimpl.model.group import Group
from tests.lab.lab_support import state_directory
from tests.lab.libvirt_support import Driver, driven, made_lab, made_vm, make_lab, make_vm, placed, plan_of
from tests.lab.moving import Moving


@pytest.fixture(scope="session")
def moving_lab() -> Iterator[Lab]:
    with state_directory() as root:
        lab = make_lab(root)
        try:
            yield lab
        finally:
            lab.down()
            assert leftovers(lab.id, root) == []


@pytest.fixture(scope="session")
def moving_session(moving_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moving]:
    with placed(moving_lab) as group:
        observer = group.labels["observer_address"]
        spec = make_vm(group, group.hosts[0], name="web", observer_address=observer)
        yield Moving(moving_lab, spec, tmp_path_factory.mktemp("moving"))


@pytest.fixture
def moving(moving_session: Moving, tmp_path: Path) -> Iterator[Moving]:
    """The running guest, in one place before the test and in one place after it, with nothing left behind."""
    moving_session.directory = tmp_path
    moving_session.home = type(moving_session.home)(tmp_path / "home")
    moving_session.place()
    yield moving_session
    assert "REFIMPL_TEST_STOP" not in os.environ
    moving_session.works()
    moving_session.nothing_left()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab of two hosts for one module."""
    with made_lab() as lab:
        yield lab


@pytest.fixture
def group(lab: Lab) -> Iterator[Group]:
    """The lab's hosts, with the calling thread in the management network."""
    with placed(lab) as group:
        yield group


@pytest.fixture
def spec(group: Group) -> Iterator[VmSpec]:
    """A VM of this test that runs on the first host."""
    with made_vm(group, "h1") as spec:
        yield spec


@pytest.fixture
def driver(group: Group, spec: VmSpec) -> Iterator[Driver]:
    """A driver of an operation that is to move it to the second host."""
    with driven(group, plan_of(group, spec, "h1", "h2")) as driver:
        yield driver
