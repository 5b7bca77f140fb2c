"""Changing the settings of a VM: memory, processors and their compatibility while it is off, adapters and DVD always.

All of it is refused while the VM is being moved (R10). The settings are in the VM's own definition and move with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from refimpl.app.vm_places import VmPlace, do, failed, require_switch
from refimpl.app.vm_record import require_memory
from refimpl.app.vms import VmDesk
from refimpl.backends.libvirt import vm_settings
from refimpl.model.facts import VmState


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be changed; None: left as it is. `connect` and `disconnect` concern the adapter of that `number`."""

    memory_mib: int | None = None
    vcpus: int | None = None
    processor_compatibility: bool | None = None
    connect: str | None = None
    disconnect: bool = False
    number: int = 1
    eject: bool = False

    @property
    def needs_off(self) -> tuple[str, ...]:
        """Return what of it is changed only while the VM is off."""
        parts = {
            "its memory": self.memory_mib,
            "its number of processors": self.vcpus,
            "processor compatibility": self.processor_compatibility,
        }
        return tuple(name for name, value in parts.items() if value is not None)


def change(desk: VmDesk, name: str, wanted: Change) -> VmPlace:
    """Change a VM's settings and return where it is. All of it is looked at before anything is done.

    `vm.stamped` while it is being moved, `vm.off_needed` (R20), `vm.switch_unknown`, `vm.adapter_unknown`,
    `guest.memory_short`.
    """
    place = desk.places.find_to_change(name)
    host = place.host
    if wanted.needs_off and place.facts.state is not VmState.OFF:
        what = " and ".join(wanted.needs_off)
        raise failed("vm.off_needed", vm=name, host=host.name, state=place.facts.state, what=what)
    if wanted.connect is not None or wanted.disconnect:
        _require_adapter(desk, place, wanted)
    if wanted.needs_off:
        _define(desk, place, wanted)
    if wanted.connect is not None or wanted.disconnect:
        bridge = None if wanted.disconnect else wanted.connect
        do("Changing", host, name, lambda: vm_settings.connect(host, name, wanted.number, bridge))
    if wanted.eject:
        do("Changing", host, name, lambda: vm_settings.eject(host, name))
    return desk.find(name)


def _require_adapter(desk: VmDesk, place: VmPlace, wanted: Change) -> None:
    if wanted.connect is not None:
        require_switch(desk.look()[place.host.name], place.host, wanted.connect)
    name, host = place.facts.name, place.host
    count = len(desk.settings(place).adapters)
    if not 1 <= wanted.number <= count:
        raise failed("vm.adapter_unknown", vm=name, host=host.name, number=wanted.number, count=count)


def _define(desk: VmDesk, place: VmPlace, wanted: Change) -> None:
    name, host = place.facts.name, place.host
    memory_mib, vcpus, compatible = wanted.memory_mib, wanted.vcpus, wanted.processor_compatibility
    record = desk.record(name)
    if record is not None and memory_mib is not None:
        require_memory(name, record.parameters, memory_mib)

    def define() -> None:
        vm_settings.define(host, name, memory_mib=memory_mib, vcpus=vcpus, compatible=compatible)

    do("Changing", host, name, define)
    if record is not None:
        memory_mib, vcpus = memory_mib or record.memory_mib, vcpus or record.vcpus
        desk.shelf.write(replace(record, memory_mib=memory_mib, vcpus=vcpus))
