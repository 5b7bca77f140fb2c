"""The channel to the machine on which the caller itself runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from refimpl.hosts.channel import Completed
from refimpl.hosts.command import replace_file, run_local
from refimpl.hosts.process import all_pids


class LocalChannel:
    """Run, read and write right here: the host is this machine, its pids are the caller's pids."""

    def run(self, command: Sequence[str], *, timeout_s: float = 30.0, stdin: str | None = None) -> Completed:
        """Run a command to its end. OSError when it cannot start, TimeoutError after `timeout_s` seconds."""
        return run_local(command, timeout_s=timeout_s, stdin=stdin)

    def read(self, path: str) -> bytes:
        """Return the content of a file, OSError when it cannot be read."""
        return Path(path).read_bytes()

    def write(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Replace a file atomically, OSError when it cannot be written."""
        replace_file(path, data, mode)

    def outer_pid(self, inner_pid: int) -> int | None:
        """Return the pid itself while such a process exists, else None."""
        return inner_pid if inner_pid in all_pids() else None
