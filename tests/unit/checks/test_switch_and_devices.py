"""Virtual switches by name; and what ties a VM to its host."""

from __future__ import annotations

import pytest

from refimpl.model.errors import entry
from refimpl.model.facts import SAVED_MEMORY, DeviceFact, NicFact, VmState
from refimpl.model.phase import Side
from tests.builders import vm
from tests.judging import found, passed, seen


@pytest.mark.rule("R5", "R11", "R16")
@pytest.mark.error("switch.missing")
@pytest.mark.parametrize("state", [VmState.RUNNING, VmState.OFF])
def test_a_missing_switch_is_33012_with_the_adapter_at_fault(state: VmState) -> None:
    nics = (NicFact("adapter 1", "52:54:00:00:00:01", "lan"), NicFact("adapter 2", "52:54:00:00:00:02", "dmz"))
    problem = found(seen(vm(nics=nics, state=state)))["switch.missing"]
    assert problem.text.startswith("Could not find Ethernet switch 'dmz'")
    assert entry(problem.id).message_id == 33012
    assert problem.object == ("VMNetworkAdapter", "adapter 2")
    assert problem.side is Side.DESTINATION
    assert "--adapter 2 --disconnect" in problem.mend


def test_an_adapter_that_is_connected_to_none_needs_no_switch() -> None:
    assert passed(seen(vm(nics=(NicFact("adapter 1", "52:54:00:00:00:01", None),)), switches=frozenset()))


def test_switches_that_are_not_told_are_not_judged() -> None:
    assert passed(seen(switches=None))


@pytest.mark.rule("R5")
@pytest.mark.error("device.unmovable")
def test_a_device_that_ties_the_vm_to_its_host() -> None:
    held = vm(unmovable=(DeviceFact("PCI device", "0000:01:00.0", "its state is in the card"),))
    problem = found(seen(held))["device.unmovable"]
    assert "PCI device 0000:01:00.0: its state is in the card" in problem.text
    assert problem.side is Side.SOURCE
    off = vm(unmovable=held.unmovable, state=VmState.OFF)
    assert passed(seen(off))


def test_memory_saved_at_the_source_ties_a_vm_that_is_off_too() -> None:
    """Restored later, when the VM is back, it would meet a disk that has changed since."""
    saved = DeviceFact(SAVED_MEMORY, "managed save", "it would stay behind")
    assert "saved memory" in found(seen(vm(unmovable=(saved,), state=VmState.OFF)))["device.unmovable"].text


@pytest.mark.error("vm.snapshots")
@pytest.mark.parametrize("state", [VmState.RUNNING, VmState.PAUSED, VmState.OFF])
def test_snapshots_would_stay_behind(state: VmState) -> None:
    problem = found(seen(vm(snapshots=("before", "after"), state=state)))["vm.snapshots"]
    assert problem.object == ("VMSnapshot", "before, after")


@pytest.mark.error("vm.busy")
def test_another_job_on_the_vm() -> None:
    assert "backup" in found(seen(vm(busy="backup")))["vm.busy"].text
    assert passed(seen(vm(busy="backup", state=VmState.OFF)))
