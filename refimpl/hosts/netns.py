"""Entering a network namespace by name, for the calling thread and the threads that it starts afterwards."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

NETNS_DIRECTORY = Path("/run/netns")
"""Where named network namespaces are to be found."""
_CLONE_NEWNET = 0x40000000


def enter(name: str) -> None:
    """Enter a named network namespace for good. OSError when it is not there or the caller may not."""
    with open(NETNS_DIRECTORY / name, "rb") as file:
        enter_open(file.fileno())


def enter_open(descriptor: int) -> None:
    """Enter the network namespace that a descriptor stands for. OSError when the caller may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
