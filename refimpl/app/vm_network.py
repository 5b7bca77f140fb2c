"""How guests of the user's own are reached: their addresses by DHCP, and ports of this machine that lead to them.

Both are processes of the lab and end with it. Without a lab there is none, and nothing is done.
"""

from __future__ import annotations

from dataclasses import dataclass

from refimpl.app.vm_record import VmRecord, VmShelf
from refimpl.lab.forward import Forward, Forwards
from refimpl.lab.guestnet import GuestNetwork
from refimpl.lab.layout import LabPaths
from refimpl.lab.service import Services


@dataclass(frozen=True, slots=True)
class Reach:
    """How a guest is reached: its address (None: not yet, or nobody knows); its forwards, each with whether it runs."""

    address: str | None
    forwards: tuple[tuple[Forward, bool], ...] = ()


class VmNetwork:
    """The address service and the forwards of one lab. `outside`: an open network namespace, where ports listen."""

    def __init__(self, shelf: VmShelf, lab: LabPaths | None, outside: int | None) -> None:
        """Nothing is started yet."""
        services = None if lab is None else Services(lab)
        self._shelf = shelf
        self._guests = None if services is None else GuestNetwork(services)
        self._forwards = None if services is None or outside is None else Forwards(services, outside)

    def open(self, record: VmRecord) -> None:
        """Have the guest's addresses served and its forwards running; what runs already stays."""
        self._serve(record)
        for forward in record.forwards:
            if self._forwards is None or record.ip is None:
                raise ValueError("a forward needs a lab, the network outside of it, and a guest with an address")
            self._forwards.ensure(forward, record.ip)

    def close(self, record: VmRecord) -> None:
        """End the forwards of a guest that was forgotten, and serve its addresses no more."""
        for forward in record.forwards:
            if self._forwards is not None and record.ip is not None:
                self._forwards.end(forward, record.ip)
        self._serve(record)

    def reach(self, record: VmRecord) -> Reach:
        """Return how a guest is reached now. The built-in guest has its address from the start."""
        address = record.ip if record.parameters is not None else self._leased(record)
        state = self._forwards.up if self._forwards is not None else lambda _forward, _address: False
        return Reach(address, tuple((forward, state(forward, record.ip or "")) for forward in record.forwards))

    def _leased(self, record: VmRecord) -> str | None:
        leased = {} if self._guests is None else self._guests.leased()
        return next((leased[nic.mac] for nic in record.nics if nic.mac in leased), None)

    def _serve(self, record: VmRecord) -> None:
        if self._guests is not None and record.nics:
            self._guests.give(self._addresses)

    def _addresses(self) -> dict[str, str]:
        return {nic.mac: nic.address.partition("/")[0] for record in self._shelf.all() for nic in record.nics}
