"""Strict hand-over: seeing that the source is bound, and letting the destination run (handover 1).

Nothing here asks the source's daemon: between the hand-over and its end it does not answer. The fast path is a file
read each millisecond; from the destination's arrival to its RESUME it takes about 15 ms.
"""

from __future__ import annotations

import time
from typing import Any

from refimpl.backends.libvirt import connection
from refimpl.backends.libvirt.operation import Call, Operation
from refimpl.backends.libvirt.status import Status, judge_binding, process_gone, read_status
from refimpl.model.events import Kind
from refimpl.model.phase import Side

FAST_S, FAST_PERIOD_S = 1.0, 0.001
SLOW_S, SLOW_PERIOD_S = 60.0, 0.02
RESUME_TIMEOUT_S = 30.0
RESUME_EVENT_TIMEOUT_S = 2.0


def look_for_binding(operation: Operation) -> None:
    """Report what is seen whenever it changes, until bound or denied, the call's return, or a minute."""
    began, last = time.monotonic(), ""
    while True:
        over = operation.call is Call.RETURNED
        bound, reason = _look(operation)
        if reason != last:
            operation.post(Kind.BINDING_SEEN, Side.SOURCE, bound=bound, reason=reason)
            last = reason
        passed = time.monotonic() - began
        if bound is not None or over or passed > SLOW_S:
            return
        if operation.closing.wait(FAST_PERIOD_S if passed < FAST_S else SLOW_PERIOD_S):
            return


def source_gone(operation: Operation, seen: Status | None) -> bool:
    """Whether the source's QEMU has ended, by its pidfd or by the host's own list of processes; OSError: host down."""
    if operation.source_process_ended():
        return True
    return seen is not None and seen.pid > 0 and process_gone(operation.reach.source_channel, seen.pid)


def allow_run(operation: Operation) -> None:
    """Let the destination's copy run. Its time is QEMU's own; when it ran already, the best that is known."""
    try:
        connection.bounded(lambda: _resume(operation), RESUME_TIMEOUT_S, "resume at the destination")
    except connection.failures() as error:
        problem = operation.problem("run.refused", Side.DESTINATION, error)
        operation.post(Kind.RUN_REFUSED, Side.DESTINATION, problem=problem)
        return
    ran_ns = operation.now_ns()
    with operation.lock:
        operation.changed.wait_for(lambda: operation.watch.seen(Kind.DESTINATION_RAN), RESUME_EVENT_TIMEOUT_S)
        operation.post_all(operation.watch.once(Kind.DESTINATION_RAN, ran_ns, Side.DESTINATION))


def _look(operation: Operation) -> tuple[bool | None, str]:
    reach, vm = operation.reach, operation.plan.vm
    try:
        source = read_status(reach.source_channel, vm)
        gone = source_gone(operation, source)
    except OSError as error:
        source, gone = None, operation.source_process_ended()
        if not gone:
            return None, f"the source does not show its state: {error}"
    try:
        destination = read_status(reach.destination_channel, vm)
    except OSError as error:
        return None, f"the destination does not show its state: {error}"
    return judge_binding(source, destination, gone)


def _resume(operation: Operation) -> None:
    libvirt = connection.module()
    known = operation.arrived_domain
    if known is not None:
        try:
            _resume_or_runs(known)
        except libvirt.libvirtError:
            known = None
        else:
            return
    domain = connection.find(operation.reach.connections.to(operation.reach.destination), operation.plan.vm_id)
    if domain is None:
        raise OSError("there is no copy at the destination")
    _resume_or_runs(domain)


def _resume_or_runs(domain: Any) -> None:
    libvirt = connection.module()
    try:
        domain.resume()
    except libvirt.libvirtError:
        if domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
            raise
