"""Is the VM known, in one place and running; are the hosts known, up and different; is the VM's place there free."""

from __future__ import annotations

from collections.abc import Iterator

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem
from refimpl.model.facts import HostFacts, VmState
from refimpl.model.phase import Side


def check(s: Subject) -> Iterator[Problem]:
    """Yield what is wrong with the identity of VM and hosts (semantics 6; R5, R10)."""
    yield from _hosts(s)
    if s.vm is not None and s.source is not None and s.vm.operation not in (None, s.operation):
        # The mark explains a second copy, or one that does not run: nothing else about the VM is worth a word.
        yield s.problem("vm.stamped", s.source.name, vm=s.vm.name, operation=s.vm.operation)
        return
    yield from _vm(s)
    if s.vm is not None and s.source is not None and s.destination is not None:
        if s.source.name == s.destination.name:
            others = ", ".join(sorted(set(s.facts.hosts) - {s.source.name}))
            yield s.problem("host.same", s.source.name, vm=s.vm.name, others=others)
        else:
            yield from _place(s, s.destination)
            if s.source.uuid and s.source.uuid == s.destination.uuid:
                names = {"source": s.source.name, "uuid": s.source.uuid}
                yield s.problem("host.twin", s.destination.name, **names)


def told(s: Subject) -> str | None:
    """Say where the VM is; None when it or a host was not seen."""
    if s.pair is None:
        return None
    vm, source, destination = s.pair
    return f"VM {vm.name} ({vm.state}) is on {source.name}; name and id are free on {destination.name}"


def _hosts(s: Subject) -> Iterator[Problem]:
    known = ", ".join(sorted(s.facts.hosts))
    for name, side in ((s.request.source, Side.SOURCE), (s.request.destination, Side.DESTINATION)):
        if name is not None and name not in s.facts.hosts:
            yield Problem(id="host.unknown", values={"group": s.group, "host": name, "known": known}, side=side)
    silent = [h for h in (s.source, s.destination) if h is not None and not h.reachable]
    if s.vm is None and s.request.source is None:
        silent = [h for h in s.facts.hosts.values() if not h.reachable]
    for host in silent:
        detail = host.native.text if host.native else "no answer"
        yield s.problem("host.down", host.name, host.native, detail=detail)


def _not_there(s: Subject) -> Problem:
    name, asked = s.request.vm, s.request.source
    if s.places and asked is not None:
        return s.problem("vm.elsewhere", asked, vm=name, hosts=", ".join(s.places))
    known = ", ".join(sorted({v.name for h in s.facts.hosts.values() for v in h.vms})) or "none"
    return Problem(id="vm.unknown", values={"group": s.group, "vm": name, "known": known})


def _vm(s: Subject) -> Iterator[Problem]:
    name = s.request.vm
    if s.vm is None or s.source is None:
        seen = s.source is None or s.source.reachable
        if seen and (s.request.source is None or s.request.source in s.facts.hosts):
            yield _not_there(s)
        return
    host = s.source.name
    if s.request.vm_id not in (None, s.vm.id):
        values = {"reported": s.request.vm_id, "id": s.vm.id, "destination": s.request.destination}
        yield s.problem("report.stale", host, vm=name, **values)
    if s.vm.state not in (VmState.RUNNING, VmState.PAUSED, VmState.OFF):
        yield s.problem("vm.not_running", host, vm=name, state=s.vm.state)
    elsewhere = [p for p in s.places if p not in (host, s.request.destination)]
    if elsewhere:
        yield Problem(id="vm.several", values={"vm": name, "hosts": ", ".join(s.places)})


def _place(s: Subject, destination: HostFacts) -> Iterator[Problem]:
    assert s.vm is not None
    for other in destination.vms:
        taken = "vm.name_taken" if other.name == s.vm.name else "vm.id_taken" if other.id == s.vm.id else None
        if taken:
            yield s.problem(taken, destination.name, vm=other.name, id=other.id, state=other.state)
