"""A move of the working guest with its observers around it, and what can be done to guest, host and files meanwhile."""

from __future__ import annotations

import ipaddress
import json
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from refimpl.app.observed import Before
from refimpl.app.operations import Operation
from refimpl.app.watched import ProbeFiles, Subject, Watch
from refimpl.backends.libvirt import connection
from refimpl.backends.libvirt.domain import line_file, mac_address
from refimpl.backends.libvirt.status import read_status
from refimpl.guest import GuestParameters
from refimpl.guest.commands import send_command
from refimpl.guest.tamper import host_address
from refimpl.hosts.factory import channel_for
from refimpl.hosts.process import here, send_signal
from refimpl.meter import blackout, outside_gap
from refimpl.meter.lines import JoinedLog, Line, parse_line, read_log
from refimpl.meter.receiver import DEFAULT_PORT
from refimpl.meter.samples import Sample, read_samples
from refimpl.meter.verdict import Verdict
from refimpl.model.group import ProcessRef
from refimpl.model.outcome import Outcome
from tests.lab.libvirt_support import GUEST_ADDRESS, MARKER, host_of
from tests.lab.moving import Moving

Actions = Mapping[str, Callable[[], None]]


class Watching:
    """One move of the guest while observers watch; they can be asked again and again after it."""

    def __init__(self, moving: Moving, watch: Watch) -> None:
        assert watch.observed is not None
        self.moving = moving
        self.watch = watch
        self.observed = watch.observed
        self.source = moving.place()
        self.destination = moving.other()
        self.before = watch.ready()
        self.events: list[dict[str, Any]] = []
        self.outcome: Outcome | None = None

    def move(self, on: Actions | None = None, **changes: Any) -> None:
        """Move it to its end; `on` says what to do when an event of a kind is reported."""
        self._follow(self.moving.start(**changes), on or {})

    def move_held(self, action: Callable[[], None]) -> None:
        """Move it to its end, and do something between STOP and RESUME, when no vCPU runs anywhere.

        The conductor is held with its commit record written and the destination not yet let run.
        """
        with self.moving.stop_at("committed") as stop:
            operation = self.moving.start()
            try:
                stop.reached()
                action()
            finally:
                stop.go()
                self._follow(operation, {})

    def watched_as_own_guest(self) -> Watch:
        """Return another watch of the same VM, which knows of no program of ours in its guest."""
        subject = replace(subject_of_spec(self.moving), probe=None)
        return Watch(self.moving.lab, subject, self.moving.directory / "own")

    def samples(self, program: str, *kinds: str) -> list[Sample]:
        """Return the samples that an observer has so far."""
        return read_samples(self.moving.directory / "observed" / f"{program}.jsonl", *kinds)

    def readings(self) -> dict[str, Verdict]:
        """Ask all observers now, print what they say, and return it by their names."""
        return self.readings_of(self.watch, self.before)

    def readings_of(self, watch: Watch, before: Before) -> dict[str, Verdict]:
        """Ask the observers of another watch of the same move."""
        assert self.outcome is not None
        verdicts = watch.verdicts(before, self.events, self.outcome)
        for verdict in verdicts:
            print(f"{self.source} to {self.destination}: {verdict.name}: {verdict.state}: {verdict.text}")
        return {verdict.name: verdict for verdict in verdicts}

    def log(self) -> JoinedLog:
        """Return what the guest has said so far."""
        return read_log(self.observed.files)

    def blackout_so_far(self) -> Verdict:
        """Ask the blackout observer about the events that have come so far."""
        return blackout.blackout(self.events, self.source, self.destination)

    def _follow(self, operation: Operation, on: Actions) -> None:
        try:
            for event in operation.events():
                self.events.append(event)
                on.get(event["kind"], lambda: None)()
        finally:
            deque(operation.events(), maxlen=0)  # also after a failure the move comes to its end before the next test
        self.outcome = operation.outcome()
        assert self.outcome.completed, self.outcome


def lossless(readings: Mapping[str, Verdict]) -> None:
    """Assert what holds of every move by definition: nothing arrives from a guest of which no vCPU runs."""
    gap, dark = readings[outside_gap.NAME].figures, readings[blackout.NAME].figures
    assert gap["outside_gap_ms"] >= dark["blackout_ms"] - gap["period_ms"], (gap, dark)


def not_good(readings: Mapping[str, Verdict]) -> set[str]:
    """Return the names of the observers that found something bad, or nothing."""
    return {name for name, verdict in readings.items() if not verdict.good}


def tell(verb: str, value: int = 0) -> str:
    """Tell the guest something and return its answer."""
    return send_command(str(ipaddress.IPv4Address(GUEST_ADDRESS)), verb, value)


def qemu_process(moving: Moving, host: str) -> ProcessRef:
    """Return the QEMU process of the VM's copy on a host."""
    channel = channel_for(host_of(moving.group, host))
    status = read_status(channel, moving.spec.name)
    assert status is not None, f"no copy on {host}"
    outer = channel.outer_pid(status.pid)
    assert outer is not None
    return here(outer)


class Freezer:
    """Freezes a process and notes from when to when it certainly stood still (nanoseconds since the epoch)."""

    def __init__(self, process: ProcessRef) -> None:
        self.process = process
        self.from_ns = 0
        self.to_ns = 0

    def freeze(self, for_ms: float) -> None:
        """Freeze it for at least so long; it goes on whatever happens."""
        try:
            assert send_signal(self.process, signal.SIGSTOP)
            self._stopped()
            self.from_ns = time.time_ns()
            end = self.from_ns + int(for_ms * 1e6)
            while (left_ns := end - time.time_ns()) > 0:
                time.sleep(left_ns / 1e9)
            self.to_ns = time.time_ns()
        finally:
            assert send_signal(self.process, signal.SIGCONT)

    @property
    def frozen_ms(self) -> float:
        """How long it stood still at least."""
        return (self.to_ns - self.from_ns) / 1e6

    def _stopped(self) -> None:
        threads = Path(f"/proc/{self.process.pid}/task")
        end = time.monotonic() + 10
        while not all(_state(thread) == "T" for thread in threads.iterdir()):
            assert time.monotonic() < end, f"process {self.process.pid} does not stop"
            time.sleep(0.001)


def _state(thread: Path) -> str:
    text = (thread / "stat").read_text()
    return text[text.rindex(")") + 2]


@contextmanager
def wiped(path: Path, boot: str, count: int) -> Iterator[list[Line]]:
    """Wipe the newest whole lines of a boot from a host's file for a while, in place: QEMU may go on appending."""
    content, at, found = path.read_bytes(), 0, []
    for piece in content.splitlines(keepends=True):
        line = parse_line(piece)
        if line is not None and line.boot == boot:
            found.append((at, piece, line))
        at += len(piece)
    chosen = found[-count:]
    with path.open("r+b", buffering=0) as file:
        try:
            for at, piece, _ in chosen:
                file.seek(at)
                file.write(b"\n" * len(piece))
            yield [line for _, _, line in chosen]
        finally:
            for at, piece, _ in chosen:
                file.seek(at)
                file.write(piece)


def lines_of(moving: Moving) -> dict[str, Path]:
    """Return the files of the guest's lines by host."""
    return {host.name: Path(host.log_directory) / line_file(moving.spec.name) for host in moving.group.hosts}


def subject_of_spec(moving: Moving) -> Subject:
    """Return what is known of the guest, as its record would tell it."""
    parameters = GuestParameters()
    probe = ProbeFiles(lines_of(moving), [Path(moving.spec.disk_path)], parameters.heartbeat_period_ms, MARKER)
    return Subject(moving.spec.name, mac_address(moving.spec.id), GUEST_ADDRESS, probe)


class Dropper:
    """Drops heartbeat datagrams at the observer's door: a rule in the lab's own network, where the caller is."""

    def __init__(self) -> None:
        self.table = "refimpl_test"
        self.from_ns = 0
        self.to_ns = 0

    def begin(self) -> None:
        """Drop every datagram from now on."""
        rule = f"udp dport {DEFAULT_PORT} counter drop"
        chain = "type filter hook input priority 0;"
        _nft(f"add table ip {self.table}; add chain ip {self.table} door {{ {chain} }}")
        _nft(f"add rule ip {self.table} door {rule}")
        self.from_ns = time.time_ns()

    def dropped(self) -> int:
        """Return how many were dropped."""
        listed = json.loads(_nft(f"list chain ip {self.table} door", "-j"))["nftables"]
        (rule,) = (entry["rule"] for entry in listed if "rule" in entry)
        return next(part["counter"]["packets"] for part in rule["expr"] if "counter" in part)

    def end(self) -> int:
        """Let them through again; return how many were dropped."""
        self.to_ns = time.time_ns()
        count = self.dropped()
        self.remove()
        return count

    def remove(self) -> None:
        """Take the rule away; harmless when there is none."""
        _nft(f"add table ip {self.table}; delete table ip {self.table}")

    @property
    def silent_ms(self) -> float:
        """For how long none was let through at least."""
        return (self.to_ns - self.from_ns) / 1e6


def _nft(commands: str, *options: str) -> str:
    done = subprocess.run(["nft", *options, commands], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def page_in_qemu(moving: Moving, host: str, page: int) -> tuple[str, int]:
    """Return where a page of the guest's working set lies: guest-physical (hex), and in QEMU's own memory."""
    import libvirt_qemu

    guest_physical = tell("where", page)
    with connection.fresh(host_of(moving.group, host)) as fresh:
        domain = fresh.lookupByUUIDString(moving.spec.id)
        hmp = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
        answer = libvirt_qemu.qemuMonitorCommand(domain, f"gpa2hva 0x{guest_physical}", hmp)
    return guest_physical, host_address(answer)
