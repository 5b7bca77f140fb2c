"""A VM that is off and that somebody starts in the middle of its move."""

from __future__ import annotations

import pytest

from refimpl.backends.libvirt import vms
from refimpl.model.facts import VmState
from refimpl.model.phase import Phase
from tests.lab.libvirt_support import host_of
from tests.lab.moving import Moving
from tests.lab.test_move_semantics import domain_call

pytestmark = pytest.mark.lab


@pytest.mark.parametrize(
    ("stop", "problem"), [("intended:prepare", "prepare.failed"), ("intended:start-transfer", "transfer.failed")]
)
def test_a_vm_that_is_started_in_the_middle_of_its_move_as_a_definition_stays_and_keeps_it(
    moving: Moving, stop: str, problem: str
) -> None:
    source, destination = moving.place(), moving.other()
    domain_call(moving, source, "destroy")
    with moving.stop_at(stop) as point:
        operation = moving.start(destination=destination)
        point.reached()
        vms.start(host_of(moving.group, source), moving.spec.name)
        point.go()
        result = operation.wait()
    assert (result.end, moving.states()) == (Phase.FAILED, {source: VmState.RUNNING})
    assert [p.id for p in result.problems] == [problem]
    assert f"the VM is running on host {source} and not off any more" in result.problems[0].text
    assert domain_call(moving, source, "isPersistent")
