"""What is different on libvirt when it lets the destination run itself; the rest of the contract is the same code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from refimpl.model.events import Kind
from refimpl.model.request import CommandKind, HandOver
from tests.contract import test_adopting, test_settling, test_states, test_transfer
from tests.contract.harness import Bench
from tests.contract.libvirt_bench import Bed, LibvirtHarness

pytestmark = pytest.mark.lab


@pytest.fixture
def delegated(bed: Bed) -> Iterator[Bench]:
    """A fresh pair of hosts, moved between by delegated hand-over."""
    harness = LibvirtHarness(bed, HandOver.DELEGATED)
    yield Bench(harness)
    harness.close()


@pytest.mark.parametrize(
    "contract",
    [
        test_transfer.test_the_blackout_can_be_told,
        test_states.test_a_paused_vm_arrives_paused_and_is_left_so,
        test_adopting.test_adopted_in_memory_it_goes_through,
        test_settling.test_settling_for_the_destination_after_a_move,
    ],
)
def test_the_contract_holds(delegated: Bench, contract: object) -> None:
    assert callable(contract)
    contract(delegated)


def test_it_runs_by_itself_and_there_is_no_arrival(delegated: Bench) -> None:
    delegated.start()
    ran = delegated.wait_for(Kind.DESTINATION_RAN)
    assert ran["port_ms"] > 0
    delegated.wait_for(Kind.CALL_RETURNED)
    assert delegated.count(Kind.DESTINATION_ARRIVED, Kind.BINDING_SEEN) == 0
    assert delegated.ask(CommandKind.SETTLE_DESTINATION, Kind.SETTLED, Kind.CANNOT_SETTLE).kind is Kind.SETTLED
