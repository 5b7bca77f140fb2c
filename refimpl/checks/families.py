"""The families of checks in the order in which they are told, and what each is about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType

from refimpl.checks import (
    advisories,
    clock,
    compression,
    cpu,
    devices,
    fence,
    hand_over,
    identity,
    lease,
    limits,
    memory,
    network,
    ownership,
    post_copy,
    security,
    storage,
    switch,
    version,
)
from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem

Check = Callable[[Subject], Iterator[Problem]]
Told = Callable[[Subject], str | None]


@dataclass(frozen=True, slots=True)
class Family:
    """One family: its name, what stands in the way, and what was seen when nothing does (None: nothing was seen)."""

    name: str
    check: Check
    told: Told


def _family(name: str, module: ModuleType) -> Family:
    return Family(name, module.check, module.told)


FAMILIES = (
    _family("identity", identity),
    _family("migration", limits),
    _family("certificates", security),
    _family("network", network),
    _family("compression", compression),
    _family("processor", cpu),
    _family("versions", version),
    _family("memory", memory),
    _family("storage", storage),
    _family("ownership", ownership),
    _family("lease", lease),
    _family("hand-over", hand_over),
    _family("post-copy", post_copy),
    _family("fence", fence),
    _family("switches", switch),
    _family("devices", devices),
    _family("clocks", clock),
    _family("advisories", advisories),
)
