"""Changing the owner record for one operation: begun when it touches the first host, decided by commit or roll-back.

Every change is a compare-and-swap. A later record of another operation means that the VM was taken over: whoever finds
that stops, because its copies are stale (`owner.superseded`).
"""

from __future__ import annotations

from dataclasses import replace

from refimpl.engine.store import Store
from refimpl.model.errors import RefimplError, error
from refimpl.model.ownership import OwnerRecord
from refimpl.model.request import Plan

COMMIT_WAIT_S = 0.25
"""How long the commit waits for a store that is locked: the VM stands still meanwhile."""

WAIT_S = 10.0


def begin(store: Store, plan: Plan, operation: str) -> OwnerRecord:
    """Record that an operation may make the destination the owner. `owner.superseded`, `store.failed`."""
    standing = store.owner(plan.vm_id)
    if standing is not None and (standing.operation, standing.pending) == (operation, plan.destination):
        return standing
    known = standing or OwnerRecord(plan.vm_id, plan.source, epoch=0)
    after = replace(known, owner=plan.source, epoch=max(known.epoch, plan.epoch)).begun(operation, plan.destination)
    if not store.swap_owner(standing, after):
        raise _superseded(plan, operation, store.owner(plan.vm_id))
    return after


def take_back(store: Store, plan: Plan, operation: str, known: OwnerRecord) -> OwnerRecord:
    """Record that the source owns the VM still and the move goes on: the destination was recorded and did not run.

    `owner.superseded`, `store.failed`.
    """
    after = replace(known, owner=plan.source).begun(operation, plan.destination)
    if not store.swap_owner(known, after):
        raise _superseded(plan, operation, store.owner(plan.vm_id))
    return after


def decide(
    store: Store, plan: Plan, operation: str, owner: str, known: OwnerRecord | None, wait_s: float = WAIT_S
) -> OwnerRecord:
    """Record who owns the VM, once or again. `known`: as this operation last saw the record, None without its journal.

    `owner.superseded`, `store.failed`.
    """
    if known is not None:
        after = known.decided(operation, owner)
        if after != known and store.swap_owner(known, after, wait_s=wait_s):
            return after
    standing = store.owner(plan.vm_id, wait_s=wait_s)
    if _is_later(standing, plan, operation, known):
        raise _superseded(plan, operation, standing)
    after = unsaved(plan, operation, owner, _latest(standing, known))
    if after != standing and not store.swap_owner(standing, after, wait_s=wait_s):
        raise _superseded(plan, operation, store.owner(plan.vm_id, wait_s=wait_s))
    return after


def superseding(store: Store, plan: Plan, operation: str, known: OwnerRecord | None) -> RefimplError | None:
    """Return `owner.superseded` when a later operation has decided about the VM, None when not. `store.failed`.

    `known`: as this operation last saw the record; without it what its plan has seen of the VM counts.
    """
    standing = store.owner(plan.vm_id)
    return _superseded(plan, operation, standing) if _is_later(standing, plan, operation, known) else None


def unsaved(plan: Plan, operation: str, owner: str, known: OwnerRecord | None) -> OwnerRecord:
    """Return what would be recorded if the store answered."""
    return (known or OwnerRecord(plan.vm_id, plan.source, epoch=plan.epoch)).decided(operation, owner)


def _is_later(standing: OwnerRecord | None, plan: Plan, operation: str, known: OwnerRecord | None) -> bool:
    """Whether a record is another operation's, and later than anything that this one has known."""
    if standing is None or standing.operation == operation:
        return False
    return standing.epoch > (plan.epoch if known is None else known.epoch)


def _latest(standing: OwnerRecord | None, known: OwnerRecord | None) -> OwnerRecord | None:
    found = [record for record in (standing, known) if record is not None]
    return max(found, key=lambda record: record.epoch, default=None)


def _superseded(plan: Plan, operation: str, standing: OwnerRecord | None) -> RefimplError:
    owner, epoch, by = (standing.owner, standing.epoch, standing.operation) if standing else (None, None, None)
    return error("owner.superseded", vm=plan.vm, operation=operation, owner=owner, epoch=epoch, by=by)
