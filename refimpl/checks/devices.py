"""Does anything tie the VM to its host: devices, snapshots, a job of the system below (R5; libvirt-qemu 1.6)."""

from __future__ import annotations

from collections.abc import Iterator

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem
from refimpl.model.facts import SAVED_MEMORY, VmState


def check(s: Subject) -> Iterator[Problem]:
    """Yield what would be refused late by the system below. Snapshots and saved memory tie a VM that is off too."""
    if s.vm is None or s.source is None or not s.source.reachable:
        return
    vm, host = s.vm, s.source.name
    if vm.snapshots:
        yield s.problem("vm.snapshots", host, vm=vm.name, names=", ".join(vm.snapshots))
    off = vm.state is VmState.OFF
    for device in vm.unmovable:
        if not off or device.kind == SAVED_MEMORY:
            values = {"kind": device.kind, "name": device.name, "reason": device.why}
            yield s.problem("device.unmovable", host, vm=vm.name, **values)
    if vm.busy and not off:
        yield s.problem("vm.busy", host, vm=vm.name, busy=vm.busy)


def told(s: Subject) -> str | None:
    """Say that nothing was found; None when the VM was not seen."""
    return None if s.vm is None else "no snapshot, no device that cannot move, no other job on the VM"
