"""Virtual machines: made, started, paused, stopped, removed, with the built-in guest or one of the user's own.

`vm_record` says what is kept of a VM, `own_guest` what a guest of one's own is made of, `vm_network` how it is reached,
`vm_settings` changes what there is.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from refimpl.app.own_guest import Examined, OwnGuest, Placed, examine, put
from refimpl.app.vm_network import Reach, VmNetwork
from refimpl.app.vm_places import VmPlace, VmPlaces, do, failed, newest, outside, own_disks, require_switch
from refimpl.app.vm_record import NicRecord, VmRecord, VmShelf, require_memory, require_name
from refimpl.backends.libvirt import vm_settings, vms
from refimpl.backends.libvirt.domain import DiskSpec, NicSpec, VmSpec, line_file, mac_address
from refimpl.backends.libvirt.vm_settings import Settings
from refimpl.engine.backend import Backend
from refimpl.guest import GuestParameters, build
from refimpl.guest.commands import send_command
from refimpl.hosts.process import alive, here
from refimpl.hosts.wait import until
from refimpl.lab.forward import Forward
from refimpl.lab.layout import LabPaths
from refimpl.meter.lines import read_log
from refimpl.model.errors import RefimplError, error
from refimpl.model.facts import HostFacts, VmState
from refimpl.model.group import Group, HostEntry
from refimpl.model.ownership import OwnerRecord

BLOCK_BYTES = 4096
WORKS_S = 120.0
"""So long a built-in guest may take until it works, and one of the user's own until it asks for an address."""
_OFF_S = 4.0
_PAUSE_S = 0.1

__all__ = ["VmDesk", "VmPlace", "VmRecord"]


class VmDesk:
    """Carries out what is asked about the VMs of one group. RefimplError for everything that a user can mend.

    `lab` is the group's lab, for addresses by DHCP and forwards, whose ports are made in the open network `outside`.
    """

    def __init__(self, group: Group, backend: Backend, lab: LabPaths | None = None, outside: int | None = None) -> None:
        """Use this backend to look; the process has to be in the group's management network."""
        directory = Path(group.labels.get("disk_directory") or group.shared_directory)
        self.places = VmPlaces(group, backend)
        self.shelf = VmShelf(directory, group.labels["vm_network"])
        self.network = VmNetwork(self.shelf, lab, outside)
        self._group = group

    def look(self) -> dict[str, HostFacts]:
        """Return what every host shows now."""
        return self.places.look()

    def find(self, name: str) -> VmPlace:
        """Return where a VM is: `vm.unknown`, or `vm.several` when more than one host has it."""
        return self.places.find(name)

    def record(self, name: str) -> VmRecord | None:
        """Return what is kept of a VM on the shared storage, None when it was not made here."""
        return self.shelf.record(name)

    def disk(self, name: str) -> Path:
        """Return the path of the built-in guest's disk: where it was written last, if there are several."""
        return newest([self.shelf.disk(name), *own_disks(self._group, name).values()])

    def line_files(self, name: str) -> dict[str, Path]:
        """Return, host by host, the file to which the VM's guest writes its lines there."""
        return {host.name: Path(host.log_directory) / line_file(name) for host in self._group.hosts}

    def settings(self, place: VmPlace) -> Settings:
        """Return the settings of a VM that was found."""
        name = place.facts.name
        return do("Looking at", place.host, name, lambda: vm_settings.read(place.host, name))

    def reach(self, name: str) -> Reach:
        """Return how the VM's guest is reached now."""
        record = self.record(name)
        return Reach(None) if record is None else self.network.reach(record)

    def create(
        self,
        name: str,
        host: str | None,
        *,
        memory_mib: int,
        vcpus: int = 1,
        accelerator: str = "tcg",
        parameters: GuestParameters | None = None,
        own: OwnGuest | None = None,
        forwards: Sequence[Forward] = (),
        local: bool = False,
    ) -> VmRecord:
        """Make a VM that is off, on a host (None: the one with the most memory left). What fails leaves nothing.

        Without `own` it has the built-in guest, which is built if needed, and works as `parameters` say. `local`: its
        disk lies on the host's own storage.
        """
        seen = self.look()
        entry = self.places.entry(host) if host else self.places.roomiest(seen)
        for facts in seen.values():
            taken = facts.vm(require_name(name))
            if taken is not None:
                raise failed("vm.name_taken", host=facts.name, vm=name, state=taken.state, id=taken.id)
        draft = VmRecord(
            name,
            str(uuid.uuid4()),
            None,
            memory_mib,
            vcpus,
            accelerator,
            forwards=tuple(forwards),
            maker=here(os.getpid()),
        )
        if own is None:
            parameters = parameters or GuestParameters()
            require_memory(name, parameters, memory_mib)
            making = self._built_in(draft, parameters, entry if local else None)
        else:
            examined = examine(own, name, Path(self._group.shared_directory))
            making = self._own(draft, examined, seen[entry.name], entry)
        with making as (record, spec):
            self._define(entry, spec)
        made = replace(record, maker=None)
        self.shelf.write(made)
        return made

    def _define(self, entry: HostEntry, spec: VmSpec) -> None:
        """Define a VM on a host, which is recorded as its owner before."""
        owners = self.places.owners
        owners.swap_owner(None, OwnerRecord(spec.id, entry.name))
        with contextlib.ExitStack() as undo:
            undo.callback(owners.forget_owner, spec.id)
            do("Creating", entry, spec.name, lambda: vms.create(self._group, entry, spec))
            undo.pop_all()

    def start(self, name: str) -> VmPlace:
        """Start a VM where it is defined; `memory.short` when the host has no room for it.

        `owner.elsewhere` when another host owns it, which still has a copy or does not answer.

        `lease.left_locked` when a host still holds the lease that it had there.

        `vm.stamped` while its definition is being moved, or stayed where the VM itself was moved away from.
        """
        place = self.find(name)
        if place.facts.state is VmState.RUNNING:
            return place
        place = self.places.find_to_run(name)
        room = self.look()[place.host.name]
        free_mib = room.memory_mib - room.memory_used_mib
        if free_mib < place.facts.memory_mib:
            needed_mib, total_mib = place.facts.memory_mib, room.memory_mib
            values = {"free_mib": free_mib, "total_mib": total_mib, "needed_mib": needed_mib}
            raise failed("memory.short", vm=name, host=room.name, **values)
        record = self.record(name)
        if record is not None:
            self.network.open(record)
        try:
            do("Starting", place.host, name, lambda: vms.start(place.host, name))
        except RefimplError as refused:
            keeper = vms.keeps_lease(self._group, place.facts.id)
            if keeper is None:
                raise
            raise failed("lease.left_locked", vm=name, host=keeper) from refused
        return place

    def start_and_wait(self, name: str, limit_s: float = WORKS_S) -> VmPlace:
        """Start a VM and wait until its guest works, or, one of the user's own, until it has an address.

        `guest.not_heard`, `guest.no_address` after `limit_s` seconds; the VM runs on.
        """
        record = self.record(name)
        boots = set(read_log(self.line_files(name)).boots)
        place = self.start(name)
        if record is None or place.facts.state is VmState.RUNNING:
            return place
        if record.parameters is not None:
            if not until(lambda: self._works(name, boots), limit_s, _PAUSE_S):
                raise error("guest.not_heard", what="work", vm=name, limit_s=limit_s)
        elif record.nics and not until(lambda: self.reach(name).address is not None, limit_s, _PAUSE_S):
            raise failed("guest.no_address", vm=name, host=place.host.name, limit_s=limit_s)
        return place

    def pause(self, name: str) -> VmPlace:
        """Let no processor of a running VM run; nothing when it is paused. `vm.wrong_state` when it is off."""
        place = self._in_state(name, "pausing", VmState.RUNNING, VmState.PAUSED)
        if place.facts.state is VmState.RUNNING:
            do("Pausing", place.host, name, lambda: vms.pause(place.host, name))
        return place

    def resume(self, name: str) -> VmPlace:
        """Let a paused VM go on; nothing when it runs. `vm.wrong_state` when it is off."""
        place = self._in_state(name, "resuming", VmState.PAUSED, VmState.RUNNING)
        if place.facts.state is VmState.PAUSED:
            self.places.find_to_run(name)
            do("Resuming", place.host, name, lambda: vms.resume(place.host, name))
        return place

    def stop(self, name: str, *, force: bool = False) -> VmPlace:
        """Switch a VM off by asking its guest, or with `force` at once; `vm.does_not_stop` when the guest does not."""
        place = self.places.find_to_change(name)
        if not force and self._guest_obeys(place):
            return place
        stopped = do("Stopping", place.host, name, lambda: vms.stop(place.host, name, force=force))
        if not stopped:
            raise failed("vm.does_not_stop", vm=name, host=place.host.name)
        return place

    def remove(self, name: str) -> VmPlace | None:
        """Remove a VM that is off, with its lease, its forwards, and the disks that were made for it.

        None: no host has it, and what was made for it is gone now. `vm.being_made` while somebody is at it.
        """
        left = self._left_over(name)
        if left is not None:
            host = self._group.hosts[0]
            do("Removing", host, name, lambda: vms.remove_lease(self._group, host, left.id))
            self._forget(name)
            self.places.owners.forget_owner(left.id)
            self.network.close(left)
            return None
        place = self.places.find_to_change(name)
        if place.facts.state is not VmState.OFF:
            raise failed("vm.not_off", vm=name, host=place.host.name, state=place.facts.state)
        record = self.record(name)
        owned = self.places.owners.owner(place.facts.id)
        do("Removing", place.host, name, lambda: vms.remove(self._group, place.host, name))
        if owned is not None and owned.owner == place.host.name:
            self.places.owners.forget_owner(owned.vm_id)
        self._forget(name)
        if record is not None:
            self.network.close(record)
        return place

    def _forget(self, name: str) -> None:
        """Remove what was made for a VM, also the built-in guest's disk on the own storage of any host."""
        record = self.record(name)
        if record is not None and record.parameters is not None:
            for path in own_disks(self._group, name).values():
                path.unlink(missing_ok=True)
        self.shelf.forget(name)

    def _left_over(self, name: str) -> VmRecord | None:
        """Return what is kept of a VM that no host has, as when its making was killed; `host.down` when one is silent.

        The record is read first: who was making the VM then and has ended makes nothing any more.
        """
        record, seen = self.record(name), self.look()
        if record is None or any(name == vm.name or record.id == vm.id for f in seen.values() for vm in f.vms):
            return None
        silent = next((facts for facts in seen.values() if not facts.reachable), None)
        if silent is not None:
            raise failed("host.down", host=silent.name, detail=silent.native.text if silent.native else "no answer")
        if record.maker is not None and alive(record.maker):
            raise error("vm.being_made", vm=name, pid=record.maker.pid)
        return record

    def _in_state(self, name: str, verb: str, *wanted: VmState) -> VmPlace:
        place = self.places.find_to_change(name)
        if place.facts.state not in wanted:
            values = {"state": place.facts.state, "verb": verb, "wanted": wanted[0]}
            raise failed("vm.wrong_state", vm=name, host=place.host.name, **values)
        return place

    def _works(self, name: str, boots_before: set[str]) -> bool:
        return any(line.boot not in boots_before for line in read_log(self.line_files(name)).of_kind("check-end"))

    def _guest_obeys(self, place: VmPlace) -> bool:
        """Tell the built-in guest by its own channel to switch itself off; it has no driver for the power button."""
        record = self.record(place.facts.name)
        if record is None or record.parameters is None or record.ip is None:
            return False
        if place.facts.state is not VmState.RUNNING:
            return False
        with contextlib.suppress(OSError):
            send_command(record.ip, "off", attempts=2)
        return until(lambda: self.find(record.name).facts.state is VmState.OFF, _OFF_S, _PAUSE_S)

    @contextlib.contextmanager
    def _built_in(
        self, draft: VmRecord, parameters: GuestParameters, own: HostEntry | None
    ) -> Iterator[tuple[VmRecord, VmSpec]]:
        image = build()
        observer, disk = self._group.labels["observer_address"], self.shelf.disk(draft.name)
        if own is not None:
            disk = Path(own.storage_directories[0]) / disk.name
        for path in own_disks(self._group, draft.name).values():
            if path.exists():
                raise error("vm.disk_exists", vm=draft.name, path=str(path))

        def make(free: Iterator[str]) -> VmRecord:
            address = next(free)
            told = replace(parameters, address=address, observer_address=observer, marker=secrets.token_hex(16))
            return replace(draft, address=address, parameters=told, disks=(str(disk),))

        with self._kept(self.shelf.reserve(make)) as record:
            assert record.parameters is not None
            file = disk if own is None else outside(own, str(disk))
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.ftruncate(descriptor, record.parameters.disk_blocks * BLOCK_BYTES)
            os.close(descriptor)
            yield (
                record,
                VmSpec(
                    name=record.name,
                    id=record.id,
                    memory_mib=record.memory_mib,
                    disk_path=str(disk),
                    kernel=str(image.kernel),
                    initramfs=str(image.initramfs),
                    command_line=record.parameters.command_line(),
                    accelerator=record.accelerator,
                    vcpus=record.vcpus,
                ),
            )

    @contextlib.contextmanager
    def _own(
        self, draft: VmRecord, examined: Examined, facts: HostFacts, entry: HostEntry
    ) -> Iterator[tuple[VmRecord, VmSpec]]:
        wished = examined.wish.nics
        cards = [
            (require_switch(facts, entry, nic.switch), nic.mac or mac_address(draft.id, number))
            for number, nic in enumerate(wished or (), 1)
        ]
        if wished is None:
            cards = [(entry.virtual_switch, mac_address(draft.id))]

        def make(free: Iterator[str]) -> VmRecord:
            nics = tuple(NicRecord(mac, switch, next(free)) for switch, mac in cards)
            return replace(draft, address=nics[0].address if nics else None, nics=nics, disks=examined.kept)

        with self._kept(self.shelf.reserve(make)) as record:
            placed = put(examined, self.shelf.folder(record.name), record.name, record.id)
            record = replace(record, disks=tuple(str(disk.path) for disk in placed.disks))
            self.shelf.write(record)
            yield record, _own_spec(record, examined.wish, placed)

    @contextlib.contextmanager
    def _kept(self, record: VmRecord) -> Iterator[VmRecord]:
        """Keep a VM's files when all goes well inside; forget them, and its ports, when not."""
        with contextlib.ExitStack() as undo:
            undo.callback(self.network.close, record)
            undo.callback(self._forget, record.name)
            self.network.open(record)
            yield record
            undo.pop_all()


def _own_spec(record: VmRecord, wish: OwnGuest, placed: Placed) -> VmSpec:
    disks = tuple(DiskSpec(str(disk.path), disk.format) for disk in placed.disks)
    return VmSpec(
        name=record.name,
        id=record.id,
        memory_mib=record.memory_mib,
        disk_path="",
        kernel=str(placed.kernel or ""),
        initramfs=str(placed.initrd or ""),
        command_line=wish.append,
        accelerator=record.accelerator,
        vcpus=record.vcpus,
        more_disks=disks,
        cards=tuple(NicSpec(nic.mac, nic.switch) for nic in record.nics),
        dvd=str(placed.dvd) if placed.dvd else None,
        nvram=str(placed.nvram) if placed.nvram else None,
        line_channel=False,
        baseline=record.accelerator == "tcg",
    )
