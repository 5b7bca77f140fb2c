"""Watching one move of a VM of a lab from outside: all observers around it, their verdicts after it, every sample kept.

What a VM can tell depends on its guest. The built-in one proves heartbeat, disk, memory and a TCP stream, and carries
markers for the wire. Of a guest of the user's own everything is seen that needs nothing in it: blackout, the outside
gap by ARP questions to its address, where the switch has it, how much went over the wire.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from refimpl.app.home import Home, OperationFiles, new_operation_id
from refimpl.app.live import JsonEvent
from refimpl.app.observed import BEATS_BEFORE, HEARD_S, Before, Observed
from refimpl.app.operations import Operation, start
from refimpl.app.vm_places import own_disks
from refimpl.app.vm_record import VmShelf
from refimpl.backends.libvirt.domain import line_file, mac_address
from refimpl.hosts.command import replace_file
from refimpl.hosts.namespace import enter_network
from refimpl.hosts.wait import until
from refimpl.lab import Lab, layout
from refimpl.lab.layout import LAB_VARIABLE
from refimpl.lab.links import VM_NETWORK
from refimpl.meter import arp, blackout, outside_gap, stream, switch, wire
from refimpl.meter.program import Program
from refimpl.meter.receiver import Receiver
from refimpl.meter.samples import DIRECTORY, SCHEMA_VERSION, Sample
from refimpl.meter.verdict import Verdict, not_measured
from refimpl.model.errors import error
from refimpl.model.group import Group
from refimpl.model.outcome import Outcome
from refimpl.model.request import MigrationRequest

VERDICTS = "verdicts.json"
_PAUSE_S = 0.1
_FIRST_S = 10.0
_SETTLE_S = 30.0
_RELEARN_S = 5.0


@dataclass(frozen=True, slots=True)
class Subject:
    """What is known of the VM that is watched: name, MAC address, IPv4 address (None: it has none that is known).

    `probe`, of the built-in guest only: the files of its lines by host, its disk's image, its heartbeat's period in
    milliseconds, and the marker in its memory.
    """

    vm: str
    mac: str
    address: str | None
    probe: ProbeFiles | None = None


@dataclass(frozen=True, slots=True)
class ProbeFiles:
    """Where the built-in guest's own word stands, and what it was told."""

    files: Mapping[str, Path]
    disks: Sequence[Path]
    period_ms: float
    marker: str | None


class Watch:
    """All observers of one VM around one move: `ready` before it, `verdicts` after it. A context manager.

    The samples go to `directory` as they come, in the form that `refimpl.meter.samples` describes.
    """

    def __init__(self, lab: Lab, subject: Subject, directory: Path) -> None:
        """Start nothing yet."""
        self._lab, self._subject, self._directory = lab, subject, directory
        self._running = ExitStack()
        self._programs: dict[str, Program] = {}
        self.observed: Observed | None = None

    def __enter__(self) -> Watch:
        """Start all observers and wait until they observe; `watch.not_started` says which one does not, and why."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with ExitStack() as starting:
            for program in self._start():
                starting.enter_context(program)
                self._programs[program.name] = program
            for program in self._programs.values():
                try:
                    program.await_ready()
                except RuntimeError as failure:
                    raise error("watch.not_started", vm=self._subject.vm, detail=str(failure)) from failure
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def ready(self) -> Before:
        """Wait until so much was heard that a silence means something; `guest.not_heard` when it does not come."""
        if self.observed is not None:
            return self.observed.ready()
        if "arp" in self._programs:
            self._wait_for_replies(1, _FIRST_S)
            self._wait_for_replies(BEATS_BEFORE, HEARD_S)
        return Before("", 0)

    def verdicts(self, before: Before, events: Sequence[JsonEvent], outcome: Outcome) -> tuple[Verdict, ...]:
        """Ask every observer about a completed move, once there is something to judge, and keep what they say."""
        assert outcome.source is not None
        move = _Move(outcome.source, outcome.destination, (events[0]["at_ns"], events[-1]["at_ns"]))
        dark = blackout.blackout(events, move.source, move.destination)
        if self.observed is not None:
            own = self.observed.verdicts(before, move.source, move.destination, events)
            found = (*own, self._stream(before, move))
        else:
            found = (dark, self._gap(move))
        found = (*found, self._switch(dark, move), self._wire(outcome, move))
        self._keep(found, move)
        return found

    def _start(self) -> Sequence[Program]:
        subject, probe = self._subject, self._subject.probe
        links = self._lab.links()
        vm_ports = [link.port for link in links if link.network == VM_NETWORK]
        other_ports = [link.port for link in links if link.network != VM_NETWORK]
        markers = wire.markers_of(probe.marker) if probe and probe.marker else {}
        wanted = {"port": other_ports, "marker": [f"{name}={digits}" for name, digits in markers.items()]}
        there, here = self._inside(layout.SWITCH), self._inside(layout.CONDUCTOR)
        programs = [
            Program("switch", self._file("switch"), {"mac": subject.mac}, prefix=there, lists={"port": vm_ports}),
            Program("wire", self._file("wire"), {}, prefix=there, lists=wanted),
        ]
        if probe is not None:
            address = self._lab.group.labels["observer_address"]
            receiver = Receiver(self._file("heartbeat"), address=address, prefix=here)
            self.observed = Observed(subject.vm, probe.files, probe.disks, receiver, probe.period_ms)
            programs += [receiver, Program("stream", self._file("stream"), {"address": subject.address}, prefix=here)]
        elif subject.address is not None:
            own = self._lab.group.labels["observer_address"]
            told = {"address": subject.address, "mac": subject.mac, "link": layout.VM_LINK, "own": own}
            programs.append(Program("arp", self._file("arp"), told, prefix=here))
        return programs

    def _inside(self, part: str) -> list[str]:
        return [*enter_network(layout.netns_name(self._lab.id, part)), "env", f"{LAB_VARIABLE}={self._lab.id}"]

    def _file(self, name: str) -> Path:
        return self._directory / f"{name}.jsonl"

    def _replies(self) -> list[int]:
        return arp.reply_times(self._programs["arp"].samples("reply"))

    def _wait_for_replies(self, count: int, limit_s: float) -> None:
        if not until(lambda: len(self._replies()) >= count, limit_s, _PAUSE_S):
            what = f"answer number {count} to ARP questions for {self._subject.address}"
            raise error("guest.not_heard", what=what, vm=self._subject.vm, limit_s=limit_s)

    def _samples(self, program: str, enough: Callable[[Sequence[Sample]], bool], timeout_s: float) -> list[Sample]:
        """Return what an observer has once there is enough to judge, or after a time all that there is."""
        until(lambda: enough(self._programs[program].samples()), timeout_s, _PAUSE_S)
        return self._programs[program].samples()

    def _stream(self, before: Before, move: _Move) -> Verdict:
        samples = self._samples("stream", lambda found: stream.answered_after(found, move.span_ns[1]), _SETTLE_S)
        return _with(stream.stream_verdict(samples, before.boot, move.span_ns, stream.PERIOD_MS), "stream")

    def _gap(self, move: _Move) -> Verdict:
        if "arp" not in self._programs:
            return not_measured(outside_gap.NAME, "the guest has no address that is known")
        until(lambda: max(self._replies(), default=0) > move.span_ns[1], _SETTLE_S, _PAUSE_S)
        found = outside_gap.silence_verdict(self._replies(), move.span_ns, arp.PERIOD_MS, "answer to ARP")
        return _with(found, "arp")

    def _switch(self, dark: Verdict, move: _Move) -> Verdict:
        if not dark.good:
            return not_measured(switch.NAME, f"the blackout is not known: {dark.text}")
        ports = {link.host: link.port for link in self._lab.links() if link.network == VM_NETWORK}
        there = ports[move.destination]
        samples = self._samples("switch", lambda found: switch.seen_at(found, there), _RELEARN_S)
        stopped_ns, ran_ns = (int(str(dark.figures[name])) for name in ("stopped_at_ns", "ran_at_ns"))
        return _with(switch.switch_verdict(samples, (ports[move.source], there), stopped_ns, ran_ns), "switch")

    def _wire(self, outcome: Outcome, move: _Move) -> Verdict:
        networks = {network.name for network in self._lab.group.hosts[0].migration_networks}
        ports = [x.port for x in self._lab.links() if x.host == move.source and x.network in networks]
        samples = self._samples("wire", lambda found: wire.counted_until(found) > move.span_ns[1], _SETTLE_S)
        marked = self._subject.probe is not None and self._subject.probe.marker is not None
        found = wire.wire_verdict(
            samples, ports, encrypted=outcome.encryption, sent_bytes=outcome.sent_bytes, marked=marked
        )
        return _with(found, "wire")

    def _keep(self, verdicts: Sequence[Verdict], move: _Move) -> None:
        values: dict[str, Any] = {
            "schema": SCHEMA_VERSION,
            "vm": self._subject.vm,
            "source": move.source,
            "destination": move.destination,
            "verdicts": [verdict.to_json() for verdict in verdicts],
        }
        replace_file(self._directory / VERDICTS, json.dumps(values, indent=1).encode(), 0o600)


class WatchedOperation:
    """A move that is watched: it can be followed as any other, and remembers its events for the observers."""

    def __init__(self, watch: Watch, before: Before, operation: Operation, directory: Path) -> None:
        self._watch, self._before, self._operation = watch, before, operation
        self._events: list[JsonEvent] = []
        self.directory = directory

    @property
    def id(self) -> str:
        """The operation's id."""
        return self._operation.id

    def events(self) -> Iterator[JsonEvent]:
        """Yield all events, until its conductor ends."""
        self._events = []
        for event in self._operation.events():
            self._events.append(event)
            yield event

    def outcome(self) -> Outcome:
        """Return how it ended; RefimplError when it did not."""
        return self._operation.outcome()

    def cancel(self) -> None:
        """Ask for a cancel."""
        self._operation.cancel()

    def verdicts(self) -> tuple[Verdict, ...]:
        """Ask the observers about the move, which has to have been followed to its end; nothing if not completed."""
        outcome = self.outcome()
        return self._watch.verdicts(self._before, self._events, outcome) if outcome.completed else ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """Observers that have heard enough of a VM, and wait for its move."""

    watch: Watch
    before: Before
    lab: Lab
    home: Home
    files: OperationFiles

    def start(self, request: MigrationRequest) -> WatchedOperation:
        """Start the move."""
        operation = start(self.home, self.lab.group, request, self.files.id)
        return WatchedOperation(self.watch, self.before, operation, self.files.directory / DIRECTORY)


@contextmanager
def watching(lab: Lab, home: Home, subject: Subject) -> Iterator[Prepared]:
    """Give observers that are ready for a move, which has to be started inside; without one nothing is left of them."""
    files = home.create(new_operation_id())
    try:
        with Watch(lab, subject, files.directory / DIRECTORY) as watch:
            yield Prepared(watch, watch.ready(), lab, home, files)
    finally:
        if not files.spec.exists():
            shutil.rmtree(files.directory, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Move:
    """A completed move: hosts, and the times of its first and last event (nanoseconds since the epoch)."""

    source: str
    destination: str
    span_ns: tuple[int, int]


def _with(verdict: Verdict, name: str) -> Verdict:
    return replace(verdict, samples=f"{name}.jsonl")


def subject_of(group: Group, name: str) -> Subject:
    """Return what is known of a VM of a group by its record; `watch.no_record` when it has none."""
    shelf = shelf_of(group)
    record = shelf.record(name)
    if record is None:
        raise error("watch.no_record", vm=name)
    mac = record.nics[0].mac if record.nics else mac_address(record.id)
    told = record.parameters
    if told is None:
        return Subject(record.name, mac, record.ip)
    files = {host.name: Path(host.log_directory) / line_file(record.name) for host in group.hosts}
    disks = [shelf.disk(record.name), *own_disks(group, record.name).values()]
    probe = ProbeFiles(files, disks, told.heartbeat_period_ms, told.marker)
    return Subject(record.name, mac, record.ip, probe)


def shelf_of(group: Group) -> VmShelf:
    """Return the records of the VMs of a group."""
    directory = Path(group.labels.get("disk_directory") or group.shared_directory)
    return VmShelf(directory, group.labels["vm_network"])
