"""What this machine has and lacks for a lab and for live migration, looked at one by one; changes nothing.

Each finding says what was seen, and what mends it when it is not in order.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from refimpl.app.home import Home
from refimpl.hosts.command import run_local
from refimpl.lab import layout
from refimpl.lab.requirements import COMPILER, PROGRAMS, SETUP, Finding, package, program, requirements

OTHER_PROGRAMS = ("nft", "dnsmasq", "qemu-img", "apt-get", "apt-cache", "dpkg-deb", COMPILER)
"""What a lab can be built without: its search for what was left, guests of one's own, the guest's builder run these."""
_LOOK_S = 20.0
_FIRMWARE = ("/usr/share/qemu/firmware", "/etc/qemu/firmware")
_VERSION_OPTION = {"ip": "-Version"}


def examine(home: Home) -> Iterator[Finding]:
    """Yield one finding after the other, each as soon as it is there."""
    yield _system()
    if sys.platform != "linux":
        return
    yield from _needed()
    yield package("libvirt", "libvirt-python", "libvirt")
    yield package("pycdlib", "pycdlib", "lab")
    yield _uefi()
    yield _namespaces()
    yield _kvm()
    yield _operations(home)
    yield _labs()


def _system() -> Finding:
    if sys.platform == "linux":
        return Finding("system", True, f"Linux {os.uname().release}")
    mend = "Use Linux; refimpl demo --backend simulated runs here"
    return Finding("system", False, f"{sys.platform}: a lab is made of Linux namespaces", mend)


def _needed() -> Iterator[Finding]:
    seen = set()
    for found in chain(requirements(layout.state_root()), map(program, OTHER_PROGRAMS)):
        if found.name not in seen:
            yield _with_version(found)
        seen.add(found.name)


def _with_version(found: Finding) -> Finding:
    """Let a program that is there say its version: one that is there may still not run."""
    if not found.ok or found.name not in (*PROGRAMS, *OTHER_PROGRAMS):
        return found
    try:
        done = run_local([found.text, _VERSION_OPTION.get(found.name, "--version")], timeout_s=_LOOK_S)
    except OSError as failure:
        return Finding(found.name, False, f"{found.text} does not run: {failure}", SETUP)
    said = (done.stdout or done.stderr).strip().splitlines()
    return Finding(found.name, done.status == 0, said[0] if said else found.text, "" if done.status == 0 else SETUP)


def _uefi() -> Finding:
    """Look for what QEMU describes as firmware: without it a VM has a BIOS only, which most need no more than."""
    found = sorted(path for directory in _FIRMWARE for path in Path(directory).glob("*edk2*x86_64*.json"))
    if found:
        return Finding("UEFI firmware", True, str(found[-1]))
    return Finding("UEFI firmware", False, "not installed: no VM with --firmware uefi", SETUP)


def _namespaces() -> Finding:
    """Make every kind of namespace that a host is made of, for one program that ends at once."""
    try:
        done = run_local(["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "true"], timeout_s=_LOOK_S)
    except OSError as failure:
        return Finding("namespaces", False, str(failure), SETUP)
    if done.status == 0:
        return Finding("namespaces", True, "network, mount, UTS and PID namespaces can be made")
    mend = "Run as root, and in a container with the rights to make namespaces (--privileged)"
    return Finding("namespaces", False, done.stderr.strip() or f"unshare ended with {done.status}", mend)


_SLOWER = "VMs run without KVM, slower"


def _kvm() -> Finding:
    """Not being there is no fault: the lab works without, only slower."""
    from refimpl.guest import GuestBuildError
    from refimpl.guest.accelerator import probe

    try:
        found = probe()
    except (GuestBuildError, OSError) as failure:
        return Finding("KVM", True, f"not probed, as the guest cannot be built: {failure}", _SLOWER)
    return Finding("KVM", True, found.why, "" if found.usable else _SLOWER)


def _operations(home: Home) -> Finding:
    from refimpl.app.recovery import needs_attention

    waiting = needs_attention(home)
    if not waiting:
        return Finding("operations", True, f"none was interrupted (home {home.path})")
    return Finding("operations", False, f"interrupted: {', '.join(waiting)}", "refimpl recover")


def _labs() -> Finding:
    from refimpl.lab import LabState, list_labs

    labs = list_labs()
    broken = [lab for lab in labs if lab.state is LabState.BROKEN]
    if broken:
        names = ", ".join(f"{lab.name or '?'} (id {lab.id})" for lab in broken)
        return Finding("labs", False, f"left half-made or by an earlier boot: {names}", "refimpl lab reap")
    off = [lab for lab in labs if lab.state in (LabState.OFF, LabState.DEGRADED)]
    if off:
        names = ", ".join(f"{lab.name} ({lab.state})" for lab in off)
        return Finding("labs", False, f"not whole: {names}", "refimpl lab status NAME, or refimpl lab down NAME")
    return Finding("labs", True, ", ".join(f"{lab.name} ({lab.state})" for lab in labs) or "none")
