"""A controller that is killed between the stop of a silent source's QEMU and its end, and what recovery makes of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from refimpl.app.operations import Operation
from refimpl.app.recovery import recover_one
from refimpl.backends.libvirt.ending import STOPPED_POINT
from refimpl.backends.libvirt.status import process_stopped, read_status
from refimpl.faults import FAULTS, Inflicted, Target
from refimpl.faults.moments import arrived, on_native
from refimpl.hosts.factory import channel_for
from refimpl.model.events import Kind
from refimpl.model.facts import VmState
from refimpl.model.outcome import Outcome
from tests.lab.faulted import ATTEMPTS, one_copy, owned_by
from tests.lab.libvirt_support import host_of
from tests.lab.moving import Moving, kinds, until, wait_for

pytestmark = [pytest.mark.lab, pytest.mark.full]


def stopped(moving: Moving, host: str) -> bool:
    """Whether the QEMU of the VM on a host was stopped."""
    channel = channel_for(host_of(moving.group, host))
    seen = read_status(channel, moving.spec.name)
    return seen is not None and process_stopped(channel, seen.pid)


@contextmanager
def left_stopped(moving: Moving) -> Iterator[Operation]:
    """Kill a controller in between; the source's daemon is frozen until the end of the block."""
    for _ in range(ATTEMPTS):
        source, destination = moving.place(), moving.other()
        with Inflicted(moving.lab, FAULTS["freeze-libvirtd"], Target(host=source)) as frozen:
            frozen.aim()
            operation = killed_in_between(moving, destination, frozen)
            if operation is not None:
                assert stopped(moving, source)
                yield operation
                return
    raise AssertionError(f"in {ATTEMPTS} moves the source was bound before its daemon was frozen")


def killed_in_between(moving: Moving, destination: str, frozen: Inflicted) -> Operation | None:
    teller = host_of(moving.group, destination)
    with moving.stop_at(STOPPED_POINT) as stop, on_native(teller, moving.spec.id, arrived, frozen.strike):
        operation = moving.start(destination=destination)
        until(lambda: stop.marker.exists() or not operation.alive(), "the stop, or the end")
        if not stop.marker.exists():
            return None
        os.kill(stop.reached(), signal.SIGKILL)
        until(lambda: not operation.alive(), "the end of the conductor")
    return operation


def judge(moving: Moving, source: str, destination: str, outcome: Outcome) -> None:
    print(f"ended as {outcome.end}")
    host = destination if outcome.completed else source
    assert moving.states() == {host: VmState.RUNNING}, outcome
    owned_by(moving, host)
    moving.works()
    moving.nothing_left()


@pytest.mark.rule("R1", "R2")
@pytest.mark.parametrize("journal", [True, False], ids=["with journal", "without journal"])
def test_its_daemon_is_silent_still(moving: Moving, journal: bool) -> None:
    source, destination = moving.place(), moving.other()
    with one_copy(moving):
        with left_stopped(moving) as operation:
            if not journal:
                moving.forget_journal(operation)
            (item,) = moving.interrupted(marks=False)
            recovery = recover_one(moving.home, moving.group, item)
            wait_for(recovery, Kind.SOURCE_GOES_ON)
            assert not stopped(moving, source)
        judge(moving, source, destination, recovery.wait())


@pytest.mark.rule("R1", "R2")
def test_its_daemon_answers_again(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    with one_copy(moving):
        with left_stopped(moving):
            pass
        recovered(moving, source, destination)


@pytest.mark.rule("R1", "R2")
def test_its_daemon_was_started_again(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    with one_copy(moving):
        with left_stopped(moving), Inflicted(moving.lab, FAULTS["kill-libvirtd"], Target(host=source)) as killed:
            killed.aim()
            killed.strike()
        recovered(moving, source, destination)


def recovered(moving: Moving, source: str, destination: str) -> None:
    (item,) = moving.interrupted(marks=False)
    recovery = recover_one(moving.home, moving.group, item)
    outcome = recovery.wait()
    print(f"went on: {Kind.SOURCE_GOES_ON in kinds(recovery)}")
    judge(moving, source, destination, outcome)
