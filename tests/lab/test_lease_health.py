"""A lock daemon that dies: seen at once, moves refused or broken off, leases taken again in the order that works."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from refimpl.app.leases import mend_leases
from refimpl.app.vms import VmDesk
from refimpl.backends.libvirt import connection
from refimpl.backends.libvirt.backend import LibvirtBackend
from refimpl.backends.libvirt.domain import domain_xml
from refimpl.backends.libvirt.lock_watch import LockWatch
from refimpl.backends.libvirt.mend_leases import Did, HostMended
from refimpl.hosts import process
from refimpl.hosts.factory import channel_for
from refimpl.lab.layout import ROOT_VARIABLE
from refimpl.meter.heartbeat import continuity
from refimpl.model.errors import RefimplError
from refimpl.model.events import Kind
from refimpl.model.facts import VmState
from refimpl.model.phase import Phase, Side
from tests.fault_table import CASES, as_told
from tests.healing import Healing
from tests.lab.libvirt_support import host_of
from tests.lab.moving import TIMEOUT_S, Moving, guests_that_move, joined_log, kinds, until, wait_for

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def moving_guests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Healing[Moving]]:
    """A lab of this module's own: what its lock daemons went through is none of the other modules' affair."""
    with closing(guests_that_move(tmp_path_factory)) as guests:
        yield guests


LEASE_BUSY = 87


def end_lock_daemon(moving: Moving, host: str) -> None:
    """End the lock daemon of a host by SIGKILL, as no supervisor is there to start it again."""
    daemon = moving.lab.daemon(host, "virtlockd")
    assert daemon is not None
    assert process.kill(daemon)


def mended(moving: Moving, host: str) -> HostMended:
    """Mend a host's leases."""
    backend = LibvirtBackend(moving.group, lambda _: None, time.time_ns)
    try:
        return mend_leases(moving.lab, host, backend)
    finally:
        backend.close()


@contextmanager
def sound(moving: Moving) -> Iterator[None]:
    """Leave both hosts with their lock daemons, whatever happens inside."""
    try:
        yield
    finally:
        for host in moving.group.hosts:
            mended(moving, host.name)


def unleased(moving: Moving, host: str) -> tuple[bool, tuple[str, ...]]:
    """Return what the lab says of a host: whether it is healthy, and which VMs run without their lease."""
    (status,) = (status for status in moving.lab.status() if status.name == host)
    return status.healthy, status.without_lease


def starts_by_itself(moving: Moving) -> dict[str, int]:
    """Return which hosts have the VM and whether they start it by themselves."""
    found = {}
    for host in moving.group.hosts:
        with connection.fresh(host) as fresh:
            domain = connection.find(fresh, moving.spec.id)
            if domain is not None:
                found[host.name] = domain.autostart()
    return found


def start_by_itself(moving: Moving, host: str, on: int = 1) -> None:
    with connection.fresh(host_of(moving.group, host)) as fresh:
        fresh.lookupByUUIDString(moving.spec.id).setAutostart(on)


def second_copy_is_refused(moving: Moving, host: str) -> None:
    """Start a copy with another disk on the other host: nothing but the lease can refuse it, and it has to."""
    disk = Path(moving.spec.disk_path).with_suffix(".second")
    disk.write_bytes(bytes(1 << 20))
    entry = host_of(moving.group, host)
    xml = domain_xml(replace(moving.spec, disk_path=str(disk)), moving.group, entry)
    with connection.fresh(entry) as fresh:
        domain = fresh.defineXML(xml)
        try:
            with pytest.raises(connection.module().libvirtError) as refused:
                domain.create()
        finally:
            if domain.isActive():
                domain.destroy()
            domain.undefine()
            disk.unlink()
    assert connection.code(refused.value) == LEASE_BUSY


@contextmanager
def watching(moving: Moving) -> Iterator[queue.SimpleQueue[Side]]:
    """Watch the lock daemons of both hosts, the VM's as the source's."""
    told: queue.SimpleQueue[Side] = queue.SimpleQueue()
    watch = LockWatch(told.put)
    for side, host in ((Side.SOURCE, moving.place()), (Side.DESTINATION, moving.other())):
        assert watch.hold(side, channel_for(host_of(moving.group, host)))
    watch.start()
    try:
        yield told
    finally:
        watch.close()


@pytest.mark.rule("R1")
@pytest.mark.error("lease.not_held", "lock_daemon.down")
def test_a_lost_lease_is_seen_and_taken_again_while_the_guest_runs_on(moving: Moving) -> None:
    here, there = moving.place(), moving.other()
    boot = joined_log(moving).boots[-1]
    with sound(moving):
        with watching(moving) as told:
            moving.lab.host_power_off(there)
            moving.lab.host_power_on(there)
            end_lock_daemon(moving, here)
            # Told in their order: that a host has ended as a whole was passed over.
            assert told.get(timeout=TIMEOUT_S) is Side.SOURCE
            assert told.empty()
        assert unleased(moving, here) == (False, (moving.spec.name,))
        operation = moving.start()
        refused = operation.wait()
        as_told("V1-no-move", refused, list(operation.events()))
        assert all(f"refimpl lab mend {here}" in problem.mend for problem in refused.problems)
        found = mended(moving, here)
        assert (found.lock_daemon_started, found.libvirtd_restarted, found.whole) == (True, True, True)
        (vm,) = found.vms
        assert (vm.did, vm.resumed) == (Did.TAKEN, False)
        assert vm.pause_ms is not None
        assert vm.pause_ms > 0
        assert unleased(moving, here) == (True, ())
        second_copy_is_refused(moving, there)
        again = mended(moving, here)
        assert (again.lock_daemon_started, again.libvirtd_restarted) == (False, False)
        assert [one.did for one in again.vms] == [Did.HELD]
    assert moving.start().wait().end is Phase.COMPLETED
    moving.works()
    log = joined_log(moving)
    assert log.boots[-1] == boot
    seen = continuity(log, boot)
    assert (seen.lines_missing, seen.beats_missing, seen.duplicated) == (0, 0, 0)


@pytest.mark.rule("R1")
@pytest.mark.error("lease.left_locked")
def test_a_lease_that_was_taken_again_outlives_its_vm_and_is_given_back(moving: Moving) -> None:
    here = moving.place()
    with closing(LibvirtBackend(moving.group, lambda _: None, time.time_ns)) as backend, sound(moving):
        desk = VmDesk(moving.group, backend)
        end_lock_daemon(moving, here)
        mended(moving, here)
        desk.stop(moving.spec.name, force=True)
        status = next(status for status in moving.lab.status() if status.name == here)
        assert (status.healthy, status.left_locked) == (False, (moving.spec.id,))
        with pytest.raises(RefimplError) as refused:
            desk.start(moving.spec.name)
        assert [(p.id, p.host) for p in refused.value.problems] == [("lease.left_locked", here)]
        found = mended(moving, here)
        assert (found.released, found.left_locked, found.whole) == ((moving.spec.id,), (), True)
        desk.start(moving.spec.name)
        assert unleased(moving, here) == (True, ())
        moving.works()


@pytest.mark.rule("R1")
def test_a_mending_that_was_killed_while_the_guest_stood_still_is_finished_by_the_next(moving: Moving) -> None:
    here = moving.place()
    with sound(moving):
        end_lock_daemon(moving, here)
        with moving.stop_at("mend.paused") as stop:
            command = [sys.executable, "-m", "refimpl", "lab", "mend", here, "--lab", moving.lab.id]
            environment = os.environ | {ROOT_VARIABLE: str(moving.lab.paths.root)}
            mending = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
            assert stop.reached() == mending.pid
            mending.send_signal(signal.SIGKILL)
            mending.wait()
        assert moving.states() == {here: VmState.PAUSED}
        (vm,) = mended(moving, here).vms
        assert (vm.did, vm.resumed) == (Did.TAKEN, True)
        assert unleased(moving, here) == (True, ())


@pytest.mark.rule("R1", "R2")
@pytest.mark.error("lease.unsafe", "lease.lost", "vm.autostart")
def test_a_destination_that_loses_its_lock_daemon_is_not_moved_to(moving: Moving) -> None:
    """It could not take the lease; the VM stays as it was, what its host does when it boots included."""
    here, there = moving.place(), moving.other()
    start_by_itself(moving, here)
    try:
        with sound(moving):
            operation = moving.start(bandwidth_mib_s=3)
            wait_for(operation, Kind.MEMORY_SEEN)
            moving.hold_memory(here)
            assert starts_by_itself(moving)[here] == 0
            end_lock_daemon(moving, there)
            result = operation.wait()
        as_told("V2-strict", result, list(operation.events()), also=("vm.autostart",))
        assert kinds(operation).count("lock-daemon-gone") == 1
        assert moving.place() == here
        assert starts_by_itself(moving) == {here: 1}
    finally:
        start_by_itself(moving, moving.place(), 0)


@pytest.mark.rule("R1")
@pytest.mark.error("lease.lost")
def test_a_source_that_loses_its_lock_daemon_is_moved_away_from_with_a_warning(moving: Moving) -> None:
    here, there = moving.place(), moving.other()
    start_by_itself(moving, here)
    with sound(moving):
        operation = moving.start(bandwidth_mib_s=3)
        wait_for(operation, Kind.MEMORY_SEEN)
        moving.hold_memory(here)
        end_lock_daemon(moving, here)
        wait_for(operation, Kind.LOCK_DAEMON_GONE)
        moving.release_memory(here)
        result = operation.wait()
        as_told("V3-strict", result, list(operation.events()), also=("vm.autostart",))
        assert moving.place() == there
        assert starts_by_itself(moving) == {there: 0}
        assert unleased(moving, there) == (True, ())
        until(lambda: not unleased(moving, here)[0], "that the host it left is not healthy")


@pytest.mark.rule("R1")
@pytest.mark.error("lease.lost")
def test_a_destination_that_loses_it_when_the_source_is_bound_runs_the_vm_once_it_is_mended(moving: Moving) -> None:
    """Nothing can be broken off any more, and the copy cannot take its lease: a person mends, then recovers."""
    there = moving.other()
    with sound(moving):
        with moving.stop_at("intended:allow-run") as stop:
            operation = moving.start()
            stop.reached()
            end_lock_daemon(moving, there)
        result = operation.wait()
        as_told("V4-strict", result, list(operation.events()))
        assert "cancel-accepted" not in kinds(operation)
        until(lambda: moving.states() == {there: VmState.PAUSED}, "the end of the source's copy")
        found = mended(moving, there)
        assert (found.lock_daemon_started, found.vms) == (True, ())
        assert moving.recover().end is CASES["V4-strict"].recovered
        assert (moving.place(), unleased(moving, there)) == (there, (True, ()))
