"""What this machine has and lacks for a lab and for live migration, looked at one by one; changes nothing.

Each finding says what was seen, and what mends it when it is not in order.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from refimpl.app.home import Home

SETUP = "ci/setup"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS: dict[str, tuple[str, ...]] = {
    "qemu-system-x86_64": ("--version",),
    "libvirtd": ("--version",),
    "virtlockd": ("--version",),
    "virsh": ("--version",),
    "ip": ("-Version",),
    "nsenter": ("--version",),
    "unshare": ("--version",),
    "nft": ("--version",),
    "gcc": ("--version",),
    "dpkg-deb": ("--version",),
}
"""Programs of the lab and of the guest's builder, and what asks each for its version."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `ok` False needs its mend; `mend` of one that is in order is only a remark."""

    name: str
    ok: bool
    text: str
    mend: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def examine(home: Home) -> Iterator[Finding]:
    """Yield one finding after the other, each as soon as it is there."""
    yield _system()
    if sys.platform != "linux":
        return
    yield _root()
    yield from (_program(name, asked) for name, asked in PROGRAMS.items())
    yield from (_package(*row) for row in _PACKAGES)
    yield _lock_driver()
    yield _namespaces()
    yield _kvm()
    yield _operations(home)
    yield _labs()


def _system() -> Finding:
    if sys.platform == "linux":
        return Finding("system", True, f"Linux {os.uname().release}")
    mend = "Use Linux; refimpl demo --backend simulated runs here"
    return Finding("system", False, f"{sys.platform}: a lab is made of Linux namespaces", mend)


def _root() -> Finding:
    if os.geteuid() == 0:
        return Finding("root", True, "running as root")
    return Finding("root", False, f"running as user {os.geteuid()}; a lab belongs to root", "sudo refimpl doctor")


def _program(name: str, asked: tuple[str, ...]) -> Finding:
    path = shutil.which(name, path=SEARCH_PATH)
    if path is None:
        return Finding(name, False, "not installed", SETUP)
    try:
        done = subprocess.run([path, *asked], capture_output=True, text=True, errors="replace", timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as failure:
        return Finding(name, False, f"{path} does not run: {failure}", SETUP)
    said = (done.stdout or done.stderr).strip().splitlines()
    return Finding(name, done.returncode == 0, said[0] if said else path, "" if done.returncode == 0 else SETUP)


_PACKAGES = (("libvirt", "libvirt"), ("cryptography", "lab"))


def _package(module: str, extra: str) -> Finding:
    from importlib.metadata import PackageNotFoundError, version

    name = f"python {module}"
    if importlib.util.find_spec(module) is None:
        return Finding(name, False, "not installed", f"pip install 'refimpl[{extra}]', or {SETUP}")
    try:
        return Finding(name, True, version({"libvirt": "libvirt-python"}.get(module, module)))
    except PackageNotFoundError:
        return Finding(name, True, "there, version not known")


def _lock_driver() -> Finding:
    found = next(iter(Path("/usr").glob("lib*/**/libvirt/lock-driver/lockd.so")), None)
    if found is None:
        return Finding("lock driver", False, "libvirt's lock driver lockd is not installed: no leases", SETUP)
    return Finding("lock driver", True, str(found))


def _namespaces() -> Finding:
    """Make every kind of namespace that a host is made of, for one program that ends at once."""
    command = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as failure:
        return Finding("namespaces", False, str(failure), SETUP)
    if done.returncode == 0:
        return Finding("namespaces", True, "network, mount, UTS and PID namespaces can be made")
    mend = "Run as root, and in a container with the rights to make namespaces (--privileged)"
    return Finding("namespaces", False, done.stderr.strip() or f"unshare ended with {done.returncode}", mend)


_SLOWER = "VMs run without KVM, slower"


def _kvm() -> Finding:
    """Not being there is no fault: the lab works without, only slower."""
    from refimpl.guest import GuestBuildError
    from refimpl.guest.accelerator import probe

    try:
        found = probe()
    except (GuestBuildError, OSError) as failure:
        return Finding(
            "KVM", True, f"not probed, as the guest cannot be built: {failure}", "VMs run without KVM, slower"
        )
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
