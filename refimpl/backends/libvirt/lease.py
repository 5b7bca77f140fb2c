"""The lease of a VM as a host shows it: its file, whether the lock daemon lives and holds it (handover 3)."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection, Sequence

from refimpl.hosts.channel import HostChannel
from refimpl.model.group import Group

LOCK_DAEMON = "virtlockd"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SEEN = 'stat -L -c "%i %W" -- "$1" && stat -L -f -c %i -- "$1" && test -w "$1"'
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.EACCES})
"""What a path says whose file system is not there any more. That a whole host is down has no number."""
_LIBVIRTD_PID_FILES = ("/run/libvirtd.pid", "/run/libvirt/libvirtd.pid", "/run/virtqemud.pid")
_PID_FILES = ("/run/virtlockd.pid", "/run/libvirt/virtlockd.pid")


def path(group: Group, vm_id: str) -> str:
    """Return the lease file of a VM, the same path on every host."""
    return f"{group.lease_directory}/{vm_id}"


def make(channel: HostChannel, file: str) -> None:
    """Make sure that a lease file is there; OSError when it cannot be made."""
    done = channel.run(["touch", "--", file])
    if done.status != 0:
        raise OSError(f"the lease file cannot be made: {done.stderr.strip()}")


def seen_at(channel: HostChannel, file: str) -> str:
    """Return what tells the lease file from any other, as the host sees it. OSError: not there, or takes no writes."""
    done = channel.run(["bash", "-c", _SEEN, "bash", file])
    if done.status != 0:
        raise OSError(done.stderr.strip().rpartition("\n")[2] or "it takes no writes there")
    return " ".join(done.stdout.split())


def gone(channel: HostChannel, file: str) -> str | None:
    """Return why the host does not see the lease file any more; None when it does, or does not answer at all."""
    try:
        channel.read(file)
    except OSError as error:
        return error.strerror if error.errno in _GONE else None
    return None


def held(channel: HostChannel, file: str) -> bool | None:
    """Return whether the lock daemon of the host holds the lease file; None when that cannot be seen.

    A host with a pid namespace of its own lists the locks of its own processes only, and so does a host that is a
    machine; whose lock it is, is asked all the same.
    """
    try:
        done = channel.run(["stat", "-L", "-c", "%d %i", "--", file])
        if done.status != 0:
            return None
        device, inode = (int(word) for word in done.stdout.split())
    except (OSError, ValueError):
        return None
    return held_file(channel, device, inode)


def held_file(channel: HostChannel, device: int, inode: int) -> bool | None:
    """Return the same of a lease file that was found already."""
    try:
        locks = channel.read("/proc/locks").decode()
        return any(_name(channel, pid) == LOCK_DAEMON for pid in holders(locks, device, inode))
    except (OSError, ValueError):
        return None


def left_locked(channel: HostChannel, directory: str, on: Collection[str]) -> tuple[str, ...]:
    """Return the ids of VMs whose leases the host's lock daemon holds and that are not among those `on` there.

    A lease that was taken again (`refimpl.backends.libvirt.mend_leases`) is bound to no process: it outlives its VM.
    OSError when the host cannot be looked at.
    """
    listed = channel.run(["find", directory, "-maxdepth", "1", "-type", "f", "-printf", "%D %i %f\\n"])
    daemon = daemon_pid(channel)
    locks = channel.read("/proc/locks").decode()
    found = (line.split(maxsplit=2) for line in listed.stdout.splitlines())
    held = (name for device, inode, name in found if daemon in holders(locks, int(device), int(inode)))
    return tuple(sorted(name for name in held if _UUID.fullmatch(name) and name not in on))


def holders(locks: str, device: int, inode: int) -> list[int]:
    """Return the pids that hold a write lock on a file, from the text of /proc/locks."""
    key = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
    rows = (line.split() for line in locks.splitlines())
    return [int(r[4]) for r in rows if len(r) > 5 and r[1] == "POSIX" and r[3] == "WRITE" and r[5] == key]


def daemon_alive(channel: HostChannel) -> bool | None:
    """Return whether the host's lock daemon lives; None when the host cannot be looked at."""
    try:
        return daemon_pid(channel) is not None
    except OSError:
        return None


def daemon_pid(channel: HostChannel) -> int | None:
    """Return the pid of the host's lock daemon as the host counts, None when none runs. OSError: it cannot be seen."""
    for path in _PID_FILES:
        try:
            pid = int(channel.read(path))
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise OSError(f"{path} holds no pid: {error}") from error
        if _name(channel, pid) == LOCK_DAEMON:
            return pid
    return None


def in_order(channel: HostChannel) -> bool:
    """Whether the host's libvirtd began after its lock daemon, which knows the lease space only then.

    False also when that cannot be seen.
    """
    try:
        lock, libvirtd = daemon_pid(channel), _first_pid(channel, _LIBVIRTD_PID_FILES)
        if lock is None or libvirtd is None:
            return False
        return _start_ticks(channel, libvirtd) >= _start_ticks(channel, lock)
    except (OSError, ValueError, IndexError):
        return False


def _first_pid(channel: HostChannel, paths: Sequence[str]) -> int | None:
    for path in paths:
        try:
            return int(channel.read(path))
        except FileNotFoundError:
            continue
    return None


def _start_ticks(channel: HostChannel, pid: int) -> int:
    # The 22nd field; the name of the program, the 2nd, may hold spaces and brackets.
    return int(channel.read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[19])


def _name(channel: HostChannel, pid: int) -> str | None:
    try:
        return channel.read(f"/proc/{pid}/comm").decode().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
