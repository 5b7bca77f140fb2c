"""Where the VMs of a group are: looked at now, on all hosts, before anything is done to one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from refimpl.backends.libvirt import connection
from refimpl.checks.ownership import gone_there
from refimpl.engine.backend import Backend
from refimpl.engine.store import GroupStore
from refimpl.model.errors import Problem, RefimplError, Value, error
from refimpl.model.facts import HostFacts, Scope, VmFacts
from refimpl.model.group import Group, HostEntry

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class VmPlace:
    """A VM on one host, as it was seen there."""

    host: HostEntry
    facts: VmFacts


class VmPlaces:
    """Looks at the hosts of one group. RefimplError for everything that a user can mend."""

    def __init__(self, group: Group, backend: Backend) -> None:
        """Use this backend to look; the process has to be in the group's management network."""
        self.group = group
        self._backend = backend
        self.owners = GroupStore.standing(Path(group.store_path))

    def look(self) -> dict[str, HostFacts]:
        """Return what every host shows now."""
        return dict(self._backend.observe(Scope()).hosts)

    def find(self, name: str) -> VmPlace:
        """Return where a VM is: `vm.unknown`, or `vm.several` when more than one host has it."""
        seen = self.look()
        places = [(facts.name, vm) for facts in seen.values() if (vm := facts.vm(name)) is not None]
        if not places:
            known = ", ".join(sorted({vm.name for facts in seen.values() for vm in facts.vms})) or "none"
            raise error("vm.unknown", group=self.group.name, vm=name, known=known)
        marked = next((vm.operation for _, vm in places if vm.operation is not None), None)
        if len(places) > 1 and marked is not None:
            raise error("vm.stamped", vm=name, operation=marked)
        if len(places) > 1:
            raise error("vm.several", vm=name, hosts=", ".join(host for host, _ in places))
        return VmPlace(self.entry(places[0][0]), places[0][1])

    def find_to_change(self, name: str) -> VmPlace:
        """Return where a VM is: `vm.stamped` too, when it is being moved (R10)."""
        place = self.find(name)
        if place.facts.operation is not None:
            raise error("vm.stamped", vm=name, operation=place.facts.operation)
        return place

    def find_to_run(self, name: str) -> VmPlace:
        """Return where a VM is, that is to run there: `owner.elsewhere` when another host owns it (design 5)."""
        place = self.find_to_change(name)
        record = self.owners.owner(place.facts.id)
        if record is None or record.owns(place.host.name, place.facts.epoch):
            return place
        if gone_there(record, self._backend.observe(Scope())):
            return place
        raise failed("owner.elsewhere", host=place.host.name, vm=name, owner=record.owner, epoch=record.epoch)

    def entry(self, name: str) -> HostEntry:
        """Return a host of the group: `host.unknown`."""
        found = self.group.host(name)
        if found is None:
            known = ", ".join(host.name for host in self.group.hosts)
            raise failed("host.unknown", group=self.group.name, host=name, known=known)
        return found

    def roomiest(self, seen: dict[str, HostFacts]) -> HostEntry:
        """Return the host with the most memory left: `host.down` when none answers."""
        reachable = [facts for facts in seen.values() if facts.reachable]
        if not reachable:
            first = self.group.hosts[0].name
            native = seen[first].native
            raise failed("host.down", host=first, detail=native.text if native else "no answer")
        return self.entry(max(reachable, key=lambda facts: facts.memory_mib - facts.memory_used_mib).name)


def own_disks(group: Group, name: str) -> dict[str, Path]:
    """Return, by host, the path here of a built-in guest's disk on the host's own storage, there or not."""
    return {h.name: Path(h.local_directory) / f"{name}.raw" for h in group.hosts if h.local_directory}


def outside(host: HostEntry, path: str) -> Path:
    """Return where a file that a host sees at a path is seen from here: its own storage is elsewhere here."""
    own = host.storage_directories[0].rstrip("/") + "/" if host.storage_directories and host.local_directory else ""
    return Path(host.local_directory) / path.removeprefix(own) if own and path.startswith(own) else Path(path)


def newest(paths: Sequence[Path]) -> Path:
    """Return the file that was written last, the first path when none is there."""
    there = {path: path.stat().st_mtime_ns for path in paths if path.exists()}
    return max(there, key=there.__getitem__) if there else paths[0]


def do(what: str, host: HostEntry, vm: str, work: Callable[[], T]) -> T:
    """Return what `work` on a host returns: `vm.not_done` with what the host said when it fails."""
    try:
        return work()
    except connection.failures() as failure:
        values = {"what": what, "vm": vm, "host": host.name, "detail": str(failure)}
        problem = Problem("vm.not_done", values, host=host.name, native=connection.native(failure))
        raise RefimplError(problem) from failure


def failed(problem: str, /, **values: Value) -> RefimplError:
    """Return an error that was seen on the host that its values name."""
    return RefimplError(Problem(problem, values, host=str(values["host"]) if "host" in values else None))


def require_switch(facts: HostFacts, entry: HostEntry, switch: str) -> str:
    """Return the name of a virtual switch that a host has: `vm.switch_unknown`."""
    known = facts.switches or frozenset((entry.virtual_switch,))
    if switch not in known:
        raise failed("vm.switch_unknown", host=entry.name, switch=switch, known=", ".join(sorted(known)))
    return switch
