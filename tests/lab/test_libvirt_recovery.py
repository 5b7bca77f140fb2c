"""Controllers that die, hosts that die, copies that are left: what the libvirt backend sees and puts in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from refimpl.backends.libvirt import connection, stamp, vms
from refimpl.backends.libvirt.domain import VmSpec, domain_xml
from refimpl.backends.libvirt.status import read_status
from refimpl.backends.libvirt.tap import Taps
from refimpl.backends.libvirt.watch import NativeEvent
from refimpl.guest.commands import send_command
from refimpl.hosts.channel import HostChannel
from refimpl.hosts.factory import channel_for
from refimpl.lab import Lab
from refimpl.model.events import Kind
from refimpl.model.facts import Scope, VmState
from refimpl.model.group import Group
from refimpl.model.request import CommandKind
from tests.lab.libvirt_support import (
    GUEST_ADDRESS,
    Driver,
    host_of,
    made_vm,
    remove_copy,
    until,
    wait_for_lines,
    without_lease,
)

pytestmark = pytest.mark.lab

BEGIN = """
import json, sys, threading
from refimpl.model.group import Group
from refimpl.model.request import Plan
from tests.lab.libvirt_support import Driver
driver = Driver(Group.from_json(json.loads(sys.argv[1])), Plan.from_json(json.loads(sys.argv[2])), sys.argv[3])
driver.hold()
print("held", flush=True)
threading.Event().wait()
"""


def test_a_transfer_outlives_its_controller_and_is_adopted(driver: Driver) -> None:
    arguments = [json.dumps(driver.group.to_json()), json.dumps(driver.plan.to_json()), driver.operation]
    begun = subprocess.Popen([sys.executable, "-c", BEGIN, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert begun.stdout is not None
        assert begun.stdout.readline() == "held\n"
    finally:
        begun.send_signal(signal.SIGKILL)
        begun.communicate()
    evidence = driver.evidence()
    assert (evidence.source.job_open, evidence.source.job_phase) == (True, "perform3")
    assert evidence.source.state is VmState.RUNNING
    assert evidence.destination.state is VmState.PLANNED
    assert evidence.source.operation == driver.operation
    driver.ask(CommandKind.ADOPT, Kind.ADOPTED_MEMORY)
    driver.wait_for(Kind.PROGRESS)
    driver.give(CommandKind.STEER_SWITCH)
    driver.hand_over()
    driver.finish()
    assert driver.seen(Kind.STEERED)
    assert len(driver.seen(Kind.SOURCE_STOPPED)) == 1
    wait_for_lines(driver.destination, driver.plan.vm, 20)


def test_a_controller_that_died_between_arrival_and_hand_over_is_replaced(driver: Driver) -> None:
    driver.prepare()
    driver.give(CommandKind.START_TRANSFER)
    driver.wait_for(Kind.DESTINATION_ARRIVED)
    driver.lose_backend()
    until(lambda: driver.evidence().source.bound, "the source bound")
    assert driver.evidence().destination.state is VmState.PAUSED
    driver.ask(CommandKind.ALLOW_RUN, Kind.DESTINATION_RAN)
    driver.ask(CommandKind.ADOPT, Kind.CALL_RETURNED)
    for _ in range(2):
        driver.finish()
    assert driver.evidence().destination.state is VmState.RUNNING


def test_a_source_whose_process_dies_is_gone_and_bound(driver: Driver) -> None:
    driver.hold()
    channel = channel_for(driver.source)
    seen = read_status(channel, driver.plan.vm)
    assert seen is not None
    outer = channel.outer_pid(seen.pid)
    assert outer is not None
    os.kill(outer, signal.SIGKILL)
    driver.wait_for(Kind.CALL_RETURNED)
    evidence = driver.evidence()
    assert (evidence.source.state, evidence.source.bound) == (VmState.OFF, True)
    assert not evidence.source.ended_by_guest
    assert evidence.destination.state is VmState.ABSENT
    driver.roll_back()


def test_a_guest_that_switches_itself_off_is_known_by_it(driver: Driver) -> None:
    driver.hold()
    assert send_command(GUEST_ADDRESS, "off") == "off"
    driver.wait_for(Kind.CALL_RETURNED)
    evidence = driver.evidence()
    assert (evidence.source.state, evidence.source.ended_by_guest) == (VmState.OFF, True)
    driver.roll_back()


@contextmanager
def half_made(driver: Driver, spec: VmSpec, *, marked: bool, running: bool) -> Iterator[None]:
    """Put a copy of the VM on the destination, with a disk of its own so that nothing shared is touched.

    It goes with the block: it has neither the VM's lease nor its disk.
    """
    lv = connection.module()
    disk = Path(spec.disk_path).with_suffix(".copy")
    disk.write_bytes(b"\0" * 4096)
    xml = without_lease(domain_xml(spec, driver.group, driver.destination).replace(spec.disk_path, str(disk)))
    with connection.fresh(driver.destination) as fresh:
        domain = fresh.defineXML(xml)
        domain.createWithFlags(0 if running else lv.VIR_DOMAIN_START_PAUSED)
        if marked:
            stamp.put(domain, stamp.Stamp(driver.operation, driver.plan))
    try:
        yield
    finally:
        remove_copy(driver.destination, spec)
        disk.unlink()


def test_a_half_made_copy_is_removed_when_the_source_owns(driver: Driver, spec: VmSpec) -> None:
    driver.prepare()
    with half_made(driver, spec, marked=True, running=False):
        for _ in range(2):
            driver.roll_back()
            assert driver.evidence().destination.state is VmState.ABSENT
        assert driver.evidence().source.state is VmState.RUNNING


def test_a_running_copy_is_never_removed_for_the_source(driver: Driver, spec: VmSpec) -> None:
    driver.prepare()
    with half_made(driver, spec, marked=True, running=True):
        refused = driver.ask(CommandKind.SETTLE_SOURCE, Kind.SETTLED, Kind.CANNOT_SETTLE)
        assert (refused.kind, refused["problem"].id) == (Kind.CANNOT_SETTLE, "settle.failed")
        evidence = driver.evidence()
        assert (evidence.source.state, evidence.destination.state) == (VmState.RUNNING, VmState.RUNNING)


def test_a_copy_without_our_mark_is_not_touched(driver: Driver, spec: VmSpec) -> None:
    driver.prepare()
    with half_made(driver, spec, marked=False, running=False):
        driver.ask(CommandKind.SETTLE_SOURCE, Kind.SETTLED)
        assert driver.evidence().destination.state is VmState.PAUSED


def test_two_running_copies_are_settled_to_the_destinations(driver: Driver, spec: VmSpec) -> None:
    driver.prepare()
    with half_made(driver, spec, marked=True, running=True):
        driver.finish()
        evidence = driver.evidence()
        assert (evidence.source.state, evidence.destination.state) == (VmState.ABSENT, VmState.RUNNING)
        assert evidence.destination.operation is None


def test_the_source_is_kept_while_the_destination_only_stands_there(driver: Driver, spec: VmSpec) -> None:
    driver.prepare()
    with half_made(driver, spec, marked=True, running=False):
        driver.ask(CommandKind.SETTLE_DESTINATION, Kind.CANNOT_SETTLE)
        assert driver.evidence().source.state is VmState.RUNNING


def test_a_vm_is_stopped_and_removed(group: Group) -> None:
    with made_vm(group, "h1", name="short-lived", works=False) as spec:
        host = host_of(group, "h1")
        with pytest.raises(OSError, match="is on"):
            vms.remove(group, host, spec.name)
        assert vms.stop(host, spec.name, force=True)
        assert vms.stop(host, spec.name, force=True)
        vms.remove(group, host, spec.name)
        with connection.fresh(host) as fresh:
            assert connection.find(fresh, spec.id) is None


@pytest.mark.full
def test_a_frozen_daemon_is_a_silent_host_and_no_exception(lab: Lab, driver: Driver) -> None:
    driver.prepare()
    daemon = lab.daemon(driver.plan.destination, "libvirtd")
    assert daemon is not None
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as pool:  # both wait for the silent host to their limits
            observed = pool.submit(driver.backend.observe, Scope(vm=driver.plan.vm))
            evidence, facts = driver.evidence(), observed.result().hosts[driver.plan.destination]
        driver.ask(CommandKind.SETTLE_SOURCE, Kind.SETTLED)
        left = driver.ask(CommandKind.CLEAN_UP, Kind.LEFT_BEHIND, Kind.CLEANED)
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    assert (evidence.source.reachable, evidence.destination.reachable) == (True, False)
    assert (facts.reachable, bool(facts.native)) == (False, True)
    assert left.kind is Kind.LEFT_BEHIND
    assert driver.evidence().source.operation is None


@pytest.mark.rule("R2")
def test_when_neither_copy_goes_on_by_itself_the_source_is_resumed(lab: Lab, driver: Driver) -> None:
    """The source's daemon dies while the destination's, frozen, has not answered: both copies stand still for ever."""
    frozen = lab.daemon(driver.plan.destination, "libvirtd")
    assert frozen is not None

    def freeze(native: NativeEvent) -> None:
        if native.name == "MIGRATION" and native.details["status"] == "completed":
            os.kill(frozen.pid, signal.SIGSTOP)

    taps = Taps(time.time_ns)
    taps.listen(driver.plan.destination, driver.plan.vm_id, freeze)
    with connection.fresh(driver.destination) as listening:
        taps.attach(driver.destination, listening)
        driver.prepare()
        driver.give(CommandKind.START_TRANSFER)
        channel = channel_for(driver.source)
        until(lambda: phase(channel, driver.plan.vm) == "perform3_done", "the source waiting for the answer")
        try:
            lab.stop_daemon(driver.plan.source, "libvirtd", signal.SIGKILL)
            lab.start_daemons(driver.plan.source)
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
    driver.wait_for(Kind.CALL_RETURNED)
    until(lambda: not driver.evidence().destination.job_open, "the destination's job closed")
    evidence = driver.evidence()
    assert (evidence.source.state, evidence.source.bound) == (VmState.PAUSED, False)
    assert evidence.destination.state is VmState.PAUSED
    driver.roll_back()
    evidence = driver.evidence()
    assert (evidence.source.state, evidence.source.lease_held) == (VmState.RUNNING, True)
    assert evidence.destination.state is VmState.ABSENT
    wait_for_lines(driver.source, driver.plan.vm, 20)


def phase(channel: HostChannel, vm: str) -> str | None:
    """Return the phase of the migration job that a host shows."""
    seen = read_status(channel, vm)
    return seen.phase if seen is not None else None


def test_a_host_that_is_off_is_a_fact(lab: Lab, driver: Driver) -> None:
    driver.prepare()
    source, destination = driver.plan.source, driver.plan.destination
    lab.host_power_off(source)
    try:
        evidence = driver.evidence()
        assert (evidence.source.reachable, evidence.destination.reachable) == (False, True)
        assert evidence.source.bound, "its process was held, and is seen to have ended"
        facts = driver.backend.observe(Scope(vm=driver.plan.vm))
        assert (facts.hosts[source].reachable, facts.hosts[destination].reachable) == (False, True)
    finally:
        lab.host_power_on(source)
