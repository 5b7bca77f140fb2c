"""The channel to a host that is a set of Linux namespaces, held by its init process.

Commands enter the mount, UTS, network and pid namespaces of that init; files are reached through its root directory.
The init is checked before every use: after its end the same pid may belong to anything.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from refimpl.hosts.channel import Completed
from refimpl.hosts.command import run_local
from refimpl.hosts.netns import NETNS_DIRECTORY
from refimpl.hosts.process import alive, all_pids, inner_pid, namespace_inode
from refimpl.hosts.talk import Talk
from refimpl.model.group import ProcessRef

_MAX_LINKS = 40


def enter_host(init: ProcessRef) -> list[str]:
    """Return the beginning of a command line that runs what follows on the host.

    The pid namespace is entered too: a process outside it would outlive the host.
    """
    return ["nsenter", "-t", str(init.pid), "-m", "-u", "-n", "-p", "--"]


def enter_network(netns: str) -> list[str]:
    """Return the beginning of a command line that runs what follows in a named network namespace."""
    return ["nsenter", f"--net={NETNS_DIRECTORY}/{netns}", "--"]


class NamespaceChannel:
    """Run and read on a host made of namespaces; OSError `host is down` when its init has ended."""

    def __init__(self, init: ProcessRef) -> None:
        """Remember the host's init process; nothing is opened yet."""
        self._init = init

    def run(self, command: Sequence[str], *, timeout_s: float = 30.0, stdin: str | None = None) -> Completed:
        """Run a command on the host. OSError when the host is down, TimeoutError after `timeout_s` seconds.

        A program that the host does not have gives status 127.
        """
        self._require_up()
        # Killing nsenter would leave its child behind, so the command has a limit of its own inside.
        limit = ["timeout", "--foreground", "--signal=KILL", f"{timeout_s + 0.5:g}"]
        return run_local([*enter_host(self._init), *limit, *command], timeout_s=timeout_s, stdin=stdin)

    def read(self, path: str) -> bytes:
        """Return the content of a file as the host sees it, OSError when that cannot be done."""
        root = self._open_root()
        try:
            descriptor = os.open(_resolve(root, path), os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
            with os.fdopen(descriptor, "rb") as source:
                return source.read()
        finally:
            os.close(root)

    def talk(self, program: str) -> Talk:
        """Start a program in the caller's own Python, which such a host has too. OSError when the host is down."""
        self._require_up()
        return Talk([*enter_host(self._init), sys.executable, "-I", "-S", "-c", program])

    def outer_pid(self, inner: int) -> int | None:
        """Return the caller's pid of a process that the host knows by `inner`, None when it is gone."""
        if not alive(self._init):
            return None
        space = namespace_inode(self._init.pid, "pid")
        if space is None:
            return None
        return next((p for p in all_pids() if namespace_inode(p, "pid") == space and inner_pid(p) == inner), None)

    def _require_up(self) -> None:
        if not alive(self._init):
            raise OSError(f"host is down: its init process {self._init.pid} has ended")

    def _open_root(self) -> int:
        """Open the host's root, then check the init: what is open cannot change hands any more."""
        try:
            root = os.open(f"/proc/{self._init.pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise OSError(f"host is down: its init process {self._init.pid} has ended") from error
        try:
            self._require_up()
        except OSError:
            os.close(root)
            raise
        return root


def _resolve(root: int, path: str) -> str:
    """Return the path below the open directory `root` with its links followed as the host would follow them.

    Left to the kernel, an absolute link inside the host would lead to the caller's own root directory.
    """
    if not path.startswith("/"):
        raise ValueError(f"a path on a host is absolute: {path!r}")
    done: list[str] = []
    parts = path.split("/")[::-1]
    links = 0
    while parts:
        part = parts.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = done[:-1]
            continue
        target = _link_target(root, "/".join([*done, part]))
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        done = [] if target.startswith("/") else done
        parts.extend(target.split("/")[::-1])
    return "/".join(done) or "."


def _link_target(root: int, path: str) -> str | None:
    try:
        return os.readlink(path, dir_fd=root)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise
