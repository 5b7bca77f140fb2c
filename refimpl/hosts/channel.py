"""The host channel: the one way in which commands are run and files are read on a host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Answering(Protocol):
    """A helper process on a host that answers questions; what goes wrong with it is OSError."""

    def ask(self, question: Mapping[str, Any], timeout_s: float) -> Any:
        """Return the answer to a question, both plain JSON; TimeoutError after `timeout_s` seconds."""
        ...

    def close(self) -> None:
        """Let the helper end."""
        ...


@dataclass(frozen=True, slots=True)
class Completed:
    """What a finished command gave: exit status, standard output and standard error as text."""

    status: int
    stdout: str
    stderr: str


class HostChannel(Protocol):
    """Run and read on one host. Errors of the host are OSError; a timeout is TimeoutError.

    Paths are paths as the host sees them. `outer_pid` maps a pid of the host to the pid that the caller sees.
    """

    def run(self, command: Sequence[str], *, timeout_s: float = 30.0, stdin: str | None = None) -> Completed:
        """Run a command to its end (no shell) and return what it gave."""
        ...

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        ...

    def talk(self, program: str) -> Answering:
        """Start a Python program (its source) that reads a question a line and ends with its standard input."""
        ...

    def outer_pid(self, inner_pid: int) -> int | None:
        """Return the pid by which the caller can signal or watch the process, or None when it is gone."""
        ...
