"""Processes named so that they cannot be mistaken: by pid, start time and boot id, and signalled through a pidfd.

A pid alone may be reused at any moment. Everything that the lab or the engine wants to find again, wait for or end
is therefore kept as a `ProcessRef`, checked before use, and held by a pidfd while it is used.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from refimpl.model.group import ProcessRef

_START_TIME_FIELD = 19  # counted from the field after the command's closing parenthesis
_EXEC_TRIES = 20
_EXEC_POLL_S = 0.001
_DEAD_STATES = frozenset("ZXx")


def boot_id() -> str:
    """Return the kernel's id of the present boot. OSError where there is no Linux /proc."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def here(pid: int) -> ProcessRef:
    """Return the reference of a living process. ProcessLookupError when there is none of that pid."""
    start = _start_ticks(pid)
    if start is None:
        raise ProcessLookupError(f"no living process {pid}")
    return ProcessRef(pid=pid, start_ticks=start, boot_id=boot_id())


def alive(ref: ProcessRef) -> bool:
    """Tell whether exactly this process still runs; a zombie does not run."""
    return ref.boot_id == boot_id() and _start_ticks(ref.pid) == ref.start_ticks


@contextlib.contextmanager
def pidfd(ref: ProcessRef) -> Iterator[int | None]:
    """Give a pidfd of the process, or None when it does not run any more. The descriptor is closed at the end."""
    descriptor = _open_pidfd(ref)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def send_signal(ref: ProcessRef, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; False when it was gone already."""
    with pidfd(ref) as descriptor:
        return descriptor is not None and _signal(descriptor, number)


def wait_gone(ref: ProcessRef, timeout_s: float) -> bool:
    """Wait until the process has ended (at most `timeout_s` seconds); True when it has."""
    with pidfd(ref) as descriptor:
        return descriptor is None or _wait(descriptor, ref.pid, timeout_s)


def kill(ref: ProcessRef, timeout_s: float = 5.0) -> bool:
    """End the process with SIGKILL and wait for its end; True when it is gone."""
    with pidfd(ref) as descriptor:
        if descriptor is None:
            return True
        _signal(descriptor, signal.SIGKILL)
        return _wait(descriptor, ref.pid, timeout_s)


def environment_value(pid: int, name: str) -> str | None:
    """Return a variable of the environment with which a process was started, None if unset, gone or unreadable."""
    raw = _environment(pid)
    prefix = name.encode() + b"="
    found = next((e for e in raw.split(b"\0") if e.startswith(prefix)), None)
    return None if found is None else found[len(prefix) :].decode(errors="replace")


def inner_pid(pid: int) -> int | None:
    """Return the pid that a process has in its own (innermost) pid namespace, or None when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    line = next((entry for entry in status.splitlines() if entry.startswith("NSpid:")), None)
    return None if line is None else int(line.split()[-1])


def all_pids() -> list[int]:
    """Return the pids of all processes that this process can see. OSError where there is no /proc."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def namespace_inode(pid: int, kind: str) -> int | None:
    """Return the inode of a namespace (`net`, `pid`, `mnt`, ...) of a process, None when gone or not permitted."""
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return None


def _environment(pid: int) -> bytes:
    """Read an environment; in the middle of an exec it looks empty for an instant, so that is looked at again."""
    for _ in range(_EXEC_TRIES):
        try:
            raw = Path(f"/proc/{pid}/environ").read_bytes()
            os.readlink(f"/proc/{pid}/exe")
        except OSError:
            return b""  # gone, a zombie, a kernel thread, or somebody else's
        if raw:
            return raw
        time.sleep(_EXEC_POLL_S)
    return b""


def _start_ticks(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in _DEAD_STATES else int(fields[_START_TIME_FIELD])


def _open_pidfd(ref: ProcessRef) -> int | None:
    if sys.platform != "linux":
        raise OSError("process references need Linux")
    try:
        descriptor = os.pidfd_open(ref.pid)
    except ProcessLookupError:
        return None
    if alive(ref):
        return descriptor
    os.close(descriptor)
    return None


def _signal(descriptor: int, number: signal.Signals) -> bool:
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    return True


def _wait(descriptor: int, pid: int, timeout_s: float) -> bool:
    # poll, not select: a descriptor above 1023 is nothing unusual in a long test run.
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    ended = bool(poller.poll(timeout_s * 1000))
    if ended:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return ended
