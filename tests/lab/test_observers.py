"""Every observer is able to fail: a fault in a real move changes its reading by at least the fault, and no other's.

Blackout and outside gap have no bad verdict, they are figures. What contains what by definition: the outside gap
contains the blackout and every silence that touches the move; nothing else contains anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from refimpl.app.observed import wait_for_work
from refimpl.app.watched import Watch
from refimpl.guest import GuestParameters
from refimpl.guest.tamper import flip_in_file, flip_in_process
from refimpl.meter import blackout, disk, heartbeat, memory, outside_gap, stream, switch, wire
from refimpl.meter.lines import JoinedLog, Line
from refimpl.meter.memory import memory_verdict
from refimpl.meter.records import RECORD_BYTES
from refimpl.meter.verdict import State
from refimpl.model.events import Kind
from refimpl.model.request import PerformanceOption
from tests.lab.libvirt_support import MARKER
from tests.lab.meddling import connections_reset, leak, speak_as_the_vm
from tests.lab.moving import Moving, until
from tests.lab.watching import (
    Dropper,
    Freezer,
    Watching,
    lines_of,
    lossless,
    not_good,
    page_in_qemu,
    qemu_process,
    subject_of_spec,
    tell,
    wiped,
)

pytestmark = pytest.mark.lab

FROZEN_MS = 500
DROPPED = 50
LINES = 5
PAGE = 7
PAGES_PER_MIB = 256
TCPIP = {"performance_option": PerformanceOption.TCPIP}
COMPRESSION = {"performance_option": PerformanceOption.COMPRESSION}


@pytest.fixture
def watching(moving: Moving, tmp_path: Path) -> Iterator[Watching]:
    wait_for_work(moving.spec.name, lines_of(moving))
    with Watch(moving.lab, subject_of_spec(moving), tmp_path / "observed") as watch:
        yield Watching(moving, watch)


@pytest.mark.rule("R16")
def test_an_undisturbed_move_is_found_good(watching: Watching) -> None:
    watching.move(**COMPRESSION)
    readings = watching.readings()
    assert not_good(readings) == set()
    lossless(readings)
    at_switch = readings[switch.NAME].figures
    assert at_switch["announcements"] > 0
    assert (at_switch["frames_before_resume"], at_switch["frames_from_both"]) == (0, 0)
    assert at_switch["first_frame_ms"] > 0
    assert at_switch["mac_relearned_ms"] > 0
    assert readings[stream.NAME].figures["longest_pause_ms"] > 0
    seen = readings[wire.NAME].figures
    assert (seen["encrypted"], seen["memory_markers"], seen["disk_markers"]) == (True, 0, 0)
    assert seen["seen_bytes"] >= wire.LEAST_SHARE * seen["sent_bytes"]
    assert readings[blackout.NAME].figures["blackout_ms"] > 0
    assert readings[heartbeat.NAME].figures["lines_on_last_host"] > 0
    assert readings[memory.NAME].figures["whole_checks"] > 0


def test_a_destination_frozen_at_resume_is_in_the_outside_gap_and_not_in_the_blackout(watching: Watching) -> None:
    """Frozen on QEMU's RESUME event, so after it: a freeze before it would be part of the blackout by definition.

    The gap is the longest single silence, and a heartbeat may come between RESUME and the freeze. So the freeze is
    500 ms longer than the blackout was: the gap then exceeds by 500 ms what it would be without. ARP questions, which
    need nothing in the guest, see the same.
    """
    freezers: list[Freezer] = []
    dark_before = []

    def freeze() -> None:
        dark_before.append(watching.blackout_so_far())
        freezers[0].freeze(FROZEN_MS + dark_before[0].figures["blackout_ms"] + watching.observed.period_ms)

    def arrived() -> None:
        freezers.append(Freezer(qemu_process(watching.moving, watching.destination)))

    with watching.watched_as_own_guest() as own:
        before = own.ready()
        watching.move({Kind.DESTINATION_ARRIVED: arrived, Kind.DESTINATION_RAN: freeze})
        asked = watching.readings_of(own, before)[outside_gap.NAME]
    readings = watching.readings()
    gap, dark, (freezer,) = readings[outside_gap.NAME].figures, readings[blackout.NAME], freezers
    print(f"frozen for {freezer.frozen_ms:.1f} ms, {(freezer.from_ns - dark.figures['ran_at_ns']) / 1e6:.1f} ms late")
    assert dark == dark_before[0]
    assert dark.figures["ran_at_ns"] <= freezer.from_ns
    assert gap["outside_gap_ms"] >= freezer.frozen_ms
    assert asked.figures["outside_gap_ms"] >= freezer.frozen_ms
    assert gap["outside_gap_ms"] - dark.figures["blackout_ms"] - gap["period_ms"] >= FROZEN_MS
    assert not_good(readings) == set()


def test_a_plain_move_shows_the_guest_s_memory_and_a_stream_with_a_hole_its_size(watching: Watching) -> None:
    """A guest of one's own is watched beside it: with the same eyes, but for what its own program would say."""
    with watching.watched_as_own_guest() as own:
        before = own.ready()
        watching.move({Kind.MEMORY_SEEN: lambda: tell("skip", 2 * RECORD_BYTES)}, encryption=False, **TCPIP)
        found = watching.readings_of(own, before)
    readings = watching.readings()
    seen, flow = readings[wire.NAME], readings[stream.NAME]
    assert (seen.state, seen.figures["encrypted"]) == (State.OK, False)
    assert seen.figures["memory_markers"] >= GuestParameters().writer_working_set_mib * PAGES_PER_MIB / 2
    assert (flow.state, flow.figures["gaps"], flow.figures["unreadable"]) == (State.BAD, 2, 0)
    assert not_good(readings) == {stream.NAME}
    assert not_good(found) == {wire.NAME}
    assert found[wire.NAME].state is State.NOT_MEASURED
    assert set(found) == {blackout.NAME, outside_gap.NAME, switch.NAME, wire.NAME}
    lossless(found)


def test_a_plain_compressed_move_shows_what_compression_leaves_as_it_is(watching: Watching) -> None:
    watching.move(encryption=False, **COMPRESSION)
    readings = watching.readings()
    assert not_good(readings) == set()
    assert readings[wire.NAME].figures["memory_markers"] > 0


def test_each_observer_of_the_network_notices_what_is_done_there(watching: Watching) -> None:
    """The connection is reset, the guest's marker crosses the migration network in clear, two ports speak as the VM."""

    def meddle() -> None:
        leak(watching.moving, watching.source, bytes.fromhex(MARKER))
        with connections_reset():
            until(lambda: watching.samples("stream", "ended"), "the end of the connection")

    watching.move({Kind.MEMORY_SEEN: meddle}, **TCPIP)
    until(lambda: watching.readings()[switch.NAME].state is State.OK, "the switch to have learnt the new port")
    speak_as_the_vm(watching.moving, watching.source)
    until(lambda: not watching.readings()[switch.NAME].good, "the frame from the other port")
    readings = watching.readings()
    assert "connection ended: reset" in readings[stream.NAME].text
    assert (readings[wire.NAME].state, readings[wire.NAME].figures["memory_markers"]) == (State.BAD, 1)
    assert (readings[switch.NAME].state, readings[switch.NAME].figures["frames_from_both"]) == (State.BAD, 1)
    assert not_good(readings) == {stream.NAME, wire.NAME, switch.NAME}
    lossless(readings)


def test_dropped_datagrams_are_lost_and_silence_and_nothing_else(watching: Watching) -> None:
    dropper = Dropper()
    try:
        watching.move({Kind.MEMORY_SEEN: dropper.begin})
        until(lambda: dropper.dropped() >= DROPPED, f"{DROPPED} dropped datagrams")
        dropped = dropper.end()
    finally:
        dropper.remove()
    readings = watching.readings()
    gap = readings[outside_gap.NAME].figures
    print(f"{dropped} datagrams dropped in {dropper.silent_ms:.1f} ms")
    assert gap["lost_datagrams"] >= dropped >= DROPPED
    assert gap["outside_gap_ms"] >= dropper.silent_ms
    lossless(readings)
    assert not_good(readings) == set()


def test_lines_lost_at_the_switch_are_missed_by_their_numbers(watching: Watching) -> None:
    with ExitStack() as fault:
        lost = []

        def lose_lines() -> None:
            path = watching.observed.files[watching.source]
            lost.extend(fault.enter_context(wiped(path, watching.before.boot, LINES)))

        watching.move_held(lose_lines)
        readings = watching.readings()
        found = readings[heartbeat.NAME]
        assert found.state is State.BAD
        assert (found.figures["lines_missing"], found.figures["first_missing"]) == (LINES, lost[0].sequence)
        assert f"{LINES} lines lost, the first is number {lost[0].sequence}" in found.text
        assert not_good(readings) == {heartbeat.NAME}
        lossless(readings)
    assert not_good(watching.readings()) == set()


def test_a_damaged_block_is_missed_by_its_number(watching: Watching) -> None:
    """The guest's disk worker rests meanwhile: else it would overwrite the damage some time."""
    with ExitStack() as fault:
        assert tell("disk", 0) == "done"
        fault.callback(tell, "disk", 1)
        damaged = []

        def damage() -> None:
            line = watching.log().of_kind("disk")[-1]
            offset = int(line.fields[1]) * disk.BLOCK_BYTES + disk.BLOCK_BYTES // 2
            flip_in_file(watching.observed.disks[0], offset)
            fault.callback(flip_in_file, watching.observed.disks[0], offset)
            damaged.append((line.fields[0], line.fields[1]))

        watching.move_held(damage)
        readings = watching.readings()
        found, (number, slot) = readings[disk.NAME], damaged[0]
        assert (found.state, found.figures["corrupt"], found.figures["lost"]) == (State.BAD, 1, 0)
        assert f"the first is write {number} in slot {slot}" in found.text
        assert not_good(readings) == {disk.NAME}
        lossless(readings)
    assert not_good(watching.readings()) == set()


def test_a_damaged_page_is_missed_by_its_number_and_address(watching: Watching) -> None:
    """The guest's memory writer rests meanwhile; when it goes on, it writes the page anew, and memory is good again."""
    watching.move()
    with ExitStack() as fault:
        assert tell("rate", 0) == "done"
        fault.callback(tell, "rate", GuestParameters().writer_rate_pages_per_s)
        address, in_qemu = page_in_qemu(watching.moving, watching.destination, PAGE)
        flip_in_process(qemu_process(watching.moving, watching.destination).pid, in_qemu + disk.BLOCK_BYTES // 2)
        assert tell("check") == "done"
        watching.observed.wait("the damaged page", lambda log: told_bad(watching, log) > 0)
        readings = watching.readings()
        found = readings[memory.NAME]
        assert (found.state, found.figures["bad_pages"]) == (State.BAD, 1)
        assert f"page {PAGE} at guest-physical {address} " in found.text
        assert not_good(readings) == {memory.NAME}
        lossless(readings)
    watching.observed.wait("a good check of the whole memory", lambda log: good_again(watching, log))


def told_bad(watching: Watching, log: JoinedLog) -> int:
    """The number of the last line that tells of a bad page, 0 when none has come since the move."""
    told = [line for line in log.of_kind("bad-page", "check-end", boot=watching.before.boot) if tells_of_bad(line)]
    moved_after = log.last_sequence(watching.before.boot, watching.source)
    return max((line.sequence for line in told if line.sequence > moved_after), default=0)


def tells_of_bad(line: Line) -> bool:
    return line.kind == "bad-page" or line.fields[2] != "0"


def good_again(watching: Watching, log: JoinedLog) -> bool:
    return memory_verdict(log, watching.before.boot, told_bad(watching, log)).good
