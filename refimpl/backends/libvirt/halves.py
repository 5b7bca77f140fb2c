"""A VM in post-copy, seen and followed: how each half stands by its own QEMU's word, over its second monitor socket.

libvirt's word alone would not do: it calls post-copy failed as soon as a daemon is away, while both QEMUs go on, and a
daemon whose post-copy has failed answers no question about the VM (libvirt-qemu 3.4; K7, K8, P4).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from refimpl.backends.libvirt import status
from refimpl.backends.libvirt.monitor import monitor
from refimpl.backends.libvirt.operation import Call, Operation
from refimpl.hosts.channel import HostChannel
from refimpl.model.events import Event, Kind
from refimpl.model.facts import Half
from refimpl.model.phase import Side
from refimpl.model.request import PostCopy

PERIOD_S = 0.4
OTHER_HALF = 5
"""Each how many looks at a source that sends its destination is looked at, too: it may know that it is broken first."""
FLOWING = frozenset({"postcopy-active", "postcopy-device", "postcopy-recover", "postcopy-recover-setup"})
PAUSED = "postcopy-paused"
FAILED_REASON, REASON = "post-copy failed", "post-copy"
"""libvirt's words for a copy in post-copy, in its status file, on either side."""


def migration(channel: HostChannel, vm_id: str) -> Mapping[str, Any]:
    """Return QEMU's answer to `query-migrate` on a host. OSError when there is none."""
    with monitor(channel, vm_id) as own:
        told: Mapping[str, Any] = own.execute("query-migrate")
    return told


def half_of(operation: Operation, channel: HostChannel) -> Half | None:
    """How a copy stands as one of two halves: by its QEMU, and by libvirt where that does not answer."""
    try:
        seen = status.read_status(channel, operation.plan.vm)
    except OSError:
        return None
    if seen is None:
        return None
    try:
        told = str(migration(channel, operation.plan.vm_id).get("status", ""))
    except OSError:
        return {FAILED_REASON: Half.BROKEN, REASON: Half.FLOWS}.get(seen.reason)
    return half(told, seen.reason)


def half(told: str, reason: str) -> Half | None:
    """Return what a QEMU's migration status means; one that has failed is broken only when it had been in post-copy."""
    if told in FLOWING:
        return Half.FLOWS
    in_halves = reason in (FAILED_REASON, REASON)
    return Half.BROKEN if told == PAUSED or (told == "failed" and in_halves) else None


def both(operation: Operation) -> tuple[Half | None, Half | None]:
    """Return how source and destination stand, the source looked at first: whoever sends has the last word."""
    if operation.plan.post_copy is PostCopy.OFF:
        return None, None
    source, destination = operation.reach.source_channel, operation.reach.destination_channel
    return half_of(operation, source), half_of(operation, destination)


def limit(operation: Operation, mib_s: int) -> str | None:
    """Limit what is sent in post-copy from now on (0: no limit); return why not, None when it was taken."""
    try:
        with monitor(operation.reach.source_channel, operation.plan.vm_id) as source:
            source.execute("migrate-set-parameters", {"max-postcopy-bandwidth": mib_s << 20})
    except OSError as error:
        return str(error)
    return None


def follow(operation: Operation) -> None:
    """Tell how it gets on until it is whole or broken, from a thread of its own."""
    threading.Thread(target=_follow, args=(operation,), name="libvirt-halves", daemon=True).start()


def _follow(operation: Operation) -> None:
    with operation.lock:
        operation.halves_followed += 1
        number = operation.halves_followed
    looks = 0
    while not operation.closing.wait(PERIOD_S) and operation.halves_followed == number:
        looks += 1
        progress = _progress(operation)
        if progress is not None:
            operation.post(Kind.PROGRESS, Side.SOURCE, **progress)
            if looks % OTHER_HALF:
                continue
        halves = both(operation)
        if Half.BROKEN in halves:
            with operation.lock:
                operation.post_all(operation.watch.broke(operation.now_ns(), "the connection between the halves broke"))
            return
        if halves == (None, None):
            _whole(operation)
            return


def _progress(operation: Operation) -> dict[str, Any] | None:
    """Return the values of PROGRESS, None unless the source sends."""
    try:
        told = migration(operation.reach.source_channel, operation.plan.vm_id)
    except OSError:
        return None
    if told.get("status") not in FLOWING or "ram" not in told:
        return None
    ram = told["ram"]
    return {
        "total_bytes": ram["total"],
        "remaining_bytes": ram["remaining"],
        "sent_bytes": ram["transferred"],
        "bytes_s": ram.get("mbps", 0.0) * 1e6 / 8,
    }


def _whole(operation: Operation) -> None:
    """Tell that nothing is missing any more, if that is seen, and stand for the call where that has returned before."""
    try:
        told = migration(operation.reach.destination_channel, operation.plan.vm_id).get("status")
    except OSError:
        told = None
    with operation.lock:
        now_ns = operation.now_ns()
        if told == "completed":
            operation.post_all(operation.watch.once(Kind.POSTCOPY_ENDED, now_ns, Side.DESTINATION))
        followed = operation.call is Call.FOLLOWED
    if followed:
        operation.returned(
            Event(Kind.CALL_RETURNED, now_ns, {"ok": None}, side=Side.SOURCE, host=operation.plan.source)
        )
