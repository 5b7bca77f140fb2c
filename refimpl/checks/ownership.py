"""Is this copy the VM: does the owner record in the group store name the host that it is on (design 5; R1).

And would its host start it by itself, which nothing of a former owner may do (handover 1.3).
"""

from __future__ import annotations

from collections.abc import Iterator

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem
from refimpl.model.facts import Facts
from refimpl.model.ownership import OwnerRecord


def check(s: Subject) -> Iterator[Problem]:
    """Yield what is wrong with the owner. A VM without a record is its own: the first move makes one."""
    if s.vm is None or s.source is None:
        return
    if s.vm.autostart:
        yield s.problem("vm.autostart", s.source.name, vm=s.vm.name)
    record = s.facts.owners.get(s.vm.id)
    if record is None or record.owns(s.source.name, s.vm.epoch):
        return
    id = "owner.moved" if gone_there(record, s.facts) else "owner.elsewhere"
    yield s.problem(id, s.source.name, vm=s.vm.name, owner=record.owner, epoch=record.epoch)


def told(s: Subject) -> str | None:
    """Say who owns the VM by which epoch; None when it was not seen."""
    if s.pair is None:
        return None
    record = s.facts.owners.get(s.pair.vm.id)
    return f"{record.owner} owns it, epoch {record.epoch}" if record else "no record yet: the host that has it owns it"


def gone_there(record: OwnerRecord, facts: Facts) -> bool:
    """Whether the recorded owner is seen to have no copy: something else than this project has moved the VM."""
    there = facts.hosts.get(record.owner)
    return there is None or (there.reachable and all(vm.id != record.vm_id for vm in there.vms))
