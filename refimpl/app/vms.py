"""Virtual machines with the built-in guest: made with disk, address and lease, started, stopped, removed, listed.

What belongs to a VM stands beside its disk on the storage that the group's hosts share: NAME.raw, and NAME.json with
its id, its address and what its guest was told. The observers read it from there.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from refimpl.backends.libvirt import connection, vms
from refimpl.backends.libvirt.domain import VmSpec, line_file
from refimpl.engine.backend import Backend
from refimpl.guest import GuestParameters, build
from refimpl.guest.commands import send_command
from refimpl.hosts.lock import locked
from refimpl.hosts.wait import until
from refimpl.model.errors import Problem, RefimplError, Value, error
from refimpl.model.facts import HostFacts, Scope, VmFacts, VmState
from refimpl.model.group import Group, HostEntry

T = TypeVar("T")

BLOCK_BYTES = 4096
_FIRST_ADDRESS = 100
_OFF_S = 4.0
_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class VmRecord:
    """What is kept of a VM beside its disk. `address` is the guest's, with the prefix length of the VM network."""

    name: str
    id: str
    address: str
    memory_mib: int
    vcpus: int
    accelerator: str
    parameters: GuestParameters

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> VmRecord:
        """Build a record from what `to_json` gave."""
        return cls(**{**data, "parameters": GuestParameters(**data["parameters"])})


@dataclass(frozen=True, slots=True)
class VmPlace:
    """A VM on one host, as it was seen there."""

    host: HostEntry
    facts: VmFacts


class VmDesk:
    """Carries out what is asked about the VMs of one group. RefimplError for everything that a user can mend."""

    def __init__(self, group: Group, backend: Backend) -> None:
        """Use this backend to look; the process has to be in the group's management network."""
        self._group = group
        self._backend = backend

    def look(self) -> dict[str, HostFacts]:
        """Return what every host shows now."""
        return dict(self._backend.observe(Scope()).hosts)

    def create(
        self,
        name: str,
        host: str | None,
        *,
        memory_mib: int,
        vcpus: int = 1,
        accelerator: str = "tcg",
        parameters: GuestParameters | None = None,
    ) -> VmRecord:
        """Make a VM that is off, on a host (None: the one with the most memory left). Builds the guest if needed."""
        seen = self.look()
        entry = self._entry(host) if host else self._roomiest(seen)
        for facts in seen.values():
            taken = facts.vm(name)
            if taken is not None:
                raise _failed("vm.name_taken", host=facts.name, vm=name, state=taken.state, id=taken.id)
        image = build()
        with self._reserved() as address:
            observer = self._group.labels["observer_address"]
            told = replace(parameters or GuestParameters(), address=address, observer_address=observer)
            record = VmRecord(name, str(uuid.uuid4()), address, memory_mib, vcpus, accelerator, told)
            self._make_disk(record)
        spec = VmSpec(
            name=name,
            id=record.id,
            memory_mib=memory_mib,
            disk_path=str(self.disk(name)),
            kernel=str(image.kernel),
            initramfs=str(image.initramfs),
            command_line=told.command_line(),
            accelerator=accelerator,
            vcpus=vcpus,
        )
        try:
            self._do("Creating", entry, name, lambda: vms.create(self._group, entry, spec))
        except RefimplError:
            self._forget(name)
            raise
        return record

    def start(self, name: str) -> VmPlace:
        """Start a VM where it is defined; `memory.short` when the host has no room for it."""
        place = self.find(name)
        if place.facts.state is VmState.RUNNING:
            return place
        room = self.look()[place.host.name]
        free_mib = room.memory_mib - room.memory_used_mib
        if free_mib < place.facts.memory_mib:
            needed_mib, total_mib = place.facts.memory_mib, room.memory_mib
            values = {"free_mib": free_mib, "total_mib": total_mib, "needed_mib": needed_mib}
            raise _failed("memory.short", vm=name, host=room.name, **values)
        self._do("Starting", place.host, name, lambda: vms.start(place.host, name))
        return place

    def stop(self, name: str, *, force: bool = False) -> VmPlace:
        """Switch a VM off by asking its guest, or with `force` at once; `vm.does_not_stop` when the guest does not."""
        place = self.find(name)
        self._refuse_if_marked(place)
        if not force and self._guest_obeys(place):
            return place
        stopped = self._do("Stopping", place.host, name, lambda: vms.stop(place.host, name, force=force))
        if not stopped:
            raise _failed("vm.does_not_stop", vm=name, host=place.host.name)
        return place

    def remove(self, name: str) -> VmPlace:
        """Remove a VM that is off, with its disk and lease."""
        place = self.find(name)
        self._refuse_if_marked(place)
        if place.facts.state is not VmState.OFF:
            raise _failed("vm.not_off", vm=name, host=place.host.name, state=place.facts.state)
        self._do("Removing", place.host, name, lambda: vms.remove(self._group, place.host, name))
        self._forget(name)
        return place

    def find(self, name: str) -> VmPlace:
        """Return where a VM is: `vm.unknown`, or `vm.several` when more than one host has it."""
        seen = self.look()
        places = [(facts.name, vm) for facts in seen.values() if (vm := facts.vm(name)) is not None]
        if not places:
            known = ", ".join(sorted({vm.name for facts in seen.values() for vm in facts.vms})) or "none"
            raise error("vm.unknown", group=self._group.name, vm=name, known=known)
        marked = next((vm.operation for _, vm in places if vm.operation is not None), None)
        if len(places) > 1 and marked is not None:
            raise error("vm.stamped", vm=name, operation=marked)
        if len(places) > 1:
            raise error("vm.several", vm=name, hosts=", ".join(host for host, _ in places))
        return VmPlace(self._entry(places[0][0]), places[0][1])

    def record(self, name: str) -> VmRecord | None:
        """Return what is kept of a VM beside its disk, None when it was not made here."""
        try:
            return VmRecord.from_json(json.loads(self._record_path(name).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def disk(self, name: str) -> Path:
        """Return the path of a VM's disk."""
        return self._directory / f"{name}.raw"

    def line_files(self, name: str) -> dict[str, Path]:
        """Return, host by host, the file to which the VM's guest writes its lines there."""
        return {host.name: Path(host.log_directory) / line_file(name) for host in self._group.hosts}

    @property
    def _directory(self) -> Path:
        return Path(self._group.labels.get("disk_directory") or self._group.shared_directory)

    def _record_path(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def _entry(self, name: str) -> HostEntry:
        found = self._group.host(name)
        if found is None:
            known = ", ".join(host.name for host in self._group.hosts)
            raise _failed("host.unknown", group=self._group.name, host=name, known=known)
        return found

    def _roomiest(self, seen: dict[str, HostFacts]) -> HostEntry:
        reachable = [facts for facts in seen.values() if facts.reachable]
        if not reachable:
            first = self._group.hosts[0].name
            native = seen[first].native
            raise _failed("host.down", host=first, detail=native.text if native else "no answer")
        return self._entry(max(reachable, key=lambda facts: facts.memory_mib - facts.memory_used_mib).name)

    def _guest_obeys(self, place: VmPlace) -> bool:
        """Tell the guest by its own channel to switch itself off; it has no driver for the power button."""
        record = self.record(place.facts.name)
        if record is None or place.facts.state is not VmState.RUNNING:
            return False
        with contextlib.suppress(OSError):
            send_command(str(ipaddress.IPv4Interface(record.address).ip), "off", attempts=2)
        return until(lambda: self.find(record.name).facts.state is VmState.OFF, _OFF_S, _PAUSE_S)

    def _refuse_if_marked(self, place: VmPlace) -> None:
        if place.facts.operation is not None:
            raise error("vm.stamped", vm=place.facts.name, operation=place.facts.operation)

    def _do(self, what: str, host: HostEntry, vm: str, work: Callable[[], T]) -> T:
        try:
            return work()
        except connection.failures() as failure:
            values = {"what": what, "vm": vm, "host": host.name, "detail": str(failure)}
            problem = Problem("vm.not_done", values, host=host.name, native=connection.native(failure))
            raise RefimplError(problem) from failure

    @contextmanager
    def _reserved(self) -> Iterator[str]:
        """Give a free address of the VM network; it is taken once a record with it was written inside."""
        with locked(self._directory / ".addresses.lock"):
            network = ipaddress.IPv4Network(self._group.labels["vm_network"])
            records = (self.record(path.stem) for path in self._directory.glob("*.json"))
            taken = {record.address for record in records if record is not None}
            hosts = [
                f"{network[number]}/{network.prefixlen}" for number in range(_FIRST_ADDRESS, network.num_addresses - 1)
            ]
            free = next((address for address in hosts if address not in taken), None)
            if free is None:
                raise error("vm.no_address", network=str(network))
            yield free

    def _make_disk(self, record: VmRecord) -> None:
        disk = self.disk(record.name)
        try:
            descriptor = os.open(disk, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise error("vm.disk_exists", vm=record.name, path=str(disk)) from None
        os.ftruncate(descriptor, record.parameters.disk_blocks * BLOCK_BYTES)
        os.close(descriptor)
        text = json.dumps(record.to_json(), indent=1)
        self._record_path(record.name).write_text(text, "utf-8")

    def _forget(self, name: str) -> None:
        self._record_path(name).unlink(missing_ok=True)
        self.disk(name).unlink(missing_ok=True)


def _failed(problem: str, /, **values: Value) -> RefimplError:
    return RefimplError(Problem(problem, values, host=str(values["host"]) if "host" in values else None))
