"""Strict hand-over: seeing that the source is bound, and letting the destination run (handover 1).

Nothing here asks the source's daemon: between the hand-over and its end it does not answer. The fast path is a file
read each millisecond; from the destination's arrival to its RESUME it takes about 15 ms.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import replace
from typing import Any

from refimpl.backends.libvirt import connection, port
from refimpl.backends.libvirt.announcing import ANNOUNCE_TIMEOUT_S, announce
from refimpl.backends.libvirt.operation import Call, Operation
from refimpl.backends.libvirt.silence import Silence
from refimpl.backends.libvirt.status import Status, judge_binding, process_gone, read_status
from refimpl.model.events import Kind
from refimpl.model.phase import Side
from refimpl.model.request import VmState

FAST_S, FAST_PERIOD_S = 1.0, 0.001
SLOW_S, SLOW_PERIOD_S = 60.0, 0.02
RESUME_TIMEOUT_S = 30.0
RESUME_EVENT_TIMEOUT_S = 2.0
OPENING_ATTEMPTS = 2


def look_for_binding(operation: Operation) -> None:
    """Report what is seen whenever it changes, until bound or denied, the call's return, or a minute."""
    silence = Silence(operation.reach.source, operation.closing)
    try:
        _look_on(operation, silence)
    finally:
        silence.close()


def _look_on(operation: Operation, silence: Silence) -> None:
    began, last = time.monotonic(), ("", 0)
    while True:
        over = operation.call is Call.RETURNED
        bound, reason, waits = _look(operation)
        silent_ms = silence.waits(bound is None and waits and operation.holds_source_process())
        if (reason, silent_ms) != last:
            silent = {"silent_ms": silent_ms} if silent_ms else {}
            operation.post(Kind.BINDING_SEEN, Side.SOURCE, bound=bound, reason=reason, **silent)
            last = (reason, silent_ms)
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

    Its time is QEMU's own; when it ran already, the best that is known. Both are done at the same time: the kernel
    opens the port within the first milliseconds and takes longer to say so. The source is bound by then and sends
    nothing any more. A port that cannot be opened is told as a refusal: what runs there is found, and the clean-up
    opens it or names it.
    """
    paused = operation.plan.vm_state is VmState.PAUSED
    work, what = (_find_paused, "look at") if paused else (_resume, "resume at")
    with operation.lock:
        operation.let_run(True)
    opening = _Opening(operation)
    try:
        domain = connection.bounded(lambda: work(operation), RESUME_TIMEOUT_S, f"{what} the destination")
        ran_ns = operation.now_ns()
        opening.end()
    except connection.failures() as error:
        problem = operation.problem("run.refused", Side.DESTINATION, error)
        with operation.lock:
            operation.post_all(operation.let_run(False))
            operation.post(Kind.RUN_REFUSED, Side.DESTINATION, problem=problem)
        return
    if paused:
        _tell_left_paused(operation)
    else:
        _tell_ran(operation, ran_ns, opening.took_ms)
    with contextlib.suppress(*connection.failures()):
        connection.bounded(lambda: announce(domain), ANNOUNCE_TIMEOUT_S, "announcement")


class _Opening:
    """The opening of the destination's port in a thread of its own. `took_ms` is known when it has ended."""

    def __init__(self, operation: Operation) -> None:
        self.took_ms = 0.0
        self._operation = operation
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._work, name="libvirt-port", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Wait for the end. OSError when the port could not be opened."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        began_s = time.monotonic()
        for _ in range(OPENING_ATTEMPTS):
            try:
                port.open_again(self._operation.reach.destination_channel, self._operation.id)
            except OSError as error:
                self._error = error
            else:
                self._error = None
                break
        self.took_ms = (time.monotonic() - began_s) * 1000


def _tell_ran(operation: Operation, ran_ns: int, port_ms: float) -> None:
    """Tell that the copy runs, with QEMU's own time if it comes soon, else with this one."""
    watch = operation.watch
    with operation.lock:
        operation.changed.wait_for(lambda: watch.seen(Kind.DESTINATION_RAN), RESUME_EVENT_TIMEOUT_S)
        events = watch.once(Kind.DESTINATION_RAN, ran_ns, Side.DESTINATION)
        events = [*operation.let_run(False), *events]
        operation.post_all([replace(event, values={"port_ms": port_ms}) for event in events])


def _tell_left_paused(operation: Operation) -> None:
    """Tell that the copy stays paused; and, when somebody has resumed it already, that it runs."""
    with operation.lock:
        operation.post(Kind.LEFT_PAUSED, Side.DESTINATION)
        operation.post_all(operation.let_run(False))


def _look(operation: Operation) -> tuple[bool | None, str, bool]:
    """Return whether the source is bound, why, and whether the destination only waits for that."""
    reach, vm = operation.reach, operation.plan.vm
    try:
        source = read_status(reach.source_channel, vm)
        gone = source_gone(operation, source)
    except OSError as error:
        source, gone = None, operation.source_process_ended()
        if not gone:
            return None, f"the source does not show its state: {error}", False
    try:
        destination = read_status(reach.destination_channel, vm)
    except OSError as error:
        return None, f"the destination does not show its state: {error}", False
    return *judge_binding(source, destination, gone), destination is not None and destination.waits


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
