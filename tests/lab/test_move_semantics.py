"""Moves of VMs that are paused or off, whose guest ends on the way, whose port is handed over, that are steered."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from refimpl.app.operations import Operation
from refimpl.backends.libvirt import connection, vms
from refimpl.backends.libvirt.domain import mac_address
from refimpl.backends.libvirt.status import read_status
from refimpl.guest.commands import send_command
from refimpl.hosts import netns
from refimpl.hosts.command import run_local
from refimpl.hosts.factory import channel_for
from refimpl.lab import layout
from refimpl.lab.network import VM
from refimpl.meter.frames import mac_bytes
from refimpl.model.facts import VmState
from refimpl.model.phase import Phase
from refimpl.model.request import PerformanceOption
from tests.lab.libvirt_support import GUEST_ADDRESS, host_of, wait_for_lines
from tests.lab.moving import Moving, kinds, until, wait_for
from tests.unit.meter.packets import ethernet

pytestmark = pytest.mark.lab

P = Phase
PLAIN_TCP = PerformanceOption.TCPIP
WITHOUT_CHANNELS = PerformanceOption.TCPIP
"""Where a destination's QEMU is killed: with zstd's parallel channels the source's QEMU sometimes dies with it
(docs/advisories.md, qemu-channels-failing), so nothing could be told from what becomes of the VM."""
USUAL_RATE, HARD_RATE = 1000, 10_000
MOST_SAMPLES = 20
OTHER_MAC = "52:54:00:00:00:0e"
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # linux/if_tun.h


def domain_call(moving: Moving, host: str, name: str, *values: Any) -> Any:
    """Call a method of the VM's domain on a host."""
    with connection.fresh(host_of(moving.group, host)) as fresh:
        return getattr(fresh.lookupByUUIDString(moving.spec.id), name)(*values)


def start_again(moving: Moving, host: str) -> None:
    """Start the VM where it is off, and wait until its guest works."""
    vms.start(host_of(moving.group, host), moving.spec.name)
    wait_for_lines(host_of(moving.group, host), moving.spec.name, 50)


def held(moving: Moving, **changes: Any) -> Operation:
    """Start a move that stays in the memory phase."""
    source = moving.place()
    operation = moving.start(**{"bandwidth_mib_s": 3, **changes})
    wait_for(operation, "memory-seen")
    moving.hold_memory(source)
    return operation


def kill_qemu(moving: Moving, host: str) -> None:
    """End a copy's QEMU with SIGKILL."""
    channel = channel_for(host_of(moving.group, host))
    seen = read_status(channel, moving.spec.name)
    assert seen is not None
    outer = channel.outer_pid(seen.pid)
    assert outer is not None
    os.kill(outer, signal.SIGKILL)


def problems(operation: Operation) -> list[str]:
    return [problem.id for problem in operation.wait().problems]


def test_a_vm_that_is_off_is_moved_as_its_definition(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    domain_call(moving, source, "destroy")
    result = moving.start(destination=destination).wait()
    assert (result.end, result.vm_state, result.problems, result.warnings) == (P.COMPLETED, "off", (), ())
    assert (result.blackout_ms, result.sent_bytes) == (None, None)
    assert moving.states() == {destination: VmState.OFF}
    start_again(moving, destination)


@pytest.mark.rule("R2")
def test_a_paused_vm_arrives_paused_and_stays_paused_when_its_move_fails(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    domain_call(moving, source, "suspend")
    try:
        failing = moving.start(destination=destination, bandwidth_mib_s=3, performance_option=WITHOUT_CHANNELS)
        wait_for(failing, "memory-seen")
        kill_qemu(moving, destination)
        assert failing.wait().end is P.FAILED
        assert moving.states() == {source: VmState.PAUSED}
        operation = moving.start(destination=destination)
        result = operation.wait()
        assert (result.end, result.vm_state, result.warnings) == (P.COMPLETED, "paused", ())
        assert result.blackout_ms is None
        told = kinds(operation)
        assert "left-paused" in told
        assert "destination-ran" not in told
        assert moving.states() == {destination: VmState.PAUSED}
    finally:
        for host, state in moving.states().items():
            with suppress(connection.module().libvirtError):  # it must not hide a failure; `moving` sees what runs
                if state is VmState.PAUSED:
                    domain_call(moving, host, "resume")


def test_a_guest_that_starts_anew_on_the_way_does_so_in_one_place(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    operation = held(moving)
    assert send_command(GUEST_ADDRESS, "reboot") == "reboot"
    wait_for(operation, "pass-ended")
    moving.release_memory(source)
    assert operation.wait().end is P.COMPLETED
    assert moving.place() == destination
    moving.works()


@pytest.mark.error("guest.ended")
@pytest.mark.parametrize(("verb", "said"), [("off", "switched itself off"), ("panic", "kernel panicked")])
def test_a_guest_that_ends_on_the_way_is_told_from_a_vm_that_is_lost(moving: Moving, verb: str, said: str) -> None:
    source = moving.place()
    operation = held(moving)
    assert send_command(GUEST_ADDRESS, verb) == verb
    result = operation.wait()
    assert (result.end, problems(operation), result.runs_on) == (P.FAILED, ["guest.ended"], None)
    assert said in result.problems[0].text
    assert "switch-seen" not in kinds(operation)
    assert moving.states() == {source: VmState.OFF}
    start_again(moving, source)


def test_the_bandwidth_is_changed_while_it_runs(moving: Moving) -> None:
    source = moving.place()
    operation = held(moving, performance_option=PLAIN_TCP)
    wait_for(operation, "progress")
    operation.set_bandwidth(24)
    before: list[int] = []
    after: list[int] = []
    steered = False
    for event in operation.events():
        steered = steered or event["kind"] == "steered"
        if event["kind"] == "progress" and event["values"]["bytes_s"]:
            (after if steered else before).append(event["values"]["bytes_s"])
        if max(after, default=0) > 12 << 20 or len(after) > MOST_SAMPLES:
            break
    moving.release_memory(source)
    assert operation.wait().end is P.COMPLETED
    assert max(before) < 6 << 20 < 12 << 20 < max(after)


@pytest.mark.rule("R8")
@pytest.mark.error("blackout.too_long")
def test_a_blackout_that_would_be_too_long_cancels_at_the_last_pass(moving: Moving) -> None:
    source = moving.place()
    send_command(GUEST_ADDRESS, "rate", HARD_RATE)
    try:
        limits = {"pass_limit": 2, "cancel_if_blackout_exceeds_ms": 50}
        operation = moving.start(performance_option=PLAIN_TCP, bandwidth_mib_s=24, **limits)
        result = operation.wait()
    finally:
        send_command(GUEST_ADDRESS, "rate", USUAL_RATE)
    assert result.end is P.CANCELLED
    assert result.problems[0].id == "blackout.too_long"
    assert result.passes == 2
    assert "switch-seen" not in kinds(operation)
    ended = [event["values"] for event in operation.events() if event["kind"] == "pass-ended"]
    assert all(values["remaining_bytes"] > 0 and values["bytes_s"] > 0 for values in ended)
    assert moving.place() == source


def test_a_blackout_that_fits_is_no_reason_to_cancel(moving: Moving) -> None:
    destination = moving.other()
    operation = moving.start(pass_limit=1, cancel_if_blackout_exceeds_ms=20_000, bandwidth_mib_s=40)
    result = operation.wait()
    assert (result.end, result.warnings) == (P.COMPLETED, ())
    assert moving.place() == destination


@pytest.mark.rule("R10")
def test_what_would_change_the_vm_does_not_happen_while_it_is_moved(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    operation = held(moving)
    lv = connection.module()

    def change() -> str:
        try:
            domain_call(moving, source, "setVcpusFlags", 1, lv.VIR_DOMAIN_AFFECT_CONFIG)
        except lv.libvirtError as error:
            return str(error)
        return "done"

    with ThreadPoolExecutor(1) as pool:
        changed = pool.submit(change)
        for _ in range(2):
            wait_for(operation, "pass-ended")
        assert not changed.done()
        moving.release_memory(source)
        assert operation.wait().end is P.COMPLETED
        assert changed.result() != "done"
    assert moving.place() == destination


@pytest.mark.rule("R16")
def test_the_destinations_port_is_shut_until_the_vm_runs_there(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    send_command(GUEST_ADDRESS, "rate", USUAL_RATE)
    assert port_of(moving) == source
    with moving.stop_at("intended:allow-run") as stop:
        operation = moving.start()
        stop.reached()
        assert moving.states()[destination] is VmState.PAUSED
        speak_by_a_tap(moving, destination)
        assert port_of(moving) == source, "what a tap there sends in the VM's name is not let out"
    result = operation.wait()
    assert result.end is P.COMPLETED
    assert result.port_ms is not None
    assert port_of(moving) == destination
    assert send_command(GUEST_ADDRESS, "rate", USUAL_RATE) == "done"


@pytest.mark.rule("R16")
def test_the_port_is_open_before_anything_is_put_in_order(moving: Moving) -> None:
    with moving.stop_at("cleanup") as stop:
        operation = moving.start()
        stop.reached()
        assert send_command(GUEST_ADDRESS, "rate", USUAL_RATE) == "done"
    assert operation.wait().end is P.COMPLETED


@pytest.mark.rule("R16")
@pytest.mark.parametrize("stop", ["memory", "committed", "intended:allow-run", "given:allow-run"])
def test_no_vm_ends_with_a_port_that_is_shut(moving: Moving, stop: str) -> None:
    moving.kill_at(stop)
    moving.recover()
    assert send_command(GUEST_ADDRESS, "rate", USUAL_RATE) == "done"
    assert port_of(moving) == moving.place()


def speak_by_a_tap(moving: Moving, host: str) -> None:
    """Send a frame by a tap on a host's virtual switch with the VM's address, then one with another, which arrives."""

    def speak() -> None:
        netns.enter(layout.netns_name(moving.lab.id, host))
        with open("/dev/net/tun", "r+b", buffering=0) as tap:
            fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"early", IFF_TAP | IFF_NO_PI))
            run_local(["ip", "link", "set", "dev", "early", "master", layout.VIRTUAL_SWITCH, "up"])
            for mac in (mac_address(moving.spec.id), OTHER_MAC):
                tap.write(ethernet(b"\xff" * 6, mac_bytes(mac), 0x88B5, bytes(46)))
            until(lambda: learned(moving, OTHER_MAC) == [host], "the other address on the lab's switch")

    with ThreadPoolExecutor(1) as pool:  # a thread of its own: it stays in the host's network
        pool.submit(speak).result()


def port_of(moving: Moving) -> str:
    """Return behind which host the lab's switch has the VM's address."""
    (host,) = learned(moving, mac_address(moving.spec.id))
    return host


def learned(moving: Moving, mac: str) -> list[str]:
    """Return behind which hosts the lab's switch has an address."""
    switch = layout.netns_name(moving.lab.id, layout.SWITCH)
    names = {layout.switch_port(moving.lab.id, str(n), VM): h.name for n, h in enumerate(moving.group.hosts, 1)}
    shown = run_local(["bridge", "-n", switch, "fdb", "show"]).stdout.splitlines()
    rows = [line.split() for line in shown if line.startswith(mac)]
    return sorted({names[row[row.index("dev") + 1]] for row in rows})
