"""The moment between the arrival and the source's hearing of it, held: the answer does not come through.

A destination's daemon answers within some 10 ms of the arrival, so a fault that is set off by the arrival may come
after the answer on a busy machine. Here the source's daemon hears nothing of the other one's from the memory phase on,
while all that it says itself still arrives; and the transfer has its own connection, in another network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from refimpl.backends.libvirt import connection
from refimpl.hosts.factory import channel_for
from refimpl.lab import Lab
from refimpl.lab.host import TLS_PORT
from tests.lab.libvirt_support import host_of

SLOW_MIB_S = 20
"""The bandwidth of a move whose memory phase is to last until it is `let_on`: the guests here have some 90 MiB."""
_FULL_SPEED_MIB_S = 10_000
_TABLE = "refimpl_test_unanswered"


class Unanswered:
    """Keeps the answers of a destination's daemon from the source's, from `let_on` to the end of the block."""

    def __init__(self, lab: Lab, source: str, destination: str) -> None:
        self._lab, self._source, self._destination = lab, source, destination

    def let_on(self, vm_id: str) -> None:
        """From now on there is no answer, and the memory is sent at full speed; for a move that sends it slowly.

        All has to arrive before the source takes the silence for the other's death (`KeepAlive.silence_s`).
        """
        heard_by = self._lab.link(self._source, "management").address
        rule = f"ip daddr {heard_by} tcp sport {TLS_PORT} drop"
        chain = "type filter hook output priority 0; policy accept;"
        parts = (f"table inet {_TABLE}", f"chain inet {_TABLE} out {{ {chain} }}", f"rule inet {_TABLE} out {rule}")
        self._nft("; ".join(f"add {part}" for part in parts))
        with connection.fresh(host_of(self._lab.group, self._source)) as fresh:
            fresh.lookupByUUIDString(vm_id).migrateSetMaxSpeed(_FULL_SPEED_MIB_S)

    def part(self) -> None:
        """Let nothing at all pass between the two hosts any more, in none of their networks."""
        links = [link for link in self._lab.links() if link.host == self._source and link.address]
        for family, mark in (("ip", "."), ("ip6", ":")):
            peers = ", ".join(link.address for link in links if mark in link.address)
            if peers:
                self._nft(f"add rule inet {_TABLE} out {family} daddr {{ {peers} }} drop")

    def end(self) -> None:
        """Let answers through again."""
        self._nft(f"add table inet {_TABLE}; delete table inet {_TABLE}")

    def _nft(self, command: str) -> None:
        done = channel_for(host_of(self._lab.group, self._destination)).run(["nft", command])
        assert done.status == 0, done.stderr


@contextmanager
def unanswered(lab: Lab, source: str, destination: str) -> Iterator[Unanswered]:
    """Give what keeps a move without its answer; at the end answers pass again."""
    held = Unanswered(lab, source, destination)
    try:
        yield held
    finally:
        held.end()
