"""Has the destination the processor that the VM's guest has seen (semantics 2.7; R5).

What an emulator (TCG) shows to a guest is the same on every host, so the hosts' own processors count for nothing there.
"""

from __future__ import annotations

from collections.abc import Iterator

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem

EMULATED = "tcg"


def check(s: Subject) -> Iterator[Problem]:
    """Yield another vendor, features that are missing there, and an accelerator that is missing there."""
    yield from _accelerator(s)
    pair = s.live_pair
    if pair is None or pair.vm.accelerator == EMULATED or pair.destination.cpu is None:
        return
    vm, there = pair.vm, pair.destination.cpu
    here = pair.source.cpu or vm.cpu
    if here is not None and here.vendor and there.vendor and here.vendor != there.vendor:
        names = {"here": here.vendor, "there": there.vendor, "source": pair.source.name}
        yield s.problem("cpu.vendor", pair.destination.name, vm=vm.name, **names)
    elif vm.cpu is not None and (missing := vm.cpu.features - there.features):
        id = "cpu.baseline" if vm.processor_compatibility else "cpu.features"
        yield s.problem(id, pair.destination.name, vm=vm.name, features=", ".join(sorted(missing)))


def _accelerator(s: Subject) -> Iterator[Problem]:
    """A VM that is off cannot even be defined where its accelerator is missing."""
    if s.pair is None:
        return
    vm, _, destination = s.pair
    has = destination.accelerators
    if vm.accelerator and has is not None and vm.accelerator not in has:
        known = ", ".join(sorted(has)) or "none"
        yield s.problem("accelerator.missing", destination.name, vm=vm.name, accelerator=vm.accelerator, known=known)


def told(s: Subject) -> str | None:
    """Say what was compared; None when the processors were not seen."""
    pair = s.pair
    if pair is None:
        return None
    if pair.vm.accelerator == EMULATED:
        return "emulated, and so the same on both hosts"
    if s.live_pair is None:
        return "the VM is off: any processor will do"
    if pair.destination.cpu is None or pair.vm.cpu is None:
        return None
    of = "of the baseline, which" if pair.vm.processor_compatibility else "that"
    count, there = len(pair.vm.cpu.features), pair.destination.cpu.vendor
    return f"{there} on both; {count} feature(s) {of} the VM sees, none missing on {pair.destination.name}"
