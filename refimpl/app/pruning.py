"""Forgetting operations that have ended: what is kept of them is removed, and of no others.

An operation is removed under its own lock, so that no conductor can be started on it meanwhile, and only when what is
seen under the lock still says that it has ended and that nothing of it is left to be done.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass

from refimpl.app.home import Home, OperationFiles
from refimpl.app.operations import Summary, summarise
from refimpl.hosts.lock import tried
from refimpl.model.errors import RefimplError

DAY_NS = 24 * 3600 * 1_000_000_000
_YOUNG = "younger"


@dataclass(frozen=True, slots=True)
class Pruned:
    """Which operations were removed, and which others stay for a reason that a person may want to know."""

    removed: tuple[str, ...]
    kept: Mapping[str, str]


def prune(home: Home, older_than_days: float, *, lab_gone: bool = False, now_ns: int | None = None) -> Pruned:
    """Remove operations that ended at least so many days ago; with `lab_gone` also those that can never end.

    OSError when a directory cannot be removed.
    """
    before_ns = (time.time_ns() if now_ns is None else now_ns) - round(older_than_days * DAY_NS)
    removed, kept = [], {}
    for files in list(home.all()):
        why = _prune_one(files, before_ns, lab_gone)
        if why is None:
            removed.append(files.id)
        elif why != _YOUNG:
            kept[files.id] = why
    return Pruned(tuple(removed), kept)


def _prune_one(files: OperationFiles, before_ns: int, lab_gone: bool) -> str | None:
    """Remove an operation and return None, or leave it and return why."""
    with tried(files.lock) as free:
        if not free:
            return "it runs"
        try:
            summary = summarise(files)
        except RefimplError:
            return "it cannot be read"
        why = _kept(summary, before_ns, lab_gone)
        if why is None:
            shutil.rmtree(files.directory)
        return why


def _kept(summary: Summary, before_ns: int, lab_gone: bool) -> str | None:
    if summary.alive:
        return "it runs"
    if summary.outcome is None and summary.lab_gone:
        return None if lab_gone else "it has no end, and its lab is gone (--lab-gone removes it)"
    if summary.needs_recovery:
        return f"it needs recovery (refimpl recover {summary.id})"
    ended_ns = summary.ended_ns or 0
    return None if ended_ns <= before_ns else _YOUNG
