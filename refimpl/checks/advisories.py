"""Known faults of named versions, read from `advisories.toml`; no other place compares versions to refuse anything.

They are about a VM that has memory to move: one that is off is moved as a definition.
Those that forbid a move refuse it, warnings stay with its outcome, and information is only shown.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any

from refimpl.checks.subject import Pair, Subject
from refimpl.checks.version import Version, parsed
from refimpl.model.errors import Problem
from refimpl.model.facts import HostFacts
from refimpl.model.phase import Side
from refimpl.model.request import HandOver, PerformanceOption, PostCopy


class Severity(StrEnum):
    """What a known fault means for a move."""

    REFUSE = "refuse"
    WARNING = "warning"
    INFORMATION = "information"


_IDS = {Severity.REFUSE: "advisory.refused", Severity.WARNING: "advisory.warning"}


@dataclass(frozen=True, slots=True)
class Advisory:
    """One known fault. `versions`: by component, the first version with it and the first without (None: open).

    `side` None: either host. `when`: what the move has to be like, see the head of the data file.
    """

    id: str
    versions: Mapping[str, tuple[Version | None, Version | None]]
    side: Side | None
    severity: Severity
    effect: str
    evidence: str
    mend: str
    when: Mapping[str, Any] = field(default_factory=dict)


@cache
def catalogue() -> tuple[Advisory, ...]:
    """Return all advisories. KeyError or ValueError when the data file is wrong."""
    data = tomllib.loads(files("refimpl.checks").joinpath("advisories.toml").read_text("utf-8"))
    return tuple(_advisory(row) for row in data["advisory"])


def _advisory(row: Mapping[str, Any]) -> Advisory:
    versions = {component: (parsed(first), parsed(fixed)) for component, (first, fixed) in row["versions"].items()}
    unknown = set(row.get("when", {})) - set(_CONDITIONS)
    if unknown:
        raise ValueError(f"advisory {row['id']}: no condition {sorted(unknown)}")
    return Advisory(
        id=row["id"],
        versions=versions,
        side=None if row["side"] == "either" else Side(row["side"]),
        severity=Severity(row["severity"]),
        effect=row["effect"],
        evidence=row["evidence"],
        mend=row["mend"],
        when=row.get("when", {}),
    )


def check(s: Subject, known: tuple[Advisory, ...] | None = None) -> Iterator[Problem]:
    """Yield the faults that refuse this move, or are a warning of it (`known`: instead of the data file's)."""
    for host, advisory in concerning(s, known):
        if advisory.severity is not Severity.INFORMATION:
            values = {
                "advisory": advisory.id,
                "versions": _versions(host, advisory),
                "effect": advisory.effect,
                "evidence": advisory.evidence,
                "advice": advisory.mend,
            }
            yield s.problem(_IDS[advisory.severity], host.name, vm=s.request.vm, **values)


def concerning(s: Subject, known: tuple[Advisory, ...] | None = None) -> Iterator[tuple[HostFacts, Advisory]]:
    """Yield the faults that a host of this move has, whatever their severity."""
    if s.live_pair is None:
        return
    sides = ((Side.SOURCE, s.live_pair.source), (Side.DESTINATION, s.live_pair.destination))
    for advisory in catalogue() if known is None else known:
        for side, host in sides:
            if advisory.side in (None, side) and _has(host, advisory) and _meets(s, s.live_pair, advisory):
                yield host, advisory


def _has(host: HostFacts, advisory: Advisory) -> bool:
    return all(_within(host.versions.get(name), *bounds) for name, bounds in advisory.versions.items())


def _within(text: str | None, first: Version | None, fixed: Version | None) -> bool:
    version = parsed(text or "")
    return version is not None and (first is None or first <= version) and (fixed is None or version < fixed)


def _meets(s: Subject, pair: Pair, advisory: Advisory) -> bool:
    return all(_CONDITIONS[name](s, pair, wanted) for name, wanted in advisory.when.items())


def _hand_over(s: Subject) -> HandOver | None:
    """Return the hand-over of the move, as far as it is known: post-copy goes with one only."""
    own = next(iter(s.facts.hand_overs), None) if s.request.post_copy is PostCopy.OFF else HandOver.DELEGATED
    return s.request.hand_over or own


_CONDITIONS: Mapping[str, Any] = {
    "encryption": lambda s, pair, wanted: s.request.encryption is wanted,
    "compression": lambda s, pair, wanted: (s.option is PerformanceOption.COMPRESSION) is wanted,
    "post_copy": lambda s, pair, wanted: (s.request.post_copy is not PostCopy.OFF) is wanted,
    "memory_mib": lambda s, pair, least: pair.vm.memory_mib >= least,
    "hand_over": lambda s, pair, wanted: _hand_over(s) == wanted,
    "feature": lambda s, pair, name: pair.vm.cpu is not None and name in pair.vm.cpu.features,
}


def _versions(host: HostFacts, advisory: Advisory) -> str:
    return ", ".join(f"{name} {host.versions.get(name)}" for name in advisory.versions)


def told(s: Subject) -> str | None:
    """Say which faults were met that only inform; None when the hosts tell no versions."""
    if s.pair is None or not (s.pair.source.versions or s.pair.destination.versions):
        return None
    met = concerning(s)
    lines = dict.fromkeys(f"{a.id}: {a.effect}" for _, a in met if a.severity is Severity.INFORMATION)
    return "no known fault" if not lines else "for information: " + "; ".join(lines)
