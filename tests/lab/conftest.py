"""One lab with one working guest for all tests of whole moves; each test has to leave it as it found it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from refimpl.lab import Lab, leftovers
from tests.lab.lab_support import state_directory
from tests.lab.libvirt_support import make_lab, make_vm, placed
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
