"""Each row of the fault tables in a real lab: its fault at its moment, one owner at the end, and the end as it is told.

The cases are records (`tests.fault_table`), from which `docs/fault-table.md` is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from refimpl.meter.disk import disk_verdict
from refimpl.meter.verdict import State
from refimpl.model.phase import Phase, Side
from refimpl.model.storage import StorageWish
from tests.fault_table import Case, Lives, cases_here
from tests.healing import Healing
from tests.lab.faulted import played
from tests.lab.libvirt_support import network_kept
from tests.lab.moving import Moving, joined_log
from tests.lab.storing import Storing, storing_guest

pytestmark = pytest.mark.lab

UNDECIDED_S = 400


def cases(disk: Lives) -> list[object]:
    """Return the cases of a kind of disk, as parameters named by row and case."""
    return [pytest.param(id, id=id, marks=list(marks(case))) for id, case in cases_here() if case.disk is disk]


def marks(case: Case) -> Iterator[pytest.MarkDecorator]:
    """Yield the marks of a case: an undecided end comes when a silent host has had its two minutes."""
    if case.full:
        yield pytest.mark.full
    if case.end is Phase.INDETERMINATE:
        yield pytest.mark.timeout(UNDECIDED_S)


@pytest.fixture(scope="module")
def storing_guests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Healing[Storing]]:
    """A lab of this module's own, with a guest whose disk is its host's; made when the first test wants it."""
    what = "the guest with a disk of its own, with its lab,"
    made = Healing(what, lambda: storing_guest(tmp_path_factory.mktemp("storing")), look=Storing.whole)
    with closing(made) as guests:
        yield guests


@pytest.fixture
def storing(storing_guests: Healing[Storing], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storing]:
    """The running guest with a disk of its own, in one place before the test and after it, with nothing left behind."""
    with network_kept(), storing_guests.lent(request.node) as storing:
        storing.settle_in(tmp_path)
        yield storing


@pytest.mark.rule("R1", "R2", "R19")
@pytest.mark.parametrize("id", cases(Lives.SHARED))
def test_row(moving: Moving, id: str) -> None:
    played(moving, id)
    written = disk_verdict(joined_log(moving), Path(moving.spec.disk_path))
    assert written.state is State.OK, written


@pytest.mark.rule("R1", "R2", "R3", "R17", "R19")
@pytest.mark.parametrize("id", cases(Lives.OWN))
def test_row_with_its_disk(storing: Storing, id: str) -> None:
    """The disk moves to another path, so that only the lease, or strict hand-over, excludes a second copy."""

    def by_itself(destination: str) -> dict[str, Any]:
        return {"storage": StorageWish(include=True, destination_path=storing.new_directory(destination))}

    before = storing.files(storing.place())
    host, struck = played(storing, id, by_itself)
    (path,) = storing.files(host)
    if host == struck.hosts[Side.DESTINATION]:
        assert {path} != before
    assert storing.files(storing.other()) == set()
    storing.whole_disk(storing.local(host) / path)
