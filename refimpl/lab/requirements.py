"""What a lab needs of this machine, looked at one by one: the one list, for `lab up` and for the doctor.

Looking changes nothing.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from refimpl.lab.errors import LabError
from refimpl.lab.tools import SEARCH_PATH, init_path, run_tool

SETUP = "ci/setup"
PROGRAMS = (
    "ip",
    "nsenter",
    "unshare",
    "mount",
    "setsid",
    "timeout",
    "hostname",
    "libvirtd",
    "virtlockd",
    "virsh",
    "qemu-system-x86_64",
)
COMPILER = "gcc"
_LONGEST_ROOT = 60


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


def requirements(root: Path) -> Iterator[Finding]:
    """Yield a finding for everything that a lab below the state directory `root` needs."""
    yield _root()
    yield from map(program, PROGRAMS)
    if not init_path().exists():
        yield program(COMPILER)
    yield _tun()
    yield _overlay()
    yield _lock_driver()
    yield package("cryptography", "cryptography", "lab")
    yield _state_directory(root)


def program(name: str) -> Finding:
    """Look for a program where the lab looks for it."""
    path = shutil.which(name, path=SEARCH_PATH)
    return Finding(name, True, path) if path else Finding(name, False, "not installed", SETUP)


def package(module: str, distribution: str, extra: str) -> Finding:
    """Look for a Python package; `extra` is the one of this project's that brings it."""
    name = f"python {module}"
    if importlib.util.find_spec(module) is None:
        return Finding(name, False, "not installed", f"pip install 'refimpl[{extra}]', or {SETUP}")
    try:
        return Finding(name, True, metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return Finding(name, True, "there, version not known")


def ipv6() -> Finding:
    """Give an IPv6 address to the loopback of a network namespace that ends with the try."""
    name, command = "IPv6", ("unshare", "--net", "ip", "-6", "address", "add", "fd00:90:3::1/64", "dev", "lo")
    try:
        run_tool(*command)
    except LabError as failure:
        said = str(failure.values.get("said", "")).splitlines() or ["no IPv6 address can be set"]
        return Finding(name, False, said[0], "boot the kernel with IPv6 (ipv6.disable=0)")
    return Finding(name, True, "the kernel has it")


def _root() -> Finding:
    if os.geteuid() == 0:
        return Finding("root", True, "running as root")
    return Finding("root", False, f"running as user {os.geteuid()}; a lab belongs to root", "sudo refimpl doctor")


def _tun() -> Finding:
    device = Path("/dev/net/tun")
    if device.exists():
        return Finding("tun device", True, str(device))
    return Finding("tun device", False, f"{device} is not there: no network cards for VMs", "modprobe tun")


def _overlay() -> Finding:
    name, good = "overlay", "the kernel has this file system"
    if "\toverlay\n" in Path("/proc/filesystems").read_text(encoding="ascii"):
        return Finding(name, True, good)
    # Not loaded is not missing: the kernel loads a module of that name at the first mount.
    modules = Path(f"/lib/modules/{os.uname().release}")
    if any(modules.glob("kernel/fs/overlayfs/overlay.ko*")):
        return Finding(name, True, good)
    return Finding(name, False, "the kernel has no file system overlay", "use a kernel that has it")


def _lock_driver() -> Finding:
    found = next(iter(Path("/usr").glob("lib*/**/libvirt/lock-driver/lockd.so")), None)
    if found is None:
        return Finding("lock driver", False, "libvirt's lock driver lockd is not installed: no leases", SETUP)
    return Finding("lock driver", True, str(found))


def _state_directory(root: Path) -> Finding:
    text, name = str(root), "state directory"
    mend = "name another in REFIMPL_LAB_ROOT"
    if not (root.is_absolute() and all(c.isalnum() or c in "/._-" for c in text)):
        return Finding(name, False, f"its path must be absolute and plain, not {text!r}", mend)
    if len(text) > _LONGEST_ROOT:
        return Finding(name, False, f"its path may have at most {_LONGEST_ROOT} characters, not {len(text)}", mend)
    return Finding(name, True, text)
