"""A move that meets a case of the fault table, and everything that has to hold of it and after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from refimpl.app.leases import mend_leases
from refimpl.app.operations import Operation
from refimpl.backends.libvirt import vms
from refimpl.backends.libvirt.backend import LibvirtBackend
from refimpl.engine.store import GroupStore
from refimpl.meter.heartbeat import continuity
from refimpl.model.facts import VmState
from refimpl.model.phase import Phase, Side
from tests.fault_table import CASES, Then, as_told
from tests.lab.libvirt_support import host_of, wait_for_lines
from tests.lab.moving import Moving, joined_log
from tests.lab.striking import Struck
from tests.soak.lab_observer import Observer

ATTEMPTS = 5
"""How often a case is played whose moment may have gone by before it is heard."""


def played(moving: Moving, id: str, changes: Callable[[str], dict[str, Any]] = lambda _: {}) -> tuple[str, Struck]:
    """Play a case to its end, and to the end of what a person does then; return the host that has the VM.

    `changes`: what the move is asked for besides, by its destination.
    """
    case = CASES[id]
    with one_copy(moving):
        struck = _struck(moving, id, changes)
        operation, source = struck.operation, struck.hosts[Side.SOURCE]
        assert operation is not None
        as_told(id, operation.wait(), list(operation.events()))
        blamed(operation, source)
        for step in case.then:
            _STEPS[step](struck)
    host = source if case.vm_at is not Side.DESTINATION else struck.hosts[Side.DESTINATION]
    assert moving.states() == {host: VmState.RUNNING}
    if case.end not in (Phase.LOST, Phase.INDETERMINATE):
        assert operation.wait().runs_on == host
    owned_by(moving, host)
    return host, struck


def _struck(moving: Moving, id: str, changes: Callable[[str], dict[str, Any]]) -> Struck:
    for _ in range(ATTEMPTS):
        struck = Struck(moving, CASES[id])
        outcome = struck.play(**changes(struck.hosts[Side.DESTINATION])).wait()
        if not struck.too_late():
            return struck
        assert outcome.completed, outcome
    raise AssertionError(f"in {ATTEMPTS} moves the source was answered before the daemon was struck")


def blamed(operation: Operation, source: str) -> None:
    """What made the transfer fail is told in the words of the system below, which told it at the source."""
    for problem in operation.wait().problems:
        if problem.id == "transfer.failed":
            assert (problem.side, problem.host) == (Side.SOURCE, source)
            assert problem.native is not None
            assert problem.native.text


@contextmanager
def one_copy(moving: Moving) -> Iterator[None]:
    """No two copies run meanwhile: by the kernel's account of their processors, and by what the guest numbers."""
    log = joined_log(moving)
    boot = log.boots[-1]
    before = continuity(log, boot).duplicated
    with Observer(moving.lab, moving.spec.name) as observer:
        yield
    assert observer.seen.looks > 0
    assert observer.seen.both == []
    assert continuity(joined_log(moving), boot).duplicated == before


def owned_by(moving: Moving, host: str) -> None:
    """The owner record names one host, and no move is under way."""
    record = GroupStore(Path(moving.group.store_path)).owner(moving.spec.id)
    assert record is not None
    assert (record.owner, record.pending) == (host, None)


def _recover(struck: Struck) -> None:
    assert struck.moving.recover().end is struck.case.recovered


def _mend(side: Side) -> Callable[[Struck], None]:
    def mend(struck: Struck) -> None:
        moving = struck.moving
        with closing(LibvirtBackend(moving.group, lambda _: None, time.time_ns)) as backend:
            assert mend_leases(moving.lab, struck.hosts[side], backend).whole

    return mend


def _start(struck: Struck) -> None:
    moving, host = struck.moving, struck.hosts[Side.SOURCE]
    assert moving.states() == {host: VmState.OFF}
    vms.start(host_of(moving.group, host), moving.spec.name)
    wait_for_lines(host_of(moving.group, host), moving.spec.name, 50)


_STEPS: Mapping[Then, Callable[[Struck], None]] = {
    Then.RECOVER: _recover,
    Then.START: _start,
    Then.MEND_SOURCE: _mend(Side.SOURCE),
    Then.MEND_DESTINATION: _mend(Side.DESTINATION),
}
