"""Running a local program to its end, and replacing a file in one step: what all that works on this machine shares."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from refimpl.hosts.channel import Completed


def run_local(
    command: Sequence[str],
    *,
    timeout_s: float = 30.0,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Completed:
    """Run a program (no shell), in the directory `cwd` if one is named, and return what it gave.

    OSError when it cannot be started; TimeoutError, after it was killed, when it ran longer than `timeout_s` seconds.
    """
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL if stdin is None else None,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env=environment,
            cwd=cwd,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{command[0]} did not end within {timeout_s:g} s") from error
    return Completed(status=done.returncode, stdout=done.stdout, stderr=done.stderr)


def replace_file(path: Path | str, data: bytes, mode: int) -> None:
    """Replace a file atomically and durably, with this mode from its first byte on. OSError when it cannot be done."""
    temporary = f"{path}.{secrets.token_hex(4)}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as target:
            os.fchmod(target.fileno(), mode)
            target.write(data)
            target.flush()
            os.fsync(target.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
