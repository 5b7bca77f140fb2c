"""Entering a network namespace by name, for the calling thread and the threads that it starts afterwards."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000
NETNS_DIRECTORY = Path("/run/netns")
"""Where named network namespaces are to be found."""


def enter(name: str) -> None:
    """Enter a named network namespace for good. OSError when it is not there or the caller may not."""
    with open(NETNS_DIRECTORY / name, "rb") as file:
        _setns(file.fileno())


@contextmanager
def entered(name: str | None) -> Iterator[None]:
    """Be in a named network namespace for a while; None changes nothing."""
    if name is None:
        yield
        return
    with open("/proc/thread-self/ns/net", "rb") as before:
        enter(name)
        try:
            yield
        finally:
            _setns(before.fileno())


def _setns(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
