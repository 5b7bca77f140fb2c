"""What a lab needs of this machine, looked at one by one: the one list, for `lab up` and for the doctor.

Looking changes nothing and runs nothing; what only a try can show is in `features`.
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

from refimpl.lab.tools import SEARCH_PATH, init_path

SETUP = "ci/setup"
PACKAGES, PYTHON, MODULE = "packages", "python", "module"
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
    """One thing that was looked at. `ok` False needs its mend; `mend` of one that is in order is only a remark.

    `repair`: by what the doctor can mend it himself (`PACKAGES`, ...); empty: a person has to.
    """

    name: str
    ok: bool
    text: str
    mend: str = ""
    repair: str = ""

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
    return Finding(name, True, path) if path else Finding(name, False, "not installed", SETUP, PACKAGES)


def package(module: str, distribution: str, extra: str) -> Finding:
    """Look for a Python package; `extra` is the one of this project's that brings it."""
    name = f"python {module}"
    if importlib.util.find_spec(module) is None:
        mend = f"pip install 'refimpl[{extra}]', or {SETUP}"
        return Finding(name, False, "not installed", mend, f"{PYTHON}:{distribution}")
    try:
        return Finding(name, True, metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return Finding(name, True, "there, version not known")


def _root() -> Finding:
    if os.geteuid() == 0:
        return Finding("root", True, "running as root")
    return Finding("root", False, f"running as user {os.geteuid()}; a lab belongs to root", "sudo refimpl doctor")


def _tun() -> Finding:
    device = Path("/dev/net/tun")
    if device.exists():
        return Finding("tun device", True, str(device))
    return Finding(
        "tun device", False, f"{device} is not there: no network cards for VMs", "modprobe tun", f"{MODULE}:tun"
    )


def _overlay() -> Finding:
    name, good = "overlay", "the kernel has this file system"
    if "\toverlay\n" in Path("/proc/filesystems").read_text(encoding="ascii"):
        return Finding(name, True, good)
    # Not loaded is not missing: the kernel loads a module of that name at the first mount.
    modules = Path(f"/lib/modules/{os.uname().release}")
    if any(modules.glob("kernel/fs/overlayfs/overlay.ko*")):
        return Finding(name, True, good)
    return Finding(
        name, False, "the kernel has no file system overlay", "use a kernel that has it", f"{MODULE}:overlay"
    )


def _lock_driver() -> Finding:
    found = next(iter(Path("/usr").glob("lib*/**/libvirt/lock-driver/lockd.so")), None)
    if found is None:
        return Finding("lock driver", False, "libvirt's lock driver lockd is not installed: no leases", SETUP, PACKAGES)
    return Finding("lock driver", True, str(found))


def _state_directory(root: Path) -> Finding:
    text, name = str(root), "state directory"
    mend = "name another in REFIMPL_LAB_ROOT"
    if not (root.is_absolute() and all(c.isalnum() or c in "/._-" for c in text)):
        return Finding(name, False, f"its path must be absolute and plain, not {text!r}", mend)
    if len(text) > _LONGEST_ROOT:
        return Finding(name, False, f"its path may have at most {_LONGEST_ROOT} characters, not {len(text)}", mend)
    return Finding(name, True, text)
