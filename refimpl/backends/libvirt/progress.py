"""How a transfer gets on while disks and memory are sent: progress by the clock, and figures at the end of a pass.

QEMU's events say that a pass has ended and nothing else, and a listener must not ask. So where the plan has a limit
for the blackout the event is kept back until this thread has asked, which is at once.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from refimpl.backends.libvirt import compression, connection
from refimpl.backends.libvirt.operation import Call, Operation
from refimpl.model.events import Kind
from refimpl.model.phase import Side

PERIOD_S = 0.4


def start_progress(operation: Operation) -> None:
    """Report progress from a thread of its own while disks or memory are being sent."""
    threading.Thread(target=_progress, args=(operation,), name="libvirt-progress", daemon=True).start()


def progress_values(statistics: Mapping[str, Any]) -> dict[str, int]:
    """Return the values of PROGRESS from libvirt's job statistics; its dirty rate is in pages."""
    return {
        "total_bytes": statistics.get("memory_total", 0),
        "remaining_bytes": statistics.get("memory_remaining", 0),
        "sent_bytes": statistics.get("memory_processed", 0),
        "dirty_bytes_s": statistics.get("memory_dirty_rate", 0) * statistics.get("memory_page_size", 4096),
        "bytes_s": statistics.get("memory_bps", 0),
    }


def disk_values(statistics: Mapping[str, Any]) -> dict[str, int]:
    """Return the values of PROGRESS while disks are copied."""
    return {
        "disks_total_bytes": statistics.get("disk_total", 0),
        "disks_remaining_bytes": statistics.get("disk_remaining", 0),
        "disks_sent_bytes": statistics.get("disk_processed", 0),
        "bytes_s": statistics.get("disk_bps", 0),
    }


def _progress(operation: Operation) -> None:
    while _wait(operation):
        statistics = statistics_of(operation)
        with operation.lock:
            if _still_sending(operation):
                _tell(operation, statistics)
    with operation.lock:
        operation.unmeasured = []


def statistics_of(operation: Operation) -> Mapping[str, Any]:
    """Return libvirt's statistics of the job; empty when the source does not tell them now: it is asked again."""
    reach = operation.reach
    try:
        domain = connection.find(reach.connections.to(reach.source), operation.plan.vm_id)
        statistics: Mapping[str, Any] = {} if domain is None else domain.jobStats()
    except connection.failures():
        return {}
    return statistics if {"memory_total", "disk_total"} & set(statistics) else {}


def _wait(operation: Operation) -> bool:
    """Wait until the next report is due or a pass has ended; False when there is nothing more to report."""
    with operation.lock:
        operation.changed.wait_for(
            lambda: operation.unmeasured or not _still_sending(operation) or operation.closing.is_set(), PERIOD_S
        )
        return _still_sending(operation) and not operation.closing.is_set()


def _tell(operation: Operation, statistics: Mapping[str, Any]) -> None:
    """Tell progress, and the passes that have ended; what could not be measured is told all the same."""
    if not operation.watch.in_memory_phase:
        if statistics.get("disk_total"):
            operation.post(Kind.PROGRESS, Side.SOURCE, **disk_values(statistics))
        return
    passes = operation.watch.passes(statistics.get("memory_iteration", 1), operation.now_ns()) if statistics else []
    ended, operation.unmeasured = [*operation.unmeasured, *passes], []
    values = progress_values(statistics)
    if statistics and operation.plan.cancel_if_blackout_exceeds_ms is not None:
        rate = compression.memory_rate(operation.plan, statistics)
        figures = {"remaining_bytes": values["remaining_bytes"], "bytes_s": rate}
        ended = [replace(event, values={**event.values, **figures}) for event in ended]
    operation.post_all(ended)
    if statistics:
        operation.post(Kind.PROGRESS, Side.SOURCE, **values)


def _still_sending(operation: Operation) -> bool:
    return operation.watch.sending and operation.call in (Call.RUNNING, Call.FOLLOWED)
