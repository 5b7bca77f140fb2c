"""What is kept of each VM beside its disks, on the storage that the group's hosts share, and the addresses of guests.

The built-in guest has NAME.raw and NAME.json, a guest of one's own NAME.json and a directory NAME.d, in which
everything stands that goes when the VM is removed. A record is written before what it speaks of is made.
"""

from __future__ import annotations

import ipaddress
import json
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from refimpl.guest import GuestParameters, least_memory_mib
from refimpl.hosts.command import replace_file
from refimpl.hosts.lock import locked
from refimpl.lab.forward import Forward
from refimpl.model.errors import error
from refimpl.model.group import ProcessRef

FIRST_ADDRESS = 100
LONGEST_NAME = 100
LONGEST_NAME_BYTES = 200


@dataclass(frozen=True, slots=True)
class NicRecord:
    """A network adapter of a guest of one's own; `address`, with the prefix length, is what DHCP gives it."""

    mac: str
    switch: str
    address: str


@dataclass(frozen=True, slots=True)
class VmRecord:
    """What is kept of a VM. `address` is its guest's first, with the VM network's prefix length; None: it has none.

    `parameters` None: a guest of the user's own. `disks`: paths of its disks, those that stand elsewhere among them.
    `maker`: the process that is making it, None when it has been made.
    """

    name: str
    id: str
    address: str | None
    memory_mib: int
    vcpus: int
    accelerator: str
    parameters: GuestParameters | None = None
    nics: tuple[NicRecord, ...] = ()
    disks: tuple[str, ...] = ()
    forwards: tuple[Forward, ...] = ()
    maker: ProcessRef | None = None

    @property
    def ip(self) -> str | None:
        """The guest's address without the prefix length."""
        return None if self.address is None else str(ipaddress.IPv4Interface(self.address).ip)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> VmRecord:
        """Build a record from what `to_json` gave."""
        told = data.get("parameters")
        parts = {
            "parameters": None if told is None else GuestParameters(**told),
            "nics": tuple(NicRecord(**row) for row in data.get("nics", ())),
            "disks": tuple(data.get("disks", ())),
            "forwards": tuple(Forward(**row) for row in data.get("forwards", ())),
            "maker": ProcessRef.from_json(data["maker"]) if data.get("maker") else None,
        }
        return cls(**{**data, **parts})


class VmShelf:
    """The records and files of the VMs of one group. `directory` is on the shared storage, `network` is that of VMs."""

    def __init__(self, directory: Path, network: str) -> None:
        """Use this directory, which has to be there."""
        self.directory = directory
        self.network = ipaddress.IPv4Network(network)

    def record(self, name: str) -> VmRecord | None:
        """Return what is kept of a VM, None when it was not made here."""
        try:
            return VmRecord.from_json(json.loads(self._path(name).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def all(self) -> Iterator[VmRecord]:
        """Yield all records."""
        for path in sorted(self.directory.glob("*.json")):
            record = self.record(path.stem)
            if record is not None:
                yield record

    def disk(self, name: str) -> Path:
        """Return the path of the built-in guest's disk."""
        return self.directory / f"{name}.raw"

    def folder(self, name: str) -> Path:
        """Return the directory of a guest of one's own."""
        return self.directory / f"{name}.d"

    def reserve(self, make: Callable[[Iterator[str]], VmRecord]) -> VmRecord:
        """Write a new record while nobody else can; `make` takes free addresses. `vm.no_address` when none is left."""
        with locked(self.directory / ".addresses.lock"):
            record = make(self._free())
            self._require_free(record)
            self.write(record)
            try:
                if record.parameters is None:
                    self.folder(record.name).mkdir(mode=0o755)
            except OSError:
                self.forget(record.name)
                raise
        return record

    def write(self, record: VmRecord) -> None:
        """Write a record in place of the one of that name."""
        replace_file(self._path(record.name), json.dumps(record.to_json(), indent=1).encode(), 0o644)

    def forget(self, name: str) -> None:
        """Remove everything that was made for a VM; what stands elsewhere, or for a VM not made here, stays."""
        record = self.record(name)
        if record is None:
            return
        if record.parameters is not None:
            self.disk(name).unlink(missing_ok=True)
        elif self.folder(name).is_dir():
            shutil.rmtree(self.folder(name))
        self._path(name).unlink(missing_ok=True)

    def _free(self) -> Iterator[str]:
        taken = {address for record in self.all() for address in (record.address, *(n.address for n in record.nics))}
        for number in range(FIRST_ADDRESS, self.network.num_addresses - 1):
            address = f"{self.network[number]}/{self.network.prefixlen}"
            if address not in taken:
                yield address
        raise error("vm.no_address", network=str(self.network))

    def _require_free(self, record: VmRecord) -> None:
        for path in (self._path(record.name), self.disk(record.name), self.folder(record.name)):
            if path.exists():
                raise error("vm.disk_exists", vm=record.name, path=str(path))
        for other in self.all():
            for mac in {nic.mac for nic in record.nics} & {nic.mac for nic in other.nics}:
                raise error("vm.mac_taken", mac=mac, owner=other.name)
            for port in {f.port for f in record.forwards} & {f.port for f in other.forwards}:
                raise error("forward.port_taken", port=port, detail=f"it leads to VM {other.name!r} already")
            for disk in set(record.disks) & set(other.disks):
                raise error("vm.disk_in_use", vm=record.name, path=disk, owner=other.name)

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.json"


def require_memory(name: str, parameters: GuestParameters | None, memory_mib: int) -> None:
    """Refuse a built-in guest that would have too little memory for its work: `guest.memory_short`."""
    if parameters is None:
        return
    working_set_mib = parameters.writer_working_set_mib
    least_mib = least_memory_mib(working_set_mib)
    if memory_mib < least_mib:
        raise error(
            "guest.memory_short",
            vm=name,
            memory_mib=memory_mib,
            working_set_mib=working_set_mib,
            least_mib=least_mib,
        )


def require_name(name: str) -> str:
    """Return the name if a VM can have it: `vm.name_invalid` names the rule that it breaks."""
    broken = _broken_rule(name)
    if broken is not None:
        raise error("vm.name_invalid", vm=name, detail=broken)
    return name


def _broken_rule(name: str) -> str | None:
    try:
        length_bytes = len(name.encode())
    except UnicodeEncodeError:
        return "it is not valid UTF-8"
    if not name:
        return "it is empty"
    if len(name) > LONGEST_NAME or length_bytes > LONGEST_NAME_BYTES:
        return f"it has {len(name)} characters, {length_bytes} bytes as UTF-8"
    if "/" in name:
        return "it has a / in it"
    # Line and paragraph separators end a line for many programs, as control characters do.
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in name):
        return "it has a control character in it"
    if name[0] in ".- " or name.startswith("\xa0"):
        return "it begins with a dot, a dash or a space"
    return "it ends with a space" if name != name.rstrip() else None
