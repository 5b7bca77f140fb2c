"""FENCE: cutting off a host that does not answer, and proving that nothing of the VM can run there any more (ADR 15).

That the fence says so is not enough. The VM's process, where it can be held from here, has to be seen gone, and the
lease, which every host of the group sees, to be held by nobody there: a fence that fails, or lies, is told as that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from refimpl.backends.libvirt import lease
from refimpl.backends.libvirt.ending import POLL_S, STANDS_S, is_over, stands_still, threads_stand
from refimpl.backends.libvirt.operation import Operation
from refimpl.backends.libvirt.status import read_status
from refimpl.hosts.channel import HostChannel
from refimpl.hosts.fence import Fence, fence_of
from refimpl.hosts.wait import until
from refimpl.model.errors import Native, Problem
from refimpl.model.events import Kind
from refimpl.model.fencing import FenceOrder
from refimpl.model.group import HostEntry
from refimpl.model.phase import Side

GONE_TIMEOUT_MS = 5000
_FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, pid


def fence(operation: Operation) -> None:
    """Carry out FENCE."""
    order = operation.fence_order
    assert order is not None
    side, host, channel = next(each for each in operation.reach.sides() if each[1].name == order.host)
    found = fence_of(host, order.setting)
    if found is None:
        values = {"vm": operation.plan.vm, "host": host.name, "operation": operation.id}
        operation.post(Kind.FENCE_FAILED, side, problem=Problem("fence.none", values, side=side, host=host.name))
        return
    try:
        proof, stood = _cut_off(operation, side, host, channel, found)
    except OSError as error:
        operation.post(Kind.FENCE_FAILED, side, problem=_failed(operation, side, order, found, error))
        return
    operation.post(Kind.FENCED, side, proof=proof, stood=stood)


def _failed(operation: Operation, side: Side, order: FenceOrder, found: Fence, error: OSError) -> Problem:
    values = {"vm": operation.plan.vm, "host": order.host, "operation": operation.id, "fence": found.name}
    native = Native("fence", "failed", str(error))
    return Problem("fence.failed", {**values, "detail": str(error)}, side=side, host=order.host, native=native)


def _cut_off(
    operation: Operation, side: Side, host: HostEntry, channel: HostChannel, found: Fence
) -> tuple[str, bool | None]:
    """Cut the host off; return by what it is proved, and whether the copy there was seen to stand still until then."""
    with _held(operation, channel) as held:
        stood = _stopped(operation, channel, held) if side is Side.SOURCE and held is not None else None
        try:
            found.off()
            proof = _proof(operation, host, held, found)
        except OSError:
            if held is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(held, signal.SIGCONT)
            raise
    return proof, stood


@contextmanager
def _held(operation: Operation, channel: HostChannel) -> Iterator[int | None]:
    """Hold the process of the VM's copy on a host, if it can be found without that host's help."""
    descriptor = None
    with contextlib.suppress(OSError):
        seen = read_status(channel, operation.plan.vm)
        outer = channel.outer_pid(seen.pid) if seen is not None and seen.pid else None
        descriptor = os.pidfd_open(outer) if outer is not None else None
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _stopped(operation: Operation, channel: HostChannel, held: int) -> bool | None:
    """Stop the copy and return whether it stands still since it was handed over; None when that is not seen."""
    try:
        signal.pidfd_send_signal(held, signal.SIGSTOP)
        if not until(lambda: threads_stand(held), STANDS_S, POLL_S):
            return None
        return stands_still(read_status(channel, operation.plan.vm))
    except OSError:
        return None


def _proof(operation: Operation, host: HostEntry, held: int | None, found: Fence) -> str:
    """Return by what it is proved that nothing runs there. OSError when it is not."""
    if found.on():
        raise OSError(f"{found.name} still says that the host is on")
    said = [f"{found.name} says that it is off"]
    if held is not None:
        if not is_over(held, GONE_TIMEOUT_MS):
            raise OSError(f"{found.name} says that the host is off, and the VM's process there has not ended")
        said.append("the VM's process there has ended")
    if os.path.exists(operation.lease):
        keeper = _keeper(operation, host)
        if keeper is None:
            raise OSError(f"{found.name} says that the host is off, and the VM's lease is still held from there")
        said.append(keeper)
    elif held is None:
        raise OSError(f"{found.name} says that the host is off, and neither the VM's process nor its lease can be seen")
    return "; ".join(said)


def _keeper(operation: Operation, host: HostEntry) -> str | None:
    """Return who has the lease, in words; None when it can only be the host that was cut off."""
    if _is_free(operation.lease):
        return "its lease is free"
    others = [(entry, channel) for _, entry, channel in operation.reach.sides() if entry.name != host.name]
    for entry, channel in others:
        if lease.held(channel, operation.lease) is True:
            return f"its lease is held by host {entry.name}"
    return None


def _is_free(path: str) -> bool:
    """Whether nobody at all, on whatever host, has a lock on a file."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        (kind, *_) = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        return bool(kind == fcntl.F_UNLCK)
    finally:
        os.close(descriptor)
