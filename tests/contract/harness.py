"""What a contract test needs of a backend: two hosts, one running VM, and ways to lose things.

A harness makes a fresh pair of hosts: `source` with the one running VM, `destination` empty. Tests speak to the backend
through the seam alone (`give`, `wait_for`) and look at the truth through `copies`. What a harness cannot do, it says by
`can`; such a test is not applicable there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import pytest

from refimpl.engine.backend import Backend
from refimpl.model.events import Event, Kind
from refimpl.model.facts import Evidence, Scope, VmState
from refimpl.model.request import Command, CommandKind, HandOver, MigrationRequest, Plan
from refimpl.model.storage import DiskMove, SourceFile, StoragePlan

OPERATION = "0a1b2c3d"
OTHER_OPERATION = "ffffffff"
NOWHERE = "203.0.113.9"
"""An address of a network that no host is on (RFC 5737)."""


HARNESS_NEEDS = ("hold_memory", "host_down", "own_disks", "states", "strict")
"""What is not for the backend to declare."""


class Harness(Protocol):
    """One pair of hosts under one backend. `can` holds: hold_memory, host_down, own_disks, states."""

    name: str
    source: str
    destination: str
    can: frozenset[str]

    @property
    def backend(self) -> Backend:
        """The present backend object."""
        ...

    def plan(self) -> Plan:
        """Return the plan of a move of the VM from source to destination."""
        ...

    def next_event(self) -> Event:
        """Wait for the next event, bounded; AssertionError when none can come any more."""
        ...

    def be(self, state: VmState) -> None:
        """Called first: have the VM be paused or off; plans are of such a VM from then on."""
        ...

    def own_disks(self) -> str:
        """Called first: have a disk that can move; return the directory of the destination to which it can go."""
        ...

    def has_file(self, host: str, path: str) -> bool:
        """Whether a host has a file."""
        ...

    def put_file(self, host: str, path: str) -> None:
        """Put a stranger's file on a host; it goes when the harness is put away."""
        ...

    def hold_memory(self) -> None:
        """Called first: make pre-copy go on until `let_go` or a forced switch."""
        ...

    def let_go(self) -> None:
        """End what `hold_memory` began."""
        ...

    def lose_backend(self) -> None:
        """Forget the backend object without telling it anything, as a killed controller would, and make another."""
        ...

    def host_down(self, host: str) -> None:
        """Power a host off."""
        ...

    def close(self) -> None:
        """Put everything away."""
        ...


class Bench:
    """A harness with the verbs that the tests are written in. `events` are all since the last loss of a backend."""

    def __init__(self, harness: Harness) -> None:
        self.h = harness
        self.events: list[Event] = []
        self._step = 0
        self._taking: Plan | None = None

    @property
    def strict(self) -> bool:
        return self.h.plan().hand_over is HandOver.STRICT

    def needs(self, capability: str) -> None:
        """Skip unless the backend declares, or the harness has, what the test is about."""
        declared = self.h.backend.capabilities() if capability not in HARNESS_NEEDS else None
        has = self.strict if capability == "strict" else capability in self.h.can
        if not (getattr(declared, capability) if declared else has):
            pytest.skip(f"not applicable: {self.h.name} does not declare {capability}; it would run if it did")

    def give(self, kind: CommandKind, operation: str = OPERATION, plan: Plan | None = None) -> None:
        self._step += 1
        plan = plan or self._taking or self.h.plan()
        request = MigrationRequest(vm=plan.vm, destination=plan.destination, source=plan.source)
        self.h.backend.submit(Command(kind, operation, self._step, request, plan))

    def wait_for(self, *kinds: Kind) -> Event:
        """Take events until one of these comes."""
        for _ in range(100_000):
            event = self.h.next_event()
            self.events.append(event)
            if event.kind in kinds:
                return event
        raise AssertionError(f"none of {kinds} came")

    def ask(self, kind: CommandKind, *answers: Kind, operation: str = OPERATION, plan: Plan | None = None) -> Event:
        """Give a command and wait for its answer."""
        self.give(kind, operation, plan)
        return self.wait_for(*answers)

    def barrier(self) -> None:
        """Let everything that was already on its way arrive: two more inspections are answered."""
        for _ in range(2):
            self.ask(CommandKind.INSPECT, Kind.EVIDENCE_SEEN)

    def evidence(self) -> Evidence:
        seen = self.ask(CommandKind.INSPECT, Kind.EVIDENCE_SEEN)["evidence"]
        assert isinstance(seen, Evidence)
        return seen

    def prepare(self) -> None:
        self.ask(CommandKind.PREPARE, Kind.PREPARED, Kind.PREPARE_FAILED)
        assert self.events[-1].kind is Kind.PREPARED, self.events[-1].to_json()

    def start(self) -> None:
        self.prepare()
        self.give(CommandKind.START_TRANSFER)

    def be(self, state: VmState) -> None:
        """Have the VM be paused or off."""
        self.needs("states")
        self.h.be(state)

    def take_disks(self) -> DiskMove:
        """Have all plans from now on take the VM's disk along; return how it moves."""
        self.needs("own_disks")
        directory, plan = self.h.own_disks(), self.h.plan()
        vm = self.h.backend.observe(Scope(vm=plan.vm)).hosts[plan.source].vm(plan.vm)
        assert vm is not None
        disk = vm.disks[0]
        assert disk.identity is not None
        assert disk.virtual_size_bytes is not None
        target = f"{directory}/{disk.path.rpartition('/')[2]}"
        move = DiskMove(disk.path, target, "raw", disk.virtual_size_bytes, disk.identity)
        storage = StoragePlan((move,), removed=(SourceFile(disk.path, disk.identity),))
        self._taking = replace(plan, storage=storage)
        return move

    def start_held(self) -> None:
        """Begin a transfer that stays in pre-copy."""
        self.needs("hold_memory")
        self.h.hold_memory()
        self.start()
        self.wait_for(Kind.MEMORY_SEEN)

    def see_bound(self) -> None:
        """Look for the binding until the source is seen bound."""
        seen = self.ask(CommandKind.LOOK_FOR_BINDING, Kind.BINDING_SEEN)
        while not seen["bound"]:
            seen = self.wait_for(Kind.BINDING_SEEN)

    def carry_through(self) -> Event:
        """Do what the engine would until the call has returned and, when allowed to run, the destination ran."""
        returned: Event | None = None
        pending = False
        for _ in range(100_000):
            event = self.h.next_event()
            self.events.append(event)
            if event.kind is Kind.DESTINATION_ARRIVED and self.strict:
                self.give(CommandKind.LOOK_FOR_BINDING)
            elif event.kind is Kind.BINDING_SEEN and event["bound"]:
                self.give(CommandKind.ALLOW_RUN)
                pending = True
            elif event.kind in (Kind.DESTINATION_RAN, Kind.LEFT_PAUSED, Kind.RUN_REFUSED):
                pending = False
            elif event.kind is Kind.CALL_RETURNED:
                returned = event
            if returned is not None and not pending:
                return returned
        raise AssertionError("the transfer did not end")

    def move(self) -> Event:
        """A whole transfer; returns CALL_RETURNED."""
        self.start()
        return self.carry_through()

    def lose_backend(self) -> None:
        self.h.lose_backend()
        self.events = []

    def copies(self, *, marks: bool = False) -> dict[str, Any]:
        """Return the state, and the mark, of the VM's copies by host, as they are now."""
        plan = self.h.plan()
        found: dict[str, Any] = {}
        for name, host in self.h.backend.observe(Scope(vm=plan.vm)).hosts.items():
            vm = host.vm(plan.vm)
            if vm is not None and vm.state is not VmState.ABSENT:
                found[name] = (vm.state, vm.operation) if marks else vm.state
        return found

    def kinds(self) -> list[Kind]:
        return [event.kind for event in self.events]

    def count(self, *kinds: Kind) -> int:
        return sum(event.kind in kinds for event in self.events)

    def bad_network(self) -> Plan:
        return replace(self.h.plan(), networks=(NOWHERE,), network=0)
