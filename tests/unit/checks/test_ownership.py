"""The check of the owner record: whose copy may be moved."""

from __future__ import annotations

import pytest

from refimpl.checks import ownership
from refimpl.checks.subject import subject
from refimpl.model.facts import Facts, HostFacts, VmState
from refimpl.model.ownership import OwnerRecord
from tests.builders import facts, host, request, vm

VM_ID = vm().id


def found(seen: Facts) -> list[str]:
    return [problem.id for problem in ownership.check(subject(request(), "op", "group", seen))]


def owned_by(owner: str, *hosts: HostFacts, epoch: int = 3, carried: int = 0) -> Facts:
    record = OwnerRecord(VM_ID, owner, epoch)
    return facts(host("a", vms=(vm(epoch=carried),)), host("b"), *hosts, owners={VM_ID: record})


def test_without_a_record_the_host_that_has_it_owns_it() -> None:
    assert found(facts()) == []


@pytest.mark.rule("R1")
def test_the_owners_copy_may_be_moved() -> None:
    seen = owned_by("a")
    assert found(seen) == []
    assert ownership.told(subject(request(), "op", "group", seen)) == "a owns it, epoch 3"


@pytest.mark.rule("R1")
@pytest.mark.error("owner.elsewhere")
@pytest.mark.parametrize(
    "owner", [HostFacts("c", reachable=False), host("c", vms=(vm(state=VmState.OFF),))], ids=["silent", "has a copy"]
)
def test_a_stale_copy_is_not_moved(owner: HostFacts) -> None:
    assert found(owned_by("c", owner)) == ["owner.elsewhere"]


@pytest.mark.error("owner.moved")
def test_a_vm_that_something_else_has_moved_is_taken_over_with_a_warning() -> None:
    assert found(owned_by("c", host("c"))) == ["owner.moved"]
    assert found(owned_by("nowhere")) == ["owner.moved"]


def test_a_copy_later_than_the_record_is_what_the_last_move_left() -> None:
    assert found(owned_by("c", host("c", vms=(vm(state=VmState.OFF),)), carried=4)) == []


@pytest.mark.rule("R1")
@pytest.mark.error("vm.autostart")
def test_a_host_that_starts_the_vm_by_itself_is_a_warning() -> None:
    assert found(facts(host("a", vms=(vm(autostart=True),)), host("b"))) == ["vm.autostart"]
    (problem,) = ownership.check(subject(request(), "op", "group", facts(host("a", vms=(vm(autostart=True),)))))
    assert not problem.refuses
    assert "virsh autostart web" in problem.mend
