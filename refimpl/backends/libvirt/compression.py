"""What libvirt is told of a plan's compression: zstd over QEMU's multifd channels, or xbzrle over the one channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refimpl.backends.libvirt import connection
from refimpl.model.request import Plan

ZSTD, XBZRLE = "zstd", "xbzrle"
ZSTD_LEVEL = 1
CHANNELS = 2
"""Channels over which zstd sends, each with a thread of its own on either side; one of them packs half as fast."""


def flags(plan: Plan) -> int:
    """Return libvirt's flags for the plan's compression, 0 without. ValueError for a method that is not known."""
    lv = connection.module()
    known = {"": 0, ZSTD: lv.VIR_MIGRATE_PARALLEL | lv.VIR_MIGRATE_COMPRESSED, XBZRLE: lv.VIR_MIGRATE_COMPRESSED}
    if plan.compression not in known:
        raise ValueError(f"no method of compression: {plan.compression!r}")
    return int(known[plan.compression])


def parameters(plan: Plan) -> dict[str, Any]:
    """Return libvirt's typed parameters for the plan's compression, none without."""
    if not plan.compression:
        return {}
    lv = connection.module()
    chosen: dict[str, Any] = {lv.VIR_MIGRATE_PARAM_COMPRESSION: [plan.compression]}
    if plan.compression == ZSTD:
        chosen[lv.VIR_MIGRATE_PARAM_COMPRESSION_ZSTD_LEVEL] = ZSTD_LEVEL
        chosen[lv.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = CHANNELS
    return chosen


def memory_rate(plan: Plan, statistics: Mapping[str, Any]) -> float | None:
    """Return how many bytes of the guest's memory are carried in a second, from libvirt's job statistics.

    What libvirt tells is the rate on the wire; packed, the wire carries more memory than that. None when not known.
    """
    wire: int = statistics.get("memory_bps", 0)
    if not wire:
        return None
    sent, memory = statistics.get("memory_processed", 0), statistics.get("memory_normal_bytes", 0)
    return wire * max(1.0, memory / sent) if plan.compression and sent else float(wire)
