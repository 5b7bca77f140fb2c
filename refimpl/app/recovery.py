"""What was interrupted, and with what plan it can be recovered: by journals, by claims, by marks on the VMs themselves.

Only `recover` acts; the read-only verbs report what is listed here (docs/adr/0003).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from refimpl.app.home import Home
from refimpl.app.operations import Operation, recover, summarise
from refimpl.engine.backend import Backend
from refimpl.engine.store import Claim, GroupStore
from refimpl.hosts.process import alive, boot_id
from refimpl.model.errors import RefimplError, error
from refimpl.model.facts import Scope
from refimpl.model.group import Group
from refimpl.model.request import Plan


@dataclass(frozen=True, slots=True)
class Interrupted:
    """An operation whose conductor is dead. `found_by`: journal, claim or mark; `plan` is None before CHECK had one.

    `elsewhere`: begun on another machine or boot, so that from here it cannot be called dead for certain.
    """

    operation: str
    vm: str
    found_by: str
    plan: Plan | None
    controller: str
    elsewhere: bool = False


def interrupted(home: Home, group: Group, backend: Backend | None = None) -> tuple[Interrupted, ...]:
    """Return every interrupted operation of a home and a group. With a backend, VMs are looked at for marks too.

    Found by several, an operation is named by the first that knows its plan: journal, claim, mark.
    """
    found: dict[str, Interrupted] = {}
    for item in (*_journals(home, group), *_claims(group), *(_marks(group, backend) if backend else ())):
        known = found.get(item.operation)
        if known is None or (known.plan is None and item.plan is not None):
            found[item.operation] = item
    return tuple(found.values())


def recover_one(
    home: Home, group: Group, item: Interrupted, *, from_elsewhere: bool = False, force: bool = False
) -> Operation:
    """Recover one interrupted operation in a conductor of its own. `force`: behind the fence of a silent host."""
    if item.elsewhere and not from_elsewhere:
        raise error("operation.elsewhere", operation=item.operation, controller=item.controller)
    return recover(home, group, item.operation, item.plan, force=force)


def _journals(home: Home, group: Group) -> list[Interrupted]:
    found = []
    for files in home.all():
        # One that cannot be read is left to its claim and its mark: it must not keep the others from being recovered.
        with suppress(RefimplError):
            spec = files.read_spec()
            if spec["group"]["id"] == group.id and summarise(files).needs_recovery:
                standing = files.standing()
                plan = standing.ledger.plan if standing else None
                found.append(Interrupted(files.id, spec["request"]["vm"], "journal", plan, spec["controller"]))
    return found


def _claims(group: Group) -> list[Interrupted]:
    claims = GroupStore.standing(Path(group.store_path)).claims()
    return [_by_claim(claim) for claim in claims if not alive(claim.process)]


def _by_claim(claim: Claim) -> Interrupted:
    elsewhere = claim.process.boot_id != boot_id()
    return Interrupted(claim.operation, claim.plan.vm, "claim", claim.plan, claim.controller, elsewhere)


def _marks(group: Group, backend: Backend) -> list[Interrupted]:
    claimed = {c.operation for c in GroupStore.standing(Path(group.store_path)).claims() if alive(c.process)}
    found = []
    for host in backend.observe(Scope()).hosts.values():
        for vm in host.vms:
            if vm.operation is not None and vm.operation not in claimed and vm.plan is not None:
                found.append(Interrupted(vm.operation, vm.name, "mark", vm.plan, "unknown"))
    return found


def needs_attention(home: Home) -> list[str]:
    """Return ids of operations of a home that were interrupted; unreadable ones are left out."""
    found = []
    for files in home.all():
        try:
            if summarise(files).needs_recovery:
                found.append(files.id)
        except RefimplError:
            continue
    return found
