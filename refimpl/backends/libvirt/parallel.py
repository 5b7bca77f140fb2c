"""Doing the same for several hosts at once: one slow host does not make the others wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def in_parallel(work: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """Return what `work` gives for each item, in their order. What it raises, the first of it, goes on."""
    if not items:
        return []
    with ThreadPoolExecutor(max_workers=len(items), thread_name_prefix="libvirt-look") as pool:
        return list(pool.map(work, items))
