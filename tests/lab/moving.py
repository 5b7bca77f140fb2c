"""What the tests of whole moves share: one lab, one working guest, conductor processes, and a look at what is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from refimpl.app.home import Home, OperationFiles
from refimpl.app.operations import Operation, start
from refimpl.app.recovery import Interrupted, interrupted, recover_one
from refimpl.backends.libvirt import connection
from refimpl.backends.libvirt.backend import LibvirtBackend
from refimpl.backends.libvirt.domain import VmSpec, line_file
from refimpl.engine.store import GroupStore
from refimpl.hosts import netns, process
from refimpl.hosts.factory import channel_for
from refimpl.lab import Lab, leftovers
from refimpl.meter.lines import JoinedLog, read_log
from refimpl.model.events import Kind
from refimpl.model.facts import HostFacts, Scope, VmState
from refimpl.model.group import Group
from refimpl.model.outcome import Outcome
from refimpl.model.request import MigrationRequest
from tests.healing import Healing
from tests.lab.lab_support import state_directory
from tests.lab.libvirt_support import host_of, lines, make_lab, make_vm, placed, wait_for_lines

TIMEOUT_S = 60.0
STOPS = ("REFIMPL_TEST_STOP", "REFIMPL_TEST_STOP_FILE")
"""The variables that make a process stop somewhere."""


def until(reached: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Wait for something that shows itself, bounded; return it."""
    end = time.monotonic() + timeout_s
    while not (found := reached()):
        assert time.monotonic() < end, f"not seen in {timeout_s} s: {what}"
        time.sleep(0.01)
    return found


@dataclass
class Stop:
    """A stop point in a conductor."""

    name: str
    marker: Path

    def reached(self) -> int:
        """Wait until a process stands there; return its pid."""
        until(self.marker.exists, f"stop point {self.name}")
        return int(self.marker.read_text().split()[-1])

    def go(self) -> None:
        """Let it go on."""
        Path(f"{self.marker}.go").touch()


@contextmanager
def working_guest(directory: Path) -> Iterator[Moving]:
    """Make a lab with one working guest; at the end nothing of it may be left."""
    for name in STOPS:
        os.environ.pop(name, None)
    with state_directory() as root:
        lab = make_lab(root)
        try:
            with placed(lab) as group:
                observer = group.labels["observer_address"]
                spec = make_vm(group, group.hosts[0], name="web", observer_address=observer)
                yield Moving(lab, spec, directory)
        finally:
            lab.down()
            assert leftovers(lab.id, root) == []


class Moving:
    """A lab with one guest that moves between its two hosts; the calling thread is in the management network."""

    def __init__(self, lab: Lab, spec: VmSpec, directory: Path) -> None:
        self.lab = lab
        self.spec = spec
        self.directory = directory
        self.home = Home(directory / "home")
        self._stops = 0

    def settle_in(self, directory: Path) -> None:
        """Keep what the next test needs, and what its moves write, in a directory of that test; be where its hosts are.

        The VM has to be in one place.
        """
        assert self.group.management_netns is not None
        netns.enter(self.group.management_netns)
        self.directory = directory
        self.home = Home(directory / "home")
        self.place()

    @contextmanager
    def lent(self, directory: Path) -> Iterator[Self]:
        """Give the running guest to a test; after it the guest works, and nothing of an operation is left."""
        self.settle_in(directory)
        yield self
        self.whole()

    @property
    def group(self) -> Group:
        """The lab's group as it is now: a host that was off and on has another init."""
        return self.lab.group

    def hosts(self) -> dict[str, HostFacts]:
        """Look at the hosts."""
        backend = LibvirtBackend(self.group, lambda _: None, time.time_ns)
        try:
            return dict(backend.observe(Scope()).hosts)
        finally:
            backend.close()

    def states(self) -> dict[str, VmState]:
        """Return on which hosts there is a copy of the VM, and in which state."""
        found = {name: facts.vm(self.spec.name) for name, facts in self.hosts().items()}
        return {name: vm.state for name, vm in found.items() if vm is not None}

    def place(self) -> str:
        """Return the one host on which the VM runs; it has to be in exactly one place."""
        states = self.states()
        assert list(states.values()) == [VmState.RUNNING], states
        return next(iter(states))

    def other(self) -> str:
        """Return the host on which the VM is not."""
        place = self.place()
        return next(h.name for h in self.group.hosts if h.name != place)

    def request(self, **changes: Any) -> MigrationRequest:
        """Return the request to move the VM to where it is not."""
        destination = changes.pop("destination", None) or self.other()
        return MigrationRequest(**{"vm": self.spec.name, "destination": destination, **changes})

    def start(self, home: Home | None = None, **changes: Any) -> Operation:
        """Start a move."""
        return start(home or self.home, self.group, self.request(**changes))

    @contextmanager
    def stop_at(self, name: str) -> Iterator[Stop]:
        """Make the next conductor stop somewhere."""
        self._stops += 1
        stop = Stop(name, self.directory / f"stop-{self._stops}")
        os.environ.update(zip(STOPS, (name, str(stop.marker)), strict=True))
        try:
            yield stop
        finally:
            stop.go()
            for variable in STOPS:
                del os.environ[variable]

    def kill_at(self, name: str, *, then: Callable[[Operation], None] = lambda _: None, **changes: Any) -> Operation:
        """Start a move and end its conductor with SIGKILL exactly at a stop point; `then` happens after the start."""
        with self.stop_at(name) as stop:
            operation = self.start(**changes)
            then(operation)
            pid = stop.reached()
            os.kill(pid, signal.SIGKILL)
            until(lambda: not operation.alive(), "the end of the conductor")
        return operation

    def interrupted(self, *, marks: bool = True) -> tuple[Interrupted, ...]:
        """Return what was interrupted."""
        backend = LibvirtBackend(self.group, lambda _: None, time.time_ns) if marks else None
        try:
            return interrupted(self.home, self.group, backend)
        finally:
            if backend is not None:
                backend.close()

    def recover(self) -> Outcome:
        """Recover the one operation that was interrupted."""
        (item,) = self.interrupted()
        return recover_one(self.home, self.group, item).wait()

    def forget_journal(self, operation: Operation) -> None:
        """Lose the whole directory of an operation, as with a lost disk."""
        shutil.rmtree(OperationFiles(self.home.operations / operation.id).directory)

    def works(self) -> None:
        """The guest does its work where it is."""
        wait_for_lines(host_of(self.group, self.place()), self.spec.name, 20)

    def nothing_left(self) -> None:
        """No claim, lock file, mark on a VM or shut port, nothing interrupted, no lease of a copy that is not there."""
        hosts = self.hosts()
        silent = [name for name, facts in hosts.items() if not facts.reachable]
        assert silent == [], f"hosts that do not answer: {silent}"
        store = Path(self.group.store_path)
        claims, locks = GroupStore(store).claims(), list(store.parent.glob(f"{store.name}.*.lock"))
        assert (claims, locks) == ((), []), f"left in the store: {claims}, {locks}"
        vms = [vm for facts in hosts.values() for vm in facts.vms]
        names_and_marks = [(vm.name, vm.operation) for vm in vms]
        assert names_and_marks == [(self.spec.name, None)], f"VMs and their marks: {names_and_marks}"
        assert vms[0].lease is not None
        assert vms[0].lease.held, "the lease is not held"
        interrupted = self.interrupted(marks=False)  # that there is no mark was just seen
        assert interrupted == (), f"interrupted: {interrupted}"
        for host in self.group.hosts:
            assert "refimpl_" not in channel_for(host).run(["nft", "list", "tables"]).stdout, "a port may be shut"

    def whole(self) -> None:
        """The guest works in one place and never had an error on its disk, and nothing else is left behind."""
        assert not os.environ.keys() & set(STOPS), "processes would stop somewhere"
        self.works()
        errors = [line for line in self.heartbeats() if " disk-error " in line]
        assert errors == [], f"the guest met errors on its disk: {errors}"
        self.nothing_left()

    def end_inhabitants(self) -> None:
        """End all other processes in the lab's own management network: those that a test has abandoned there."""
        name = self.group.management_netns
        assert name is not None
        inode = (netns.NETNS_DIRECTORY / name).stat().st_ino
        for pid in set(process.all_pids()) - {os.getpid()}:
            if process.namespace_inode(pid, "net") == inode:
                with suppress(ProcessLookupError):
                    process.kill(process.here(pid))

    def heartbeats(self) -> list[str]:
        """Return the lines of the guest from both hosts."""
        return [line for host in self.group.hosts for line in lines(host, self.spec.name)]

    def hold_memory(self, host: str) -> None:
        """Keep a transfer that has begun in the memory phase (libvirt-qemu 9.3), until `release_memory`."""
        with connection.fresh(host_of(self.group, host)) as fresh:
            fresh.lookupByUUIDString(self.spec.id).migrateSetMaxDowntime(1, 0)

    def release_memory(self, host: str) -> None:
        """Let a held transfer go on at full speed."""
        with connection.fresh(host_of(self.group, host)) as fresh:
            domain = fresh.lookupByUUIDString(self.spec.id)
            domain.migrateSetMaxSpeed(10_000)
            domain.migrateSetMaxDowntime(30_000, 0)


def guests_that_move(tmp_path_factory: pytest.TempPathFactory) -> Healing[Moving]:
    """Return a lab with a working guest for test after test, made when the first one wants it."""
    return Healing(
        "the moving guest, with its lab,",
        lambda: working_guest(tmp_path_factory.mktemp("moving")),
        look=Moving.whole,
        give_up=Moving.end_inhabitants,
    )


def kinds(operation: Operation) -> list[str]:
    """Return the kinds of all events of an operation."""
    return [event["kind"] for event in operation.events()]


def wait_for(operation: Operation, kind: Kind) -> dict[str, Any]:
    """Wait until an operation has reported an event of a kind."""
    for event in operation.events():
        if event["kind"] == kind:
            return event
    raise AssertionError(f"operation {operation.id} ended without {kind}; {json.dumps(operation.outcome().to_json())}")


def joined_log(moving: Moving) -> JoinedLog:
    """Return what the guest has said on both hosts, joined."""
    files = {h.name: Path(h.log_directory) / line_file(moving.spec.name) for h in moving.group.hosts}
    return read_log({name: path for name, path in files.items() if path.exists()})
