"""Strict hand-over: seeing that the source is bound, and letting the destination run (handover 1).

Nothing here asks the source's daemon: between the hand-over and its end it does not answer. The fast path is a file
read each millisecond; from the destination's arrival to its RESUME it takes about 15 ms.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

from refimpl.backends.libvirt import connection, port
from refimpl.backends.libvirt.operation import Call, Operation
from refimpl.backends.libvirt.status import Status, judge_binding, process_gone, read_status
from refimpl.model.events import Kind
from refimpl.model.phase import Side
from refimpl.model.request import VmState

FAST_S, FAST_PERIOD_S = 1.0, 0.001
SLOW_S, SLOW_PERIOD_S = 60.0, 0.02
RESUME_TIMEOUT_S = 30.0
RESUME_EVENT_TIMEOUT_S = 2.0
ANNOUNCE_TIMEOUT_S = 5.0
ANNOUNCE = {"execute": "announce-self", "arguments": {"initial": 20, "max": 550, "rounds": 5, "step": 100}}
"""QEMU's own times in ms, but for the first: several frames, as one can be lost."""


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
    """Open the destination's port and let its copy run, or stay paused if the VM was; then have the switch told.

    Its time is QEMU's own; when it ran already, the best that is known. The port is open before the copy runs, so that
    no copy ever runs cut off; the source is bound by then and sends nothing any more.
    """
    paused = operation.plan.vm_state is VmState.PAUSED
    began_s = time.monotonic()
    try:
        port.open_again(operation.reach.destination_channel, operation.id)
        with operation.lock:
            operation.port_ms = (time.monotonic() - began_s) * 1000
        work, what = (_find_paused, "look at") if paused else (_resume, "resume at")
        domain = connection.bounded(lambda: work(operation), RESUME_TIMEOUT_S, f"{what} the destination")
    except connection.failures() as error:
        problem = operation.problem("run.refused", Side.DESTINATION, error)
        operation.post(Kind.RUN_REFUSED, Side.DESTINATION, problem=problem)
        return
    if paused:
        operation.post(Kind.LEFT_PAUSED, Side.DESTINATION)
    else:
        _tell_ran(operation, operation.now_ns())
    with contextlib.suppress(*connection.failures()):
        connection.bounded(lambda: _announce(domain), ANNOUNCE_TIMEOUT_S, "announcement")


def _tell_ran(operation: Operation, ran_ns: int) -> None:
    with operation.lock:
        operation.changed.wait_for(lambda: operation.watch.seen(Kind.DESTINATION_RAN), RESUME_EVENT_TIMEOUT_S)
        values = {"port_ms": operation.port_ms}
        operation.post_all(operation.watch.once(Kind.DESTINATION_RAN, ran_ns, Side.DESTINATION, values))


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


def _announce(domain: Any) -> None:
    """Have QEMU tell the switch where the VM is: what it told at the arrival was not let out."""
    import libvirt_qemu

    libvirt_qemu.qemuMonitorCommand(domain, json.dumps(ANNOUNCE), 0)


def _resume(operation: Operation) -> Any:
    libvirt = connection.module()
    known = operation.arrived_domain
    if known is not None:
        try:
            _resume_or_runs(known)
        except libvirt.libvirtError:
            known = None
        else:
            return known
    domain = _copy(operation)
    _resume_or_runs(domain)
    return domain


def _find_paused(operation: Operation) -> Any:
    libvirt = connection.module()
    domain = _copy(operation)
    if domain.state()[0] not in (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_RUNNING):
        raise OSError("the copy at the destination is neither paused nor does it run")
    return domain


def _copy(operation: Operation) -> Any:
    reach = operation.reach
    domain = connection.find(reach.connections.to(reach.destination), operation.plan.vm_id)
    if domain is None:
        raise OSError("there is no copy at the destination")
    return domain


def _resume_or_runs(domain: Any) -> None:
    libvirt = connection.module()
    try:
        domain.resume()
    except libvirt.libvirtError:
        if domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
            raise
