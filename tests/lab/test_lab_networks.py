"""Two migration networks, IPv4 and IPv6: the next one is taken when one does not connect, and moves go over both."""

from __future__ import annotations

import pytest

from refimpl.model.phase import Phase
from tests.lab.moving import Moving, kinds

pytestmark = pytest.mark.lab


@pytest.mark.rule("R13")
@pytest.mark.parametrize("encryption", [True, False], ids=["encrypted", "plain"])
def test_the_next_network_is_taken_when_the_first_does_not_connect(moving: Moving, encryption: bool) -> None:
    source, destination = moving.place(), moving.other()
    networks = [network.address for network in moving.group.host(destination).migration_networks]  # type: ignore[union-attr]
    with moving.lab.link(destination, "migration").restored() as link:
        link.cut()
        operation = moving.start(source=source, destination=destination, encryption=encryption)
        result = operation.wait()
    assert result.end is Phase.COMPLETED, result
    seen = kinds(operation)
    # Proved before the transfer: one network failed, the next one was prepared, and only then memory was sent.
    order = [seen.index(kind) for kind in ("network-failed", "next-network", "prepared", "memory-seen")]
    assert order == sorted(order)
    (prepared,) = [event for event in operation.events() if event["kind"] == "prepared"]
    assert prepared["values"]["address"] == networks[1]
    assert ":" in networks[1]
    assert moving.place() == destination
