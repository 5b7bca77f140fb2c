"""Does the destination know the version of the VM's configuration, and is it no older than the source (R5)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from refimpl.checks.subject import Pair, Subject
from refimpl.model.errors import Problem

Version = tuple[int, ...]
_VERSION = re.compile(r"\d{1,9}(?:\.\d{1,9}){0,5}", re.ASCII)


def check(s: Subject) -> Iterator[Problem]:
    """Yield a machine type that is unknown there, also to a VM that is off; and an older QEMU there as a warning."""
    if s.pair is None:
        return
    vm, source, destination = s.pair
    types = destination.machine_types
    if vm.machine and types is not None and vm.machine not in types:
        versions = {"here": _named(source.versions, "qemu"), "there": _named(destination.versions, "qemu")}
        yield s.problem("machine.unsupported", destination.name, vm=vm.name, machine=vm.machine, **versions)
    elif s.live_pair is not None:
        yield from _older(s, s.pair)


def _older(s: Subject, pair: Pair) -> Iterator[Problem]:
    here, there = (host.versions.get("qemu", "") for host in (pair.source, pair.destination))
    ours, theirs = parsed(here), parsed(there)
    if ours is not None and theirs is not None and theirs < ours:
        values = {"component": "QEMU", "here": here, "there": there, "source": pair.source.name}
        yield s.problem("version.older", pair.destination.name, **values)


def told(s: Subject) -> str | None:
    """Say which versions and machine type were compared; None when nothing of it was seen."""
    if s.pair is None:
        return None
    vm, source, destination = s.pair
    listed = {host.name: _listed(host.versions) for host in (source, destination)}
    if not any(listed.values()):
        return None
    same = listed[source.name] == listed[destination.name]
    text = f"{listed[source.name]} on both" if same else "; ".join(f"{h}: {v or '?'}" for h, v in listed.items())
    known = vm.machine and destination.machine_types is not None
    return f"{text}; machine type {vm.machine} is known on {destination.name}" if known else text


def parsed(text: str) -> Version | None:
    """Return the version with which a text begins as numbers that compare, None when it begins with none."""
    found = _VERSION.match(text)
    if found is None:
        return None
    numbers = [int(part) for part in found[0].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _named(versions: Mapping[str, str], component: str) -> str:
    return versions.get(component, "of unknown version")


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{component} {version}" for component, version in sorted(versions.items()))
