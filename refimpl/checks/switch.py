"""Has the destination the virtual switches to which the VM's adapters are connected, by name (R11, R16)."""

from __future__ import annotations

from collections.abc import Iterator

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem


def check(s: Subject) -> Iterator[Problem]:
    """Yield each adapter whose switch does not exist there: Hyper-V's 33012, with the adapter as its Source."""
    if s.pair is None or s.pair.destination.switches is None:
        return
    vm, _, destination = s.pair
    has = destination.switches or frozenset()
    known = ", ".join(sorted(has)) or "none"
    for number, nic in enumerate(vm.nics, 1):
        if nic.switch is not None and nic.switch not in has:
            names = {"switch": nic.switch, "nic": nic.name, "mac": nic.mac, "known": known}
            yield s.problem("switch.missing", destination.name, vm=vm.name, number=number, **names)


def told(s: Subject) -> str | None:
    """Say which switches were looked for; None when the destination does not tell its switches."""
    if s.pair is None or s.pair.destination.switches is None:
        return None
    vm, _, destination = s.pair
    names = sorted({nic.switch for nic in vm.nics if nic.switch is not None})
    if not names:
        return "the VM is connected to no switch"
    return f"{', '.join(names)}: there on {destination.name} by name"
