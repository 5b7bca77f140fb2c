"""How a source's QEMU ended that was not to end: by which signal, and what it said last.

The kernel tells the exit of a process to whoever holds a pidfd of it, parent or not, since Linux 6.15. What QEMU
said is in libvirt's log of the VM, among libvirt's own lines. Either may be missing; nothing is made up then.
"""

from __future__ import annotations

import fcntl
import re
import select
import signal
import struct
from pathlib import Path

from refimpl.hosts.channel import HostChannel

LOG_DIRECTORY = "/var/log/libvirt/qemu"
REAPED_TIMEOUT_MS = 500
CORE_TIMEOUT_MS = 60_000
LOG_LINES = 40
MOST_WORDS = 300
PIDFD_GET_INFO, PIDFD_INFO_EXIT = 0xC040FF0B, 1 << 3  # linux/pidfd.h: _IOWR(0xFF, 11, struct pidfd_info)
_INFO_BYTES, _EXIT_CODE_AT = 64, 60
_SIGNAL, _EXIT_STATUS = 0x7F, 8  # of a wait status

_LIBVIRTS = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+\+0000: ")
_BEGAN = "+0000: initiating migration"
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z ")


def log_path(vm: str) -> str:
    """Return libvirt's log of a domain, as its host sees it."""
    return f"{LOG_DIRECTORY}/{vm}.log"


def await_end(pidfd: int, timeout_ms: int) -> None:
    """Wait until a process has ended, at most so long; one that writes its core dump is waited for up to a minute.

    Until the dump is written everything that it holds is open, and it looks alive to libvirt.
    """
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    if not poller.poll(timeout_ms) and _dumps_core(pidfd):
        poller.poll(CORE_TIMEOUT_MS)


def _dumps_core(pidfd: int) -> bool:
    try:
        (pid,) = re.findall(r"^Pid:\s+(\d+)$", Path(f"/proc/self/fdinfo/{pidfd}").read_text(), re.MULTILINE)
        return bool(re.search(r"^CoreDumping:\s+1$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
    except (OSError, ValueError):
        return False


def how(pidfd: int) -> str:
    """Return how a process ended, as `by SIGABRT` or `with status 1`; empty when the kernel does not tell it (yet).

    It is told when the process was reaped, which this waits for, at most half a second.
    """
    poller = select.poll()
    poller.register(pidfd, 0)
    poller.poll(REAPED_TIMEOUT_MS)
    info = bytearray(_INFO_BYTES)
    struct.pack_into("Q", info, 0, PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, info)
    except OSError:
        return ""
    (told,) = struct.unpack_from("Q", info, 0)
    (status,) = struct.unpack_from("i", info, _EXIT_CODE_AT)
    if not told & PIDFD_INFO_EXIT:
        return ""
    number = status & _SIGNAL
    return f"by {_name(number)}" if number else f"with status {status >> _EXIT_STATUS}"


def last_words(channel: HostChannel, vm: str) -> str:
    """Return the last that QEMU said since its last migration began; empty when it said nothing or has no log."""
    try:
        done = channel.run(["tail", "-n", str(LOG_LINES), log_path(vm)])
    except OSError:
        return ""
    return words(done.stdout) if done.status == 0 else ""


def words(log: str) -> str:
    """Return QEMU's last line in a log's end, if it comes after the beginning of a migration."""
    _, began, after = log.rpartition(_BEGAN)
    said = [line for line in after.splitlines() if line.strip() and not _LIBVIRTS.match(line)] if began else []
    return _TIME.sub("", said[-1].strip()).rstrip(".")[:MOST_WORDS] if said else ""


def reason(ended: str, said: str) -> str:
    """Return the reason to be told, of what `how` and `last_words` gave."""
    process = f"its QEMU ended {ended}".rstrip()
    return f"{process} and said last: {said}" if said else process


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
