"""Settings of a VM: what is changed only while it is off, or not while it is moved, is refused before any change."""

from __future__ import annotations

from typing import Any

import pytest

from refimpl.app import vm_settings
from refimpl.app.vm_settings import Change, change
from refimpl.app.vms import VmDesk
from refimpl.backends.libvirt.vm_settings import Adapter, Settings
from refimpl.model.facts import VmState
from tests.builders import vm
from tests.unit.app.test_vms import Hosts, desk, done, hosts, refused  # noqa: F401  (fixtures)

SETTINGS = Settings(False, "bios", (), None, (Adapter("52:54:00:00:00:01", "sw"),))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was changed, in order."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(vm_settings.vm_settings, "define", lambda *_, **values: calls.append(("define", values)))
    monkeypatch.setattr(vm_settings.vm_settings, "connect", lambda _h, _n, *values: calls.append(("connect", *values)))
    monkeypatch.setattr(vm_settings.vm_settings, "eject", lambda *_: calls.append(("eject",)))
    monkeypatch.setattr(VmDesk, "settings", lambda *_: SETTINGS)
    return calls


@pytest.mark.rule("R20")
@pytest.mark.error("vm.off_needed")
@pytest.mark.parametrize("state", [VmState.RUNNING, VmState.PAUSED])
@pytest.mark.parametrize("wanted", [{"processor_compatibility": True}, {"memory_mib": 512}, {"vcpus": 2}])
def test_what_the_guest_was_started_with_is_changed_only_while_it_is_off(
    wanted: dict[str, Any],
    state: VmState,
    desk: VmDesk,  # noqa: F811
    hosts: Hosts,  # noqa: F811
    told: list[Any],
) -> None:
    hosts.put("a", vm(name="one", state=state))
    text = refused("vm.off_needed", lambda: change(desk, "one", Change(**wanted, eject=True)))
    assert state in text
    assert told == []
    hosts.put("a", vm(name="one", state=VmState.OFF))
    change(desk, "one", Change(**wanted))
    assert [call[0] for call in told] == ["define"]


@pytest.mark.rule("R10")
@pytest.mark.parametrize("wanted", [{"memory_mib": 512}, {"disconnect": True}, {"connect": "sw"}, {"eject": True}])
def test_nothing_is_changed_while_the_vm_is_being_moved(
    wanted: dict[str, Any],
    desk: VmDesk,  # noqa: F811
    hosts: Hosts,  # noqa: F811
    told: list[Any],
) -> None:
    hosts.put("a", vm(name="one", operation="0a1b2c3d"))
    assert "0a1b2c3d" in refused("vm.stamped", lambda: change(desk, "one", Change(**wanted)))
    assert told == []


@pytest.mark.error("vm.switch_unknown", "vm.adapter_unknown")
def test_an_adapter_and_its_switch_have_to_be_there(desk: VmDesk, hosts: Hosts, told: list[Any]) -> None:  # noqa: F811
    hosts.put("a", vm(name="one"))
    assert "known: lan" in refused("vm.switch_unknown", lambda: change(desk, "one", Change(connect="x")))
    for number in (0, 2):
        refused("vm.adapter_unknown", lambda n=number: change(desk, "one", Change(connect="lan", number=n)))
        refused("vm.adapter_unknown", lambda n=number: change(desk, "one", Change(disconnect=True, number=n)))
    assert told == []
    change(desk, "one", Change(connect="lan"))
    change(desk, "one", Change(disconnect=True, eject=True))
    assert told == [("connect", 1, "lan"), ("connect", 1, None), ("eject",)]


def test_what_was_changed_is_in_the_record_too(desk: VmDesk, hosts: Hosts, told: list[Any]) -> None:  # noqa: F811
    desk.create("one", "a", memory_mib=256)
    hosts.put("a", vm(name="one", state=VmState.OFF))
    change(desk, "one", Change(memory_mib=512))
    record = desk.record("one")
    assert record is not None
    assert (record.memory_mib, record.vcpus) == (512, 1)


@pytest.mark.error("guest.memory_short")
def test_a_built_in_guest_keeps_the_memory_that_its_work_needs(
    desk: VmDesk,  # noqa: F811
    hosts: Hosts,  # noqa: F811
    done: list[str],  # noqa: F811
    told: list[Any],
) -> None:
    desk.create("one", "a", memory_mib=256)
    hosts.put("a", vm(name="one", state=VmState.OFF))
    refused("guest.memory_short", lambda: change(desk, "one", Change(memory_mib=64)))
    assert told == []
    change(desk, "one", Change(memory_mib=128))
    assert [call[0] for call in told] == ["define"]
