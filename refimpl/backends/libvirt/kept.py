"""The stored definition of a VM that is being moved, kept beside the group store under the operation's id.

When the host that had the only one is cut off, the VM is started from its disks elsewhere by this (ADR 15). CLEAN_UP
removes it. It is a help, not a guard: where it cannot be written, a move goes on without it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from refimpl.backends.libvirt.operation import Operation


def keep(operation: Operation, xml: str) -> None:
    """Keep a definition."""
    path = _path(operation)
    if path is None:
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(xml)


def kept(operation: Operation) -> str | None:
    """Return what was kept, None when nothing was."""
    path = _path(operation)
    try:
        return path.read_text("utf-8") if path is not None else None
    except (OSError, ValueError):
        return None


def forget(operation: Operation) -> None:
    """Keep it no longer."""
    path = _path(operation)
    if path is not None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _path(operation: Operation) -> Path | None:
    store = operation.reach.group.store_path
    return Path(store).with_name(f"{Path(store).name}.{operation.id}.xml") if store else None
