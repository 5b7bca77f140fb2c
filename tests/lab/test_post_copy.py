"""Post-copy of a real guest: P0, a broken one that is recovered (P1b, P4), a killed daemon (K7), a dead source (P5).

Held by a bandwidth of 1 MiB per second (libvirt-qemu 9.3), which counts after the switch, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from refimpl.app.operations import Operation
from refimpl.app.recovery import recover_one
from refimpl.backends.libvirt import vms
from refimpl.backends.libvirt.monitor import monitor
from refimpl.faults import FAULTS, Target, inflicted
from refimpl.hosts.factory import channel_for
from refimpl.model.events import Kind
from refimpl.model.facts import VmState
from refimpl.model.phase import Phase, Side
from refimpl.model.request import PerformanceOption, PostCopy
from tests.lab.libvirt_support import host_of
from tests.lab.moving import Moving, kinds, wait_for

pytestmark = pytest.mark.lab


@contextmanager
def in_post_copy(moving: Moving, **changes: Any) -> Iterator[Operation]:
    """Start a move and keep it in post-copy; what is not ended in the block goes on at full speed."""
    option = PerformanceOption.TCPIP
    operation = moving.start(post_copy=PostCopy.ALLOWED, bandwidth_mib_s=1, performance_option=option, **changes)
    wait_for(operation, Kind.MEMORY_SEEN)
    operation.start_post_copy()
    wait_for(operation, Kind.DESTINATION_RAN)
    yield operation


def qmp(moving: Moving, host: str, command: str, *, oob: bool = False) -> Any:
    """Ask the QEMU on a host beside libvirt."""
    with monitor(channel_for(host_of(moving.group, host)), moving.spec.id) as own:
        return own.execute(command, oob=oob)


def told(outcome: Any) -> list[str]:
    return [problem.id for problem in (*outcome.problems, *outcome.warnings)]


def test_the_vm_runs_there_at_once_and_its_memory_follows(moving: Moving) -> None:
    source = moving.place()
    with in_post_copy(moving) as operation:
        operation.cancel()
        wait_for(operation, Kind.CANCEL_TOO_LATE)
        operation.set_bandwidth(0)
    outcome = operation.wait()
    assert (outcome.end, told(outcome)) == (Phase.COMPLETED_WITH_WARNINGS, ["cancel.too_late"])
    assert outcome.runs_on == moving.place() != source
    assert outcome.post_copy_ms is not None
    assert outcome.blackout_ms is not None
    assert kinds(operation).count(Kind.POSTCOPY_ENDED) == 1
    moving.whole()


@pytest.mark.full
def test_broken_and_recovered_as_often_as_it_takes(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    with in_post_copy(moving) as operation:
        qmp(moving, source, "migrate-pause", oob=True)
    outcome = operation.wait()
    assert (outcome.end, outcome.runs_on) == (Phase.POSTCOPY_PAUSED, destination)
    assert "post_copy.paused" in told(outcome)
    assert moving.states() == {source: VmState.PAUSED, destination: VmState.RUNNING}
    again = start_recovery(moving)
    wait_for(again, Kind.POSTCOPY_RESUMED)
    qmp(moving, destination, "migrate-pause", oob=True)
    outcome = again.wait()
    assert (outcome.end, outcome.runs_on) == (Phase.POSTCOPY_PAUSED, destination)
    last = start_recovery(moving)
    last.set_bandwidth(0)
    outcome = last.wait()
    assert (outcome.end, told(outcome)) == (Phase.COMPLETED, [])
    assert moving.place() == destination
    moving.whole()


@pytest.mark.full
def test_a_network_that_is_cut_is_recovered_only_when_it_is_back(moving: Moving) -> None:
    """The guest goes on until it needs a page; then its QEMU's main loop may stand still, and takes no new client."""
    source, destination = moving.place(), moving.other()
    with in_post_copy(moving) as operation:
        cut = Target(host=destination, network="migration")
        with inflicted(moving.lab, FAULTS["link-down"], cut):
            assert operation.wait().end is Phase.POSTCOPY_PAUSED
            early = start_recovery(moving).wait()
            assert early.end is Phase.POSTCOPY_PAUSED
            assert "post_copy.not_resumed" in told(early)
        again = start_recovery(moving)
        wait_for(again, Kind.POSTCOPY_RESUMED)
        again.set_bandwidth(0)
    outcome = again.wait()
    assert (outcome.end, told(outcome)) == (Phase.COMPLETED, [])
    assert moving.states() == {destination: VmState.RUNNING}
    assert source != destination
    moving.whole()


def start_recovery(moving: Moving) -> Operation:
    (item,) = moving.interrupted()
    return recover_one(moving.home, moving.group, item)


@pytest.mark.full
@pytest.mark.parametrize("side", [Side.DESTINATION, Side.SOURCE], ids=["K7", "K8"])
def test_a_daemon_that_is_killed_ends_nothing(moving: Moving, side: Side) -> None:
    source, destination = moving.place(), moving.other()
    host = source if side is Side.SOURCE else destination
    with in_post_copy(moving) as operation, inflicted(moving.lab, FAULTS["kill-libvirtd"], Target(host=host)):
        wait_for(operation, Kind.CALL_RETURNED)
    wait_for(operation, Kind.ADOPTED_POSTCOPY)
    operation.set_bandwidth(0)
    outcome = operation.wait()
    assert (outcome.end, outcome.problems) == (Phase.COMPLETED, ())
    assert moving.place() == destination
    moving.whole()


@pytest.mark.full
@pytest.mark.parametrize("side", [Side.SOURCE, Side.DESTINATION], ids=["P5", "P6"])
def test_without_one_half_the_vm_is_lost_and_it_is_said_which(moving: Moving, side: Side) -> None:
    source, destination = moving.place(), moving.other()
    host = source if side is Side.SOURCE else destination
    with in_post_copy(moving) as operation:
        target = Target(host=host, vm=moving.spec.name)
        with inflicted(moving.lab, FAULTS["kill-qemu"], target):
            outcome = operation.wait()
    assert (outcome.end, outcome.runs_on) == (Phase.LOST, None)
    (lost,) = [problem for problem in outcome.problems if problem.id == "owner.lost"]
    assert f"the {side}'s process is gone" in str(lost.values["detail"])
    assert moving.states() == {source: VmState.OFF}
    if "cleanup.left_behind" in told(outcome):
        # libvirt 11.3 keeps the job of a post-copy whose end it hears of from the other side first.
        with inflicted(moving.lab, FAULTS["kill-libvirtd"], Target(host=source)):
            pass
        outcome = start_recovery(moving).wait()
        assert (outcome.end, outcome.warnings) == (Phase.LOST, ())
    vms.start(host_of(moving.group, source), moving.spec.name)
    moving.whole()
