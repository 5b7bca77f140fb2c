"""What a forced take-over risks, found out before anything is done; and trying a fence without harm (ADR 15)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from refimpl.app.home import Home
from refimpl.app.recovery import Interrupted
from refimpl.backends.libvirt.running import running_vms
from refimpl.engine.backend import Backend
from refimpl.engine.store import GroupStore
from refimpl.hosts.factory import channel_for
from refimpl.hosts.fence import fence_of
from refimpl.model.errors import RefimplError, error
from refimpl.model.facts import Scope
from refimpl.model.fencing import FenceSetting
from refimpl.model.group import Group, HostEntry
from refimpl.model.request import Plan
from refimpl.model.settings import HostSettings


@dataclass(frozen=True, slots=True)
class Risk:
    """What forcing the take-over of a VM does: `host` is cut off by `fence`, and everything on it ends.

    `others`: VMs beside this one that are on there, by name, as far as that can be seen without the host.
    `tried_ns`: when the fence last told that it works.
    """

    vm: str
    host: str
    stays: str
    fence: str
    tried_ns: int | None
    others: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """The risks, a sentence each."""
        others = ", ".join(self.others) or "none that can be seen from here"
        tried = f"last tried {when(self.tried_ns)}" if self.tried_ns else "never tried"
        return (
            f"Host {self.host} does not answer. It will be cut off: {self.fence} ({tried}).",
            f"Everything that runs on it ends at once. VMs there beside {self.vm!r}: {others}.",
            f"What VM {self.vm!r} has only in the memory of {self.host} is lost. If that was all of it, the VM ends as "
            f"lost and is started from its disks on {self.stays}, if these are shared.",
            f"Should {self.host} be cut off and nothing be proved by that, nothing else is done.",
        )


def risk(home: Home, group: Group, backend: Backend, item: Interrupted) -> Risk:
    """Return what forcing one operation risks; nothing is done.

    `fence.needless` when both hosts answer, `fence.both_silent` when neither does, `fence.none` without a fence;
    `operation.unknown` when nothing tells between which hosts it was.
    """
    plan = item.plan or _plan(home, item.operation)
    if plan is None:
        raise error("operation.unknown", operation=item.operation, known="its hosts are not known")
    hosts = (plan.source, plan.destination)
    seen = backend.observe(Scope(hosts=hosts)).hosts
    silent = [name for name in hosts if not seen[name].reachable]
    if len(silent) != 1:
        id = "fence.both_silent" if silent else "fence.needless"
        raise error(id, operation=item.operation, vm=plan.vm, hosts=", ".join(hosts))
    (host,) = silent
    entry = _entry(group, host)
    setting = fence_setting(group, host)
    fence = fence_of(entry, setting)
    if fence is None:
        raise error("fence.none", host=host, vm=plan.vm, operation=item.operation)
    stays = next(name for name in hosts if name != host)
    others = tuple(name for name in _running_on(entry) if name != plan.vm)
    return Risk(plan.vm, host, stays, fence.name, setting.tried_ns, others)


def fence_setting(group: Group, host: str) -> FenceSetting:
    """Return how a host is fenced."""
    return GroupStore.standing(Path(group.store_path)).settings().get(host, HostSettings()).fence


def try_fence(group: Group, host: str) -> tuple[str, int]:
    """Ask a host's fence whether the host has power, which harms nothing, and keep when it said so.

    Returns what the fence is, and when. `host.unknown`, `fence.useless`.
    """
    entry = _entry(group, host)
    fence = fence_of(entry, fence_setting(group, host))
    if fence is None:
        raise error("fence.useless", host=host, detail="it has none")
    try:
        on = fence.on()
    except OSError as failure:
        raise error("fence.useless", host=host, detail=str(failure)) from failure
    if not on:
        raise error("fence.useless", host=host, detail=f"{fence.name} says that the host is off")
    now_ns = time.time_ns()
    store = GroupStore.standing(Path(group.store_path))
    store.change_settings(host, lambda old: replace(old, fence=replace(old.fence, tried_ns=now_ns)))
    return fence.name, now_ns


def when(at_ns: int) -> str:
    """Return a moment as a person reads it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ns / 1e9))


def _plan(home: Home, operation: str) -> Plan | None:
    with suppress(RefimplError):
        standing = home.find(operation).standing()
        return standing.ledger.plan if standing else None
    return None


def _running_on(entry: HostEntry) -> Iterable[str]:
    try:
        return [vm.name for vm in running_vms(channel_for(entry))]
    except OSError:
        return ()


def _entry(group: Group, host: str) -> HostEntry:
    found = group.host(host)
    if found is None:
        raise error("host.unknown", group=group.name, host=host, known=", ".join(h.name for h in group.hosts))
    return found
