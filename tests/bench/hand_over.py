"""What the hand-over costs: strict and delegated, with a lease and without one, in turns on one lab.

No user gets a VM without a lease through the checks, so the engine begins behind them here, in this process: its own
conductor, store, journal and backend for each move. Nothing else differs between the four.
"""

from __future__ import annotations

import random
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from os import getpid
from pathlib import Path

from refimpl.app.real_time import RealTimeline
from refimpl.backends.libvirt import connection, vms
from refimpl.backends.libvirt.backend import LibvirtBackend
from refimpl.backends.libvirt.domain import VmSpec, domain_xml
from refimpl.engine.conductor import Conductor, Identity
from refimpl.engine.journal import FileJournal
from refimpl.engine.store import GroupStore
from refimpl.guest import build
from refimpl.hosts.process import here
from refimpl.lab import create
from refimpl.model.events import Event, Kind
from refimpl.model.group import Group, HostEntry
from refimpl.model.ledger import Ledger
from refimpl.model.phase import Phase
from refimpl.model.request import HandOver, MigrationRequest, PerformanceOption, Plan
from tests.bench.experiments import Bench
from tests.bench.results import Figure
from tests.bench.scene import IDLE, image_is_there, inside, ready
from tests.bench.watching import Listening, Moments, listening
from tests.lab.libvirt_support import without_lease

NAME = "hand-over: completed to RESUME"
HOST_MIB, VM_MIB = 1024, 128
SIDES = [(hand_over, lease) for hand_over in (HandOver.STRICT, HandOver.DELEGATED) for lease in (True, False)]
SEED = 11


@dataclass(frozen=True, slots=True)
class Handed:
    """One move: QEMU's moments, and what commit record and switch port took, in ms (None: not in the blackout)."""

    moments: Moments
    commit_ms: float | None
    port_ms: float | None

    def to_json(self) -> dict[str, float | None]:
        """Return the figures of the move."""
        moments = self.moments
        return {
            "hand_over_ms": moments.hand_over_ms,
            "blackout_ms": moments.blackout_ms,
            "transfer_ms": moments.transfer_ms,
            "commit_ms": self.commit_ms,
            "port_ms": self.port_ms,
        }


@dataclass
class Guest:
    """A VM, the events of which are heard, and the place in the group of the host on which it is."""

    spec: VmSpec
    heard: Listening
    at: int = 0


class Stage:
    """A lab with a guest that has a lease and one that has none."""

    def __init__(self, group: Group, guests: dict[bool, Guest], directory: Path) -> None:
        self._group = group
        self._guests = guests
        self._store = GroupStore(Path(group.store_path))
        self._directory = directory

    def move(self, hand_over: HandOver, lease: bool) -> Handed:
        """Move one of the guests to the other host; RuntimeError when it does not complete."""
        guest, hosts = self._guests[lease], self._group.hosts
        source, destination = hosts[guest.at], hosts[1 - guest.at]
        since_ns = time.time_ns()
        events = self._conduct(self._plan(guest.spec, source, destination, hand_over))
        found = guest.heard.moments(source.name, destination.name, since_ns)
        guest.at = 1 - guest.at
        told = {event.kind: event for event in events}
        commit = told.get(Kind.COMMIT_RECORDED)
        return Handed(found, commit["cost_ms"] if commit else None, told[Kind.DESTINATION_RAN]["port_ms"])

    def _plan(self, spec: VmSpec, source: HostEntry, destination: HostEntry, hand_over: HandOver) -> Plan:
        networks = tuple(network.address for network in destination.migration_networks)
        plan = Plan(spec.name, spec.id, source.name, destination.name, networks, memory_mib=spec.memory_mib)
        return replace(plan, hand_over=hand_over, performance_option=PerformanceOption.TCPIP)

    def _conduct(self, plan: Plan) -> list[Event]:
        timeline, events, operation = RealTimeline(), list[Event](), uuid.uuid4().hex[:8]
        request = MigrationRequest(plan.vm, plan.destination, plan.source, hand_over=plan.hand_over)
        with ExitStack() as stack:
            backend = stack.enter_context(closing(LibvirtBackend(self._group, timeline.post, time.time_ns)))
            journal = stack.enter_context(closing(FileJournal(self._directory / f"{operation}.db")))
            conductor = Conductor(
                Ledger(operation, self._group.id, request, plan.hand_over, plan=plan, claimed=True),
                backend,
                timeline,
                store=self._store,
                journal=journal,
                identity=Identity("bench", here(getpid())),
                phase=Phase.SETUP,
                listeners=[events.append],
            )
            outcome = conductor.run(
                Event(Kind.CHECKS_PASSED, time.time_ns(), {"plan": plan, "warnings": (), "checked": ()})
            )
        if not outcome.completed:
            raise RuntimeError(f"{outcome.sentence} {[problem.text for problem in outcome.problems]}")
        return events


@contextmanager
def stage(root: Path) -> Iterator[Stage]:
    """Give the lab with its two guests, both at work."""
    with ExitStack() as stack:
        image_is_there()
        lab = create("bench", 2, HOST_MIB, root=root)
        stack.callback(lab.down)
        group = lab.group
        stack.enter_context(inside(group))
        guests = {}
        for lease in (True, False):
            spec = _vm(group, f"bench-{lease:d}", lease)
            guests[lease] = Guest(spec, stack.enter_context(listening(group, spec.id)))
        for guest in guests.values():
            ready(group, guest.spec.name)
        yield Stage(group, guests, lab.paths.directory)


def _vm(group: Group, name: str, lease: bool) -> VmSpec:
    """Start a VM without a disk on the first host."""
    image, parameters = build(), replace(IDLE, address=f"10.90.2.{50 + lease}/24")
    command_line = parameters.command_line()
    spec = VmSpec(name, str(uuid.uuid4()), VM_MIB, "", str(image.kernel), str(image.initramfs), command_line)
    host = group.hosts[0]
    vms.create(group, host, spec)
    if not lease:
        with connection.fresh(host) as fresh:
            fresh.defineXML(without_lease(domain_xml(spec, group, host)))
    vms.start(host, name)
    return spec


def hand_over(bench: Bench) -> None:
    """Move in rounds of all four, each in an order of its own; the first round is not counted."""
    found: dict[tuple[HandOver, bool], list[Handed]] = {side: [] for side in SIDES}
    chance = random.Random(SEED)
    with stage(bench.root) as on:
        for number in range(bench.pairs + 1):
            for side in chance.sample(SIDES, len(SIDES)):
                moved, (kind, lease) = on.move(*side), side
                bench.recorder.sample(NAME, round=number, hand_over=kind, lease=lease, **moved.to_json())
                if number:
                    found[side].append(moved)
            print(f"  {NAME}: round {number} of {bench.pairs}", file=sys.stderr, flush=True)
    for (kind, lease), moves in found.items():
        _add(bench, f"{kind}, {'lease' if lease else 'no lease'}", moves)
    for lease, words in ((True, "lease"), (False, "no lease")):
        strict, delegated = found[HandOver.STRICT, lease], found[HandOver.DELEGATED, lease]
        more = [a.moments.hand_over_ms - b.moments.hand_over_ms for a, b in zip(strict, delegated, strict=True)]
        bench.recorder.add(NAME, Figure.of(f"completed to RESUME, strict − delegated, {words}", more, "ms"))
    bench.recorder.note(
        NAME,
        f"{VM_MIB} MiB, no disk, encrypted. Conductor in the measuring process, behind the checks; owner record in the "
        "group's store, flushed to the disk. The commit record is in the blackout of a strict move alone. The switch "
        "port is opened while a strict copy resumes, and after a delegated one runs.",
    )


def _add(bench: Bench, words: str, moves: list[Handed]) -> None:
    add = bench.recorder.add
    add(NAME, Figure.of(f"completed to RESUME, {words}", [m.moments.hand_over_ms for m in moves], "ms"))
    commits = [(m.commit_ms, m.commit_ms / m.moments.hand_over_ms) for m in moves if m.commit_ms is not None]
    if commits:
        add(NAME, Figure.of(f"of it the commit record, {words}", [ms for ms, _ in commits], "ms"))
        add(NAME, Figure.of(f"the commit record's share, {words}", [share for _, share in commits]))
    add(NAME, Figure.of(f"blackout (STOP to RESUME), {words}", [m.moments.blackout_ms for m in moves], "ms"))
    ports = [m.port_ms for m in moves if m.port_ms is not None]
    if ports:
        add(NAME, Figure.of(f"switch port, {words}", ports, "ms"))
