"""Cancelling a transfer and forcing its switch: neither waits behind the long call, and neither is a verdict.

Both are refused by libvirt while the long call has been made but no job is there yet, so they are tried again until
there is one, the switch has begun, or the call has returned.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from refimpl.backends.libvirt import connection, halves
from refimpl.backends.libvirt.operation import Call, Operation
from refimpl.model.events import Kind
from refimpl.model.phase import Side
from refimpl.model.request import Steer

MOST_DOWNTIME_MS = 2_000_000
"""The longest downtime that QEMU takes: with it, whatever remains fits and the switch begins (libvirt-qemu 0.10)."""

NO_LIMIT_MIB_S = 1 << 30
"""What libvirt takes for no limit at all."""

NO_JOB = 55
RETRY_S = 0.02
ANSWER_TIMEOUT_S = 30.0


def cancel(operation: Operation) -> None:
    """Ask for the end of the transfer: accepted, or too late. Whether it ends so is for the evidence to say."""
    with operation.lock:
        if operation.call is Call.IDLE:
            operation.cancel_accepted = True
            operation.post(Kind.CANCEL_ACCEPTED)
            return
    refused = insist(operation, lambda domain: domain.abortJob())
    with operation.lock:
        if refused is None:
            operation.cancel_accepted = True
            operation.post(Kind.CANCEL_ACCEPTED)
        else:
            operation.post(Kind.CANCEL_TOO_LATE, reason=refused)


def force_switch(operation: Operation) -> None:
    """Have the switch begin whatever remains to be sent."""
    refused = insist(operation, lambda domain: domain.migrateSetMaxDowntime(MOST_DOWNTIME_MS, 0))
    if refused is None:
        operation.post(Kind.STEERED, Side.SOURCE, what=Steer.SWITCH)
    else:
        operation.post(Kind.NOT_STEERABLE, Side.SOURCE, what=Steer.SWITCH, reason=refused)


def change_bandwidth(operation: Operation) -> None:
    """Limit a transfer that runs to the plan's bandwidth; one that has not begun yet takes it from the plan."""
    with operation.lock:
        if operation.call is Call.IDLE:
            operation.post(Kind.STEERED, Side.SOURCE, what=Steer.BANDWIDTH)
            return
    if operation.watch.in_halves:
        _tell_bandwidth(operation, halves.limit(operation, operation.plan.bandwidth_mib_s))
        return
    mib_s = operation.plan.bandwidth_mib_s or NO_LIMIT_MIB_S
    refused = insist(operation, lambda domain: domain.migrateSetMaxSpeed(mib_s, 0))
    if refused is None and operation.plan.storage is not None and not operation.watch.in_memory_phase:
        refused = "disks are copied as fast as was said at the beginning; the memory after them takes the new limit"
    _tell_bandwidth(operation, refused)


def _tell_bandwidth(operation: Operation, refused: str | None) -> None:
    if refused is None:
        operation.post(Kind.STEERED, Side.SOURCE, what=Steer.BANDWIDTH)
    else:
        operation.post(Kind.NOT_STEERABLE, Side.SOURCE, what=Steer.BANDWIDTH, reason=refused)


def end_after_panic(operation: Operation) -> None:
    """End a transfer whose guest has panicked, in a thread of its own: libvirt does what is configured only then."""

    def work() -> None:
        insist(operation, lambda domain: domain.abortJob())

    threading.Thread(target=work, name="libvirt-panic", daemon=True).start()


def insist(operation: Operation, ask: Callable[[Any], Any]) -> str | None:
    """Ask the source until libvirt has taken it; return None then, or why it is not to be had."""

    def work() -> str | None:
        reach = operation.reach
        domain = connection.find(reach.connections.to(reach.source), operation.plan.vm_id)
        if domain is None:
            return "the VM is not at the source any more"
        while True:
            reason = _closed(operation)
            if reason is not None:
                return reason
            try:
                ask(domain)
            except connection.module().libvirtError as error:
                if connection.code(error) != NO_JOB:
                    return str(error)
            else:
                return None
            with operation.lock:
                operation.changed.wait(RETRY_S)

    try:
        return connection.bounded(work, ANSWER_TIMEOUT_S, "request to the source")
    except connection.failures() as error:
        return str(error)


def _closed(operation: Operation) -> str | None:
    with operation.lock:
        if operation.watch.switched:
            return "the switch has begun"
        if operation.call not in (Call.RUNNING, Call.FOLLOWED):
            return "the transfer has ended"
        return "this controller ends" if operation.closing.is_set() else None
