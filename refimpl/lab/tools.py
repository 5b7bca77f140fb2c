"""How the lab runs a program of the machine, and its init program, which is compiled here."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from refimpl.hosts.command import run_local
from refimpl.lab.errors import LabError
from refimpl.lab.layout import LAB_VARIABLE, cache_root

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


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


def lab_environment(lab_id: str = "", **more: str) -> Mapping[str, str]:
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
