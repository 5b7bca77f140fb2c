"""The owner record of a VM: which host's copy is the VM, and in which order that was decided (design 5).

The lease excludes a second running copy, the epoch orders decisions: a copy that carries a lower one than the record's
is stale. The record lies in the group store; what an operation last knew of it is on the VM itself as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class OwnerRecord:
    """Who owns a VM. `epoch` rises by one with every change of the record.

    `pending`: the host that owns it as soon as the move of `operation` commits. `operation`: the last that changed it.
    """

    vm_id: str
    owner: str
    epoch: int = 1
    pending: str | None = None
    operation: str | None = None

    def begun(self, operation: str, destination: str) -> OwnerRecord:
        """Return the record while an operation moves the VM to another host."""
        return replace(self, epoch=self.epoch + 1, pending=destination, operation=operation)

    def decided(self, operation: str, owner: str) -> OwnerRecord:
        """Return the record once an operation has decided, and the same one when it says so already."""
        if (self.operation, self.owner, self.pending) == (operation, owner, None):
            return self
        return replace(self, owner=owner, epoch=self.epoch + 1, pending=None, operation=operation)

    def owns(self, host: str, carried: int) -> bool:
        """Whether the copy on a host is the VM; `carried` is its epoch.

        One that carries a later epoch is what the last move left when the store did not answer.
        """
        return self.owner == host or carried > self.epoch

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> OwnerRecord:
        """Build a record from what `to_json` gave."""
        record = cls(**data)
        if not isinstance(record.epoch, int):
            raise TypeError(f"the epoch is {record.epoch!r}, not a number")
        return record
