"""What the tests of the libvirt backend share: a lab with one working guest, and a small driver of the seam."""

from __future__ import annotations

import queue
import secrets
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from refimpl.backends.libvirt import connection, vms
from refimpl.backends.libvirt.backend import LibvirtBackend
from refimpl.backends.libvirt.domain import VmSpec, console_file, domain_xml, line_file
from refimpl.guest.image import build
from refimpl.guest.parameters import GuestParameters
from refimpl.hosts import netns
from refimpl.lab import Lab, create, list_labs, reap
from refimpl.model.events import Event, Kind
from refimpl.model.facts import Evidence
from refimpl.model.group import Group, HostEntry
from refimpl.model.request import Command, CommandKind, MigrationRequest, Plan

EVENT_TIMEOUT_S = 60.0
DISK_MIB = 16
GUEST_ADDRESS = "10.90.2.50"
MARKER = secrets.token_hex(16)
"""What stands in the memory and on the disk of the guests of this test run."""


@contextmanager
def placed(lab: Lab) -> Iterator[Group]:
    """Be where a conductor is: in the lab's management network. The guest's image is made before: it may download."""
    group = lab.group
    build()
    assert group.management_netns is not None
    with network_kept():
        netns.enter(group.management_netns)
        yield group


@contextmanager
def network_kept() -> Iterator[None]:
    """Bring the calling thread back to the network in which it is now."""
    with open("/proc/thread-self/ns/net", "rb") as before:
        try:
            yield
        finally:
            netns.enter_open(before.fileno())


def make_lab(root: Path) -> Lab:
    """Create a lab of two hosts."""
    return create(root=root)


@contextmanager
def made_lab() -> Iterator[Lab]:
    """Give a lab of two hosts in a state directory of its own; at the end it is taken away."""
    root = Path(tempfile.mkdtemp(prefix="rl-"))
    try:
        yield make_lab(root)
    finally:
        reap(tuple(summary.id for summary in list_labs(root)), root)
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def made_vm(group: Group, host: str, name: str, **guest: Any) -> Iterator[VmSpec]:
    """Give a VM that runs on a host; at the end every copy of it is removed from all hosts."""
    spec = make_vm(group, host_of(group, host), name, **guest)
    try:
        yield spec
    finally:
        for each in group.hosts:
            remove_copy(each, spec)
            for file in (line_file(spec.name), console_file(spec.name)):
                (Path(each.log_directory) / file).unlink(missing_ok=True)


@contextmanager
def driven(group: Group, plan: Plan) -> Iterator[Driver]:
    """Give a driver of a new operation; its backend is closed at the end."""
    driver = Driver(group, plan)
    try:
        yield driver
    finally:
        driver.backend.close()


def remove_copy(host: HostEntry, spec: VmSpec) -> None:
    """Remove the copy of a VM that is on a host, if there is one."""
    until(lambda: _removed(host, spec.id), f"no copy of {spec.name} on {host.name}")


def _removed(host: HostEntry, vm_id: str) -> bool:
    """Remove a copy of a VM; False while the host does not do it, because a hand-over is still being closed."""
    try:
        with connection.fresh(host) as fresh:
            domain = connection.find(fresh, vm_id)
            if domain is not None and domain.isActive():
                domain.destroy()
            domain = connection.find(fresh, vm_id)
            if domain is not None:
                domain.undefine()
            return connection.find(fresh, vm_id) is None
    except connection.failures():
        return False


def make_vm(
    group: Group,
    host: HostEntry,
    name: str,
    memory_mib: int = 128,
    *,
    disk: bool = True,
    lease: bool = True,
    works: bool = True,
    **guest: Any,
) -> VmSpec:
    """Create a VM, start it, and wait until its guest works, which takes some seconds, unless nobody needs that.

    Without a disk nothing but the lease can exclude a second copy; without a lease, which no user gets, nothing at all.
    """
    image = build()
    id = str(uuid.uuid4())
    path = _disk(group, id) if disk else ""
    parameters = GuestParameters(**{"address": f"{GUEST_ADDRESS}/24", "marker": MARKER, **guest})
    spec = VmSpec(name, id, memory_mib, path, str(image.kernel), str(image.initramfs), parameters.command_line())
    vms.create(group, host, spec)
    if not lease:
        with connection.fresh(host) as fresh:
            fresh.defineXML(without_lease(domain_xml(spec, group, host)))
    vms.start(host, name)
    if works:
        wait_for_lines(host, name, 50)
    return spec


def without_lease(xml: str) -> str:
    """Return a domain's XML without its lease."""
    return xml[: xml.index("<lease>")] + xml[xml.index("</lease>") + len("</lease>") :]


def _disk(group: Group, id: str) -> str:
    disk = Path(group.shared_directory) / "disks" / f"{id}.raw"
    disk.parent.mkdir(exist_ok=True)
    with disk.open("wb") as file:
        file.truncate(DISK_MIB << 20)
    return str(disk)


def lines(host: HostEntry, name: str) -> list[str]:
    """Return the lines of a VM's line channel on one host."""
    return line_bytes(host, name).decode(errors="replace").splitlines()


def wait_for_lines(host: HostEntry, name: str, more: int) -> None:
    """Wait until a guest has written more lines on this host: it works there."""
    wanted = len(lines(host, name)) + more
    until(lambda: len(lines(host, name)) >= wanted, f"{more} lines of {name} on {host.name}")


def until(reached: Any, what: str, timeout_s: float = EVENT_TIMEOUT_S) -> None:
    """Wait for something that shows itself, bounded."""
    end = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < end, f"not seen: {what}"
        time.sleep(0.01)


class Driver:
    """Gives commands of one operation to a backend and takes its events, as the engine would."""

    def __init__(self, group: Group, plan: Plan, operation: str | None = None) -> None:
        self.group = group
        self.plan = plan
        self.operation = operation or uuid.uuid4().hex[:8]
        self.events: list[Event] = []
        self._inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._step = 0
        self.backend = LibvirtBackend(group, self._inbox.put, time.time_ns)

    @property
    def source(self) -> HostEntry:
        return host_of(self.group, self.plan.source)

    @property
    def destination(self) -> HostEntry:
        return host_of(self.group, self.plan.destination)

    def give(self, kind: CommandKind) -> None:
        self._step += 1
        request = MigrationRequest(vm=self.plan.vm, destination=self.plan.destination)
        self.backend.submit(Command(kind, self.operation, self._step, request, self.plan))

    def take(self, timeout_s: float = EVENT_TIMEOUT_S) -> Event:
        try:
            event = self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            raise AssertionError(f"no event in time; so far: {self.kinds()}") from None
        self.events.append(event)
        return event

    def wait_for(self, *kinds: Kind) -> Event:
        while True:
            event = self.take()
            if event.kind in kinds:
                return event
            failed = event.kind is Kind.CALL_RETURNED and event["ok"] is False
            assert not failed, f"waiting for {kinds}: {event.to_json()}"

    def ask(self, kind: CommandKind, *answers: Kind) -> Event:
        self.give(kind)
        return self.wait_for(*answers)

    def evidence(self) -> Evidence:
        found: Evidence = self.ask(CommandKind.INSPECT, Kind.EVIDENCE_SEEN)["evidence"]
        return found

    def kinds(self, *, without: Sequence[Kind] = (Kind.PROGRESS, Kind.PASS_ENDED)) -> list[Kind]:
        return [event.kind for event in self.events if event.kind not in without]

    def seen(self, kind: Kind) -> list[Event]:
        return [event for event in self.events if event.kind is kind]

    def prepare(self) -> None:
        answer = self.ask(CommandKind.PREPARE, Kind.PREPARED, Kind.NETWORK_FAILED, Kind.PREPARE_FAILED)
        assert answer.kind is Kind.PREPARED, answer

    def hold(self, bandwidth_mib_s: int = 3) -> None:
        """Begin a transfer that stays in the memory phase: a narrow channel, and 1 ms as the longest downtime.

        libvirt-qemu 9.3.
        """
        self.plan = replace(self.plan, bandwidth_mib_s=bandwidth_mib_s)
        self.prepare()
        self.give(CommandKind.START_TRANSFER)
        self.wait_for(Kind.MEMORY_SEEN)
        with connection.fresh(self.source) as fresh:
            fresh.lookupByUUIDString(self.plan.vm_id).migrateSetMaxDowntime(1, 0)

    def hand_over(self) -> Event:
        """From a transfer under way to its return: see the arrival, see the source bound, let run."""
        self.wait_for(Kind.DESTINATION_ARRIVED)
        self.bind_and_run()
        return self.seen(Kind.CALL_RETURNED)[-1] if self.seen(Kind.CALL_RETURNED) else self.wait_for(Kind.CALL_RETURNED)

    def bind_and_run(self) -> None:
        self.give(CommandKind.LOOK_FOR_BINDING)
        while not self.wait_for(Kind.BINDING_SEEN)["bound"]:
            pass
        answer = self.ask(CommandKind.ALLOW_RUN, Kind.DESTINATION_RAN, Kind.RUN_REFUSED)
        assert answer.kind is Kind.DESTINATION_RAN, answer

    def roll_back(self) -> None:
        """The source owns: put in order, clean up."""
        answer = self.ask(CommandKind.SETTLE_SOURCE, Kind.SETTLED, Kind.CANNOT_SETTLE)
        assert answer.kind is Kind.SETTLED, answer.to_json()
        assert self.ask(CommandKind.CLEAN_UP, Kind.CLEANED, Kind.LEFT_BEHIND).kind is Kind.CLEANED

    def lose_backend(self) -> None:
        """Abandon the backend without a word, as a dead controller would, and go on with another."""
        abandoned, self._inbox, self.events = self.backend, queue.SimpleQueue(), []
        self.backend = LibvirtBackend(self.group, self._inbox.put, time.time_ns)
        abandoned.close()

    def finish(self) -> None:
        assert self.ask(CommandKind.SETTLE_DESTINATION, Kind.SETTLED, Kind.CANNOT_SETTLE).kind is Kind.SETTLED
        assert self.ask(CommandKind.CLEAN_UP, Kind.CLEANED, Kind.LEFT_BEHIND).kind is Kind.CLEANED

    def move(self) -> Event:
        """The whole move; returns CALL_RETURNED."""
        self.prepare()
        self.give(CommandKind.START_TRANSFER)
        returned = self.hand_over()
        self.finish()
        return returned


def host_of(group: Group, name: str) -> HostEntry:
    """Return a host of the group."""
    host = group.host(name)
    assert host is not None
    return host


def plan_of(group: Group, spec: VmSpec, source: str, destination: str, **other: Any) -> Plan:
    """Return the plan of a move."""
    networks = tuple(n.address for n in host_of(group, destination).migration_networks)
    return Plan(spec.name, spec.id, source, destination, networks, memory_mib=spec.memory_mib, **other)


def line_bytes(host: HostEntry, name: str) -> bytes:
    """Return what a VM's line channel holds on one host."""
    path = Path(host.log_directory) / line_file(name)
    return path.read_bytes() if path.exists() else b""
