"""What libvirt found out about QEMU, kept between labs: asking QEMU anew costs each host seconds.

libvirt itself judges whether what it finds in its cache still holds; the key here only keeps different installations
apart. The cache belongs to no lab and carries no lab's id.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from pathlib import Path

from refimpl.lab.layout import cache_root
from refimpl.lab.tools import SEARCH_PATH

_PROGRAMS = ("libvirtd", "qemu-system-x86_64")
_BELOW = Path("qemu/capabilities")


def kept_capabilities() -> Path:
    """Return the directory in which the capabilities of the present libvirt and QEMU are kept, or would be."""
    facts = [os.uname().release]
    for name in _PROGRAMS:
        path = shutil.which(name, path=SEARCH_PATH) or name
        found = os.stat(path)
        facts.append(f"{os.path.realpath(path)} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}")
    return cache_root() / f"capabilities-{hashlib.sha256(chr(10).join(facts).encode()).hexdigest()[:16]}"


def lend(host_cache: Path) -> bool:
    """Copy what is kept into a host's cache directory; False when nothing is kept."""
    kept = kept_capabilities()
    if not kept.is_dir():
        return False
    shutil.copytree(kept, host_cache / _BELOW, dirs_exist_ok=True)
    return True


def keep(host_cache: Path) -> bool:
    """Keep what a host's libvirt found out; False when it found nothing or another was quicker."""
    found, kept = host_cache / _BELOW, kept_capabilities()
    if kept.is_dir() or not found.is_dir() or not any(found.iterdir()):
        return False
    unfinished = kept.with_name(f"{kept.name}.{secrets.token_hex(4)}")
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(found, unfinished)
    try:
        unfinished.rename(kept)
    except OSError:
        shutil.rmtree(unfinished)
        return False
    return True
