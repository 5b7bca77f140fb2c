"""What a check looks at: one request and the facts of the two hosts that it concerns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from refimpl.model.errors import Native, Problem, Value
from refimpl.model.facts import Facts, HostFacts, VmFacts, VmState
from refimpl.model.phase import Side
from refimpl.model.request import MigrationRequest, PerformanceOption
from refimpl.model.settings import HostSettings
from refimpl.model.storage import targets

_LAST = {VmState.OFF: 1, VmState.PLANNED: 2}
"""A planned VM belongs to a move that comes in: it is no source."""


class Pair(NamedTuple):
    """A VM and the two hosts between which it could move, all of them seen."""

    vm: VmFacts
    source: HostFacts
    destination: HostFacts


@dataclass(frozen=True, slots=True)
class Subject:
    """A request with its VM and hosts looked up; whatever could not be found is None."""

    request: MigrationRequest
    operation: str
    group: str
    facts: Facts
    vm: VmFacts | None
    source: HostFacts | None
    destination: HostFacts | None

    @property
    def places(self) -> tuple[str, ...]:
        """Hosts that have a VM of the requested name: where it is not off first, where it is only planned last."""
        found = [(h, v) for h in self.facts.hosts.values() if (v := h.vm(self.request.vm)) is not None]
        return tuple(h.name for h, v in sorted(found, key=lambda pair: _LAST.get(pair[1].state, 0)))

    @property
    def pair(self) -> Pair | None:
        """The VM, its host and the destination, None unless all are known, both hosts answer and are two."""
        if self.vm is None or self.source is None or self.destination is None or self.source is self.destination:
            return None
        both = self.source.reachable and self.destination.reachable
        return Pair(self.vm, self.source, self.destination) if both else None

    @property
    def live_pair(self) -> Pair | None:
        """The same for a VM that has memory to move; None when it is off."""
        pair = self.pair
        return None if pair is None or pair.vm.state is VmState.OFF else pair

    @property
    def targets(self) -> dict[str, str]:
        """Where disks would go, by their paths at the source; empty when all stay."""
        if self.request.storage is None or self.pair is None:
            return {}
        default = next(iter(self.pair.destination.storage_directories), "")
        return targets(self.request.storage, [disk.path for disk in self.pair.vm.disks if disk.moves], default)

    @property
    def option(self) -> PerformanceOption | None:
        """The performance option that counts: the request's, else the source's (R12); None when there is no source."""
        if self.request.performance_option is not None or self.source is None:
            return self.request.performance_option
        return self.settings(self.source.name).performance_option

    def settings(self, host: str) -> HostSettings:
        """Return a host's settings for migration, Hyper-V's defaults where it has none of its own."""
        return self.facts.settings.get(host, HostSettings())

    def problem(self, id: str, host: str, native: Native | None = None, /, **values: Value) -> Problem:
        """Return a finding at a host, which is also its value `host`; the side follows from the host."""
        side = Side.DESTINATION if host == self.request.destination else Side.SOURCE
        return Problem(id, {"host": host, **values}, side=side, host=host, native=native)


def subject(request: MigrationRequest, operation: str, group: str, facts: Facts) -> Subject:
    """Look up VM and hosts. The source is the requested one, else the first of the VM's places."""
    bare = Subject(request, operation, group, facts, None, None, facts.hosts.get(request.destination))
    name = request.source or (bare.places[0] if bare.places else None)
    source = facts.hosts.get(name) if name else None
    vm = source.vm(request.vm) if source else None
    return Subject(request, operation, group, facts, vm, source, bare.destination)
