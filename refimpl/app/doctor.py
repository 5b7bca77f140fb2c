"""What this machine has and lacks for a lab and for live migration, looked at one by one; changes nothing.

Each finding says what was seen, and what mends it when it is not in order.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import psutil

from refimpl.app.home import Home
from refimpl.hosts.command import run_local
from refimpl.lab import layout
from refimpl.lab.features import features
from refimpl.lab.requirements import COMPILER, PACKAGES, PROGRAMS, SETUP, Finding, package, program, requirements

OTHER_PROGRAMS = ("nft", "tc", "dnsmasq", "qemu-img", "apt-get", "apt-cache", "dpkg-deb", COMPILER)
"""What a lab can be built without: its search for what was left, guests of one's own, the guest's builder run these."""

LEAST_VERSION = {"libvirtd": (10, 0), "virtlockd": (10, 0), "qemu-system-x86_64": (8, 2)}
"""The oldest version that will do, by program."""

LEAST_DISK_MIB, LEAST_MEMORY_MIB = 1024, 1024
"""What has to be free: two hosts, a few small VMs with their disks and logs, and the guest's builder."""

GUEST, LABS = "guest", "labs"
"""Repairs of what this program made itself."""

_LOOK_S = 20.0
_FIRMWARE = ("/usr/share/qemu/firmware", "/etc/qemu/firmware")
_VERSION_OPTION = {"ip": "-Version", "tc": "-Version"}
_PACKAGES = (
    ("libvirt", "libvirt-python", "libvirt"),
    ("pycdlib", "pycdlib", "lab"),
    ("jinja2", "jinja2", "report"),
)


def examine(home: Home) -> Iterator[Finding]:
    """Yield one finding after the other, each as soon as it is there."""
    yield _system()
    if sys.platform != "linux":
        return
    yield from _needed()
    yield from (package(*names) for names in _PACKAGES)
    yield _uefi()
    if os.geteuid() == 0:
        yield from features()
    yield from _room()
    yield _guest()
    yield _kvm()
    yield _operations(home)
    yield _as_root("labs", _labs)
    yield _as_root("forwards", _forwards)


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
    """Let a program that is there say its version: one that is there may still not run, or be too old."""
    if not found.ok or found.name not in (*PROGRAMS, *OTHER_PROGRAMS):
        return found
    try:
        done = run_local([found.text, _VERSION_OPTION.get(found.name, "--version")], timeout_s=_LOOK_S)
    except OSError as failure:
        return Finding(found.name, False, f"{found.text} does not run: {failure}", SETUP, PACKAGES)
    said = ((done.stdout or done.stderr).strip().splitlines() or [found.text])[0]
    if done.status != 0:
        return Finding(found.name, False, said, SETUP, PACKAGES)
    least = LEAST_VERSION.get(found.name)
    if least is not None and _version(said) < least:
        wanted = ".".join(map(str, least))
        return Finding(found.name, False, f"{said}: at least {wanted} is needed", SETUP, PACKAGES)
    return Finding(found.name, True, said)


def _version(said: str) -> tuple[int, int]:
    found = re.search(r"(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _uefi() -> Finding:
    """Look for what QEMU describes as firmware: without it a VM has a BIOS only, which most need no more than."""
    found = sorted(path for directory in _FIRMWARE for path in Path(directory).glob("*edk2*x86_64*.json"))
    if found:
        return Finding("UEFI firmware", True, str(found[-1]))
    return Finding("UEFI firmware", False, "not installed: no VM with --firmware uefi", SETUP, PACKAGES)


def _room() -> Iterator[Finding]:
    free_mib = psutil.virtual_memory().available // 2**20
    mend = "" if free_mib >= LEAST_MEMORY_MIB else f"end what uses it; a lab needs {LEAST_MEMORY_MIB} MiB"
    yield Finding("free memory", not mend, f"{free_mib} MiB", mend)
    for name, directory in (("state", layout.state_root()), ("cache", layout.cache_root())):
        there = next(path for path in (directory, *directory.parents) if path.is_dir())
        free_mib = shutil.disk_usage(there).free // 2**20
        mend = "" if free_mib >= LEAST_DISK_MIB else f"make room; at least {LEAST_DISK_MIB} MiB are needed"
        yield Finding(f"free disk ({name})", not mend, f"{free_mib} MiB below {there}", mend)


def _guest() -> Finding:
    """Not being built is no fault: the first VM builds it, which needs the network and some ten seconds."""
    from refimpl.guest.image import cache_directory

    built = sorted(cache_directory().glob("guest-*/vmlinuz")) if cache_directory().is_dir() else []
    if built:
        return Finding("guest", True, str(built[-1].parent))
    return Finding("guest", True, "not built yet", "the first VM builds it, from packages that apt fetches", GUEST)


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


def _as_root(name: str, look: Callable[[], Finding]) -> Finding:
    """Look at what root's labs have; for others that is no fault of the machine."""
    try:
        return look()
    except PermissionError:
        return Finding(name, True, "not looked at, there are labs of root", "sudo refimpl doctor")


def _labs() -> Finding:
    from refimpl.lab import LabState, list_labs

    labs = list_labs()
    broken = [lab for lab in labs if lab.state is LabState.BROKEN]
    if broken:
        names = ", ".join(f"{lab.name or '?'} (id {lab.id})" for lab in broken)
        return Finding("labs", False, f"left half-made or by an earlier boot: {names}", "refimpl lab reap", LABS)
    off = [lab for lab in labs if lab.state in (LabState.OFF, LabState.DEGRADED)]
    if off:
        names = ", ".join(f"{lab.name} ({lab.state})" for lab in off)
        return Finding("labs", False, f"not whole: {names}", "refimpl lab status NAME, or refimpl lab down NAME")
    return Finding("labs", True, ", ".join(f"{lab.name} ({lab.state})" for lab in labs) or "none")


def _forwards() -> Finding:
    """Look whether another program has the port of a forward that does not run: then its VM cannot be reached by it."""
    taken, count = [], 0
    for vm, port, runs in _recorded_forwards():
        count += 1
        if not runs and not _free(port):
            taken.append(f"port {port} of VM {vm!r}")
    if taken:
        text = f"taken by other programs: {', '.join(taken)}"
        return Finding(
            "forwards", False, text, "end the program that listens there (ss -ltnp), then refimpl vm start VM"
        )
    return Finding("forwards", True, f"{count} of guests" if count else "none")


def _recorded_forwards() -> Iterator[tuple[str, int, bool]]:
    from refimpl.app.watched import shelf_of
    from refimpl.lab import Lab, LabState, list_labs
    from refimpl.lab.forward import Forwards
    from refimpl.lab.service import Services

    for summary in list_labs():
        if summary.state not in (LabState.UP, LabState.DEGRADED):
            continue
        lab = Lab.open(summary.id)
        running = Forwards(Services(lab.paths), outside=-1)
        for record in shelf_of(lab.group).all():
            for forward in record.forwards:
                yield record.name, forward.port, running.up(forward, record.ip or "")


def _free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
