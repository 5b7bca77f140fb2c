"""The programs that the lab uses: what must be there, how one is run, and the init program, which is compiled here."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import secrets
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from refimpl.hosts.command import run_local
from refimpl.lab.errors import LabError
from refimpl.lab.layout import LAB_VARIABLE, cache_root

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
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LONGEST_ROOT = 60


def missing_requirements(root: Path) -> list[str]:
    """Return everything that a lab below `root` would need and that is not there, each as a few words."""
    missing = [] if os.geteuid() == 0 else ["root rights"]
    missing += [f"program {p}" for p in PROGRAMS if shutil.which(p, path=SEARCH_PATH) is None]
    if not init_path().exists() and shutil.which("gcc", path=SEARCH_PATH) is None:
        missing.append("program gcc")
    missing += [] if Path("/dev/net/tun").exists() else ["device /dev/net/tun"]
    missing += [] if _has_overlay() else ["file system overlay in the kernel"]
    missing += [] if any(Path("/usr").glob("lib*/**/libvirt/lock-driver/lockd.so")) else ["libvirt's lock driver lockd"]
    missing += [] if importlib.util.find_spec("cryptography") else ["Python package cryptography (extra `lab`)"]
    return missing + _root_faults(root)


def run_tool(*command: str, lab_id: str = "", stdin: str | None = None, timeout_s: float = 30.0) -> str:
    """Run a program of the machine and return its output.

    It carries the lab's id in its environment: when its caller is killed, the reaper finds it.
    LabError `lab.command_failed` when it ends with another status than 0 or cannot be run.
    """
    try:
        done = run_local(command, timeout_s=timeout_s, stdin=stdin, environment=lab_environment(lab_id))
    except OSError as error:
        raise _failed(command, "-", str(error)) from error
    if done.status != 0:
        raise _failed(command, str(done.status), (done.stderr or done.stdout).strip())
    return done.stdout


def lab_environment(lab_id: str, **more: str) -> Mapping[str, str]:
    """Return the whole environment of a process that the lab starts: nothing of the caller's own but the time zone."""
    base = {"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", "HOME": "/root"}
    zone = {"TZ": os.environ["TZ"]} if "TZ" in os.environ else {}
    return base | zone | ({LAB_VARIABLE: lab_id} if lab_id else {}) | more


def init_path() -> Path:
    """Return where the compiled init program is kept between labs; its name says from which source it was made."""
    return cache_root() / f"init-{hashlib.sha256(_init_source()).hexdigest()[:16]}"


def build_init(lab_id: str) -> Path:
    """Compile the init program unless that was done before, and return it. LabError when the compiler fails."""
    target = init_path()
    if target.exists():
        return target
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
    try:
        source = _init_source().decode()
        run_tool("gcc", "-static", "-Os", "-o", str(unfinished), "-x", "c", "-", lab_id=lab_id, stdin=source)
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def _failed(command: tuple[str, ...], status: str, said: str) -> LabError:
    line = " ".join(command)
    return LabError("lab.command_failed", command=line, status=status, said=said)


def _init_source() -> bytes:
    return files("refimpl.lab").joinpath("init.c").read_bytes()


def _has_overlay() -> bool:
    if "\toverlay\n" in Path("/proc/filesystems").read_text(encoding="ascii"):
        return True
    # Not loaded is not missing: the kernel loads a module of that name at the first mount.
    release = os.uname().release
    return any(Path(f"/lib/modules/{release}").glob("kernel/fs/overlayfs/overlay.ko*"))


def _root_faults(root: Path) -> list[str]:
    text = str(root)
    plain = root.is_absolute() and all(c.isalnum() or c in "/._-" for c in text)
    faults = [] if plain else [f"a state directory whose path is absolute and plain (not {text!r})"]
    if len(text) > _LONGEST_ROOT:
        faults.append(f"a state directory whose path has at most {_LONGEST_ROOT} characters (not {len(text)})")
    return faults
