"""The guest and its observers under plain QEMU: boot, work, a move, and damage from outside."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from refimpl.guest import GuestImage, GuestParameters, build
from refimpl.guest.commands import send_command
from refimpl.guest.tamper import flip_in_file, flip_in_process, host_address
from refimpl.meter.blackout import blackout
from refimpl.meter.disk import BLOCK_BYTES, disk_verdict
from refimpl.meter.heartbeat import heartbeat_verdict
from refimpl.meter.lines import JoinedLog, read_log
from refimpl.meter.memory import memory_verdict
from refimpl.meter.outside_gap import LEAST_BEFORE, outside_gap_verdict
from refimpl.meter.receiver import Receiver
from refimpl.meter.verdict import State
from refimpl.meter.watch import has, wait_for_log, whole_check_after
from tests.lab.plain_qemu import DEADLINE_S, PlainQemu, free_udp_port

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs qemu-system-x86"),
]


@pytest.fixture(scope="session")
def image() -> GuestImage:
    return build()


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[tuple[Receiver, int]]:
    port = free_udp_port()
    with Receiver(tmp_path / "arrivals", address="127.0.0.1", port=port) as running:
        running.await_ready()
        yield running, port


def guest_parameters(port: int, **changes: object) -> GuestParameters:
    values = {"writer_rate_pages_per_s": 500, "writer_working_set_mib": 8, "disk_period_ms": 50, "disk_blocks": 16}
    network = {"address": "10.0.2.15/24", "observer_address": "10.0.2.2", "observer_port": port}
    return GuestParameters(**{**values, **network, **changes})  # type: ignore[arg-type]


def make_disk(directory: Path) -> Path:
    disk = directory / "disk.raw"
    disk.write_bytes(bytes(16 * BLOCK_BYTES))
    return disk


def wait(files: dict[str, Path], condition, what: str) -> JoinedLog:
    return wait_for_log(files, condition, what=what, timeout_s=DEADLINE_S)


def host_page(qemu: PlainQemu, page: int) -> int:
    """The address of a page of the working set in QEMU's own memory."""
    guest_physical = send_command("127.0.0.1", "where", page, port=qemu.command_port)
    answer = qemu.qmp("human-monitor-command", **{"command-line": f"gpa2hva 0x{guest_physical}"})
    return host_address(answer)


@pytest.mark.parametrize("content", ["zero", "random"])
def test_the_guest_boots_works_and_is_found_well(tmp_path, image, receiver, content):
    disk = make_disk(tmp_path)
    arrivals, port = receiver
    with PlainQemu(tmp_path, "a", image, guest_parameters(port, writer_content=content)) as qemu:
        files = {"a": qemu.lines}
        wait(files, lambda log: has("check-end", count=2)(log) and has("disk", count=20)(log), "work")
        log = wait(files, lambda _: len(arrivals.arrivals().heartbeats) > 50, "heartbeats outside")
        assert send_command("127.0.0.1", "off", port=qemu.command_port) == "off"
        qemu.wait_for_event("SHUTDOWN")
    boot = log.boots[-1]
    assert heartbeat_verdict(log, boot, "a").state is State.OK
    assert memory_verdict(log, boot, 0).state is State.OK
    assert disk_verdict(log, disk, boot=boot).state is State.OK
    assert not log.unreadable
    assert {arrival.boot for arrival in arrivals.arrivals().heartbeats} == {boot}
    assert "refimpl-guest" not in qemu.console.read_text()  # its complaints


def test_a_move_loses_nothing(tmp_path, image, receiver):
    disk = make_disk(tmp_path)
    arrivals, port = receiver
    parameters, channel = guest_parameters(port), tmp_path / "migration"
    with (
        PlainQemu(tmp_path, "a", image, parameters) as source,
        PlainQemu(tmp_path, "b", image, parameters, incoming=channel) as destination,
    ):
        files = {"a": source.lines, "b": destination.lines}
        wait(files, has("check-end", count=1), "work before the move")
        wait(files, lambda _: len(arrivals.arrivals().heartbeats) > 2 * LEAST_BEFORE, "heartbeats outside")
        boot = read_log(files).boots[-1]
        source.qmp("migrate", uri=f"unix:{channel}")
        stopped_ns, ran_ns = source.wait_for_event("STOP"), destination.wait_for_event("RESUME")
        moved_after = read_log(files).last_sequence(boot, "a")
        log = wait(files, whole_check_after(boot, moved_after), "a check after the move")
        log = wait(files, lambda _: arrivals.arrivals().heartbeats[-1].at_ns > ran_ns, "heartbeats after the move")
    heartbeat = heartbeat_verdict(log, boot, "b")
    assert heartbeat.state is State.OK, heartbeat
    assert memory_verdict(log, boot, moved_after).state is State.OK
    assert disk_verdict(log, disk, boot=boot).state is State.OK
    seen = (("source-stopped", "a", stopped_ns), ("destination-ran", "b", ran_ns))
    dark = blackout([{"kind": kind, "host": host, "at_ns": at_ns} for kind, host, at_ns in seen], "a", "b")
    span_ns, heard = (stopped_ns, ran_ns), arrivals.arrivals().heartbeats
    gap = outside_gap_verdict(heard, boot, span_ns, parameters.heartbeat_period_ms)
    assert gap.state is State.OK, gap
    assert gap.figures["outside_gap_ms"] >= dark.figures["blackout_ms"]


def test_the_observers_see_damage_done_from_outside(tmp_path, image, receiver):
    disk = make_disk(tmp_path)
    _, port = receiver
    with PlainQemu(tmp_path, "a", image, guest_parameters(port, writer_rate_pages_per_s=0)) as qemu:
        files = {"a": qemu.lines}
        log = wait(files, lambda log: has("check-end")(log) and has("disk", count=17)(log), "work before the damage")
        boot, port = log.boots[-1], qemu.command_port
        assert memory_verdict(log, boot, 0).state is State.OK
        assert send_command("127.0.0.1", "disk", 0, port=port) == "done"
        damaged_after = read_log(files).last_sequence(boot)
        flip_in_process(qemu.process.pid, host_page(qemu, 7) + 2048)
        assert send_command("127.0.0.1", "check", port=port) == "done"
        log = wait(files, whole_check_after(boot, damaged_after), "a check after the damage")
        memory = memory_verdict(log, boot, damaged_after)
        assert (memory.state, memory.figures["bad_pages"]) == (State.BAD, 1)
        assert "page 7 " in memory.text
        assert disk_verdict(log, disk).state is State.OK
        assert heartbeat_verdict(log, boot, "a").state is State.OK

        flip_in_file(disk, 3 * BLOCK_BYTES + 100)
        damaged = disk_verdict(read_log(files), disk)
        assert (damaged.state, damaged.figures["corrupt"]) == (State.BAD, 1)

        send_command("127.0.0.1", "mute", 20, port=port)
        beats = len(read_log(files).of_kind("beat", boot=boot))
        log = wait(files, has("beat", count=beats + 30), "heartbeats after the mute")
        heartbeat = heartbeat_verdict(log, boot, "a")
        assert (heartbeat.state, heartbeat.figures["lines_missing"]) == (State.BAD, 0)
        assert heartbeat.figures["beats_missing"] in range(20, 101, 20)


def test_a_page_that_the_guest_damages_itself_is_found(tmp_path, image, receiver):
    make_disk(tmp_path)
    _, port = receiver
    with PlainQemu(tmp_path, "a", image, guest_parameters(port, check_pages_per_s=1)) as qemu:
        files = {"a": qemu.lines}
        log = wait(files, has("page-at"), "boot")
        send_command("127.0.0.1", "corrupt", port=qemu.command_port)
        log = wait(files, has("bad-page"), "the damaged page, found by the writer before it wrote it again")
        assert memory_verdict(log, log.boots[-1], 0).state is State.BAD
