"""Post-copy: begun through libvirt, resumed and ended past it, over the second monitor sockets (libvirt-qemu 3.4; P4).

libvirt's own recovery crashes the destination's daemon in some versions, so a broken one is resumed as QEMU has it:
the destination listens anew (`migrate-recover`), the source connects anew (`migrate` with resume). libvirt notices.
The destination's main loop may wait for a page that does not come; it is told only what it takes all the same (oob).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from refimpl.backends.libvirt import connection, halves, status
from refimpl.backends.libvirt.monitor import Monitor, Refused, hold, monitor
from refimpl.backends.libvirt.operation import Operation
from refimpl.backends.libvirt.steering import insist
from refimpl.hosts.wait import until
from refimpl.model.errors import Problem
from refimpl.model.events import Kind
from refimpl.model.facts import Half
from refimpl.model.phase import Side
from refimpl.model.request import Steer

PAUSE_S = 10.0
RESUME_S = 30.0
LOOK_S = 0.1
MOVES_S = 1.0
LAST_PORT, PORTS = 49_215, 16
"""libvirt takes ports for incoming memory from 49152 on; a second connection takes the last ones of that range."""
SURE_S = 1.0
END_TIMEOUT_S = 60.0


def start(operation: Operation) -> None:
    """Have the VM run at the destination now; that it does is told by its QEMU's events.

    Before that somebody is there who can resume it: afterwards QEMU may take no new client.
    """
    try:
        hold(operation.reach.destination_channel, operation.plan.vm_id)
    except OSError as error:
        reason = f"the destination's second monitor socket cannot be had: {error}"
        operation.post(Kind.NOT_STEERABLE, Side.SOURCE, what=Steer.POST_COPY, reason=reason)
        return
    refused = insist(operation, lambda domain: domain.migrateStartPostCopy(0))
    if refused is not None:
        operation.post(Kind.NOT_STEERABLE, Side.SOURCE, what=Steer.POST_COPY, reason=refused)


def recover(operation: Operation) -> None:
    """Resume a broken post-copy, unless it flows again by itself or is whole already."""
    try:
        resumed = connection.bounded(lambda: _recover(operation), END_TIMEOUT_S, "resuming post-copy")
    except connection.failures() as error:
        values = {"vm": operation.plan.vm, "operation": operation.id, "detail": str(error)}
        native = connection.native(error)
        operation.post(Kind.POSTCOPY_NOT_RESUMED, problem=Problem("post_copy.not_resumed", values, native=native))
        return
    with operation.lock:
        operation.watch.adopt_halves()
        if resumed:
            operation.watch.mended()
    operation.post(Kind.POSTCOPY_RESUMED, Side.SOURCE)
    operation.take_over()
    halves.follow(operation)


def _recover(operation: Operation) -> bool:
    """Do it; False when there was nothing to be done. OSError: it is as it was."""
    reach, vm_id = operation.reach, operation.plan.vm_id
    operation.listen()
    if halves.both(operation) == (None, None):
        return False
    with monitor(reach.source_channel, vm_id) as source, monitor(reach.destination_channel, vm_id) as destination:
        if _moves(source):
            return False
        _require_encryption(operation, source)
        for side in (source, destination):
            _break(side)
        _await(source, lambda told: told == halves.PAUSED, PAUSE_S)
        address = _listen(operation, destination)
        source.execute("migrate", {"uri": address, "resume": True})
        _await(source, lambda told: told == "postcopy-active" or told not in halves.FLOWING, RESUME_S)
        told = source.execute("query-migrate")
        if told.get("status") == halves.PAUSED:
            raise OSError(str(told.get("error-desc") or f"the source could not connect to {address}"))
    return True


def _moves(source: Monitor) -> bool:
    """Whether the source sends and something of it gets there."""
    before = source.execute("query-migrate")
    if before.get("status") not in halves.FLOWING:
        return False
    time.sleep(MOVES_S)
    after = source.execute("query-migrate")
    if after.get("status") not in halves.FLOWING:
        return False
    return bool(after["ram"]["remaining"] < before["ram"]["remaining"])


def _require_encryption(operation: Operation, source: Monitor) -> None:
    """The new connection has to be encrypted as the first one was: the source sends by what its parameters say now."""
    credentials = source.execute("query-migrate-parameters").get("tls-creds", "")
    if operation.plan.encryption and not credentials:
        raise OSError("the source's QEMU has no certificates for the migration any more: it would go in clear")


def _break(side: Monitor) -> None:
    """Have a QEMU that waits for what does not come take its connection for broken, unless it does already."""
    with suppress(Refused):
        side.execute("migrate-pause", oob=True)


def _listen(operation: Operation, destination: Monitor) -> str:
    """Have the destination listen anew, on the migration network of the move; return where."""
    address = operation.plan.address or ""
    shown = f"[{address}]" if ":" in address else address
    port, refused = LAST_PORT, OSError("it was not tried")
    for _ in range(int(PAUSE_S / LOOK_S)):
        uri = f"tcp:{shown}:{port}"
        try:
            destination.execute("migrate-recover", {"uri": uri}, oob=True)
        except Refused as error:
            refused = error
            if "in use" in str(error):
                port = port - 1 if port > LAST_PORT - PORTS else LAST_PORT
            # Else it has not noticed yet that it is broken.
            time.sleep(LOOK_S)
        else:
            return uri
    raise refused


def _await(side: Monitor, reached: Callable[[str], bool], timeout_s: float) -> None:
    """Wait until a QEMU's migration is in a state. TimeoutError when it does not get there."""
    told = ""

    def there() -> bool:
        nonlocal told
        told = str(side.execute("query-migrate").get("status", ""))
        return reached(told)

    if not until(there, timeout_s, LOOK_S):
        raise TimeoutError(f"the migration stays {told} for {timeout_s:g} s")


def end_halves(operation: Operation) -> None:
    """End what is left of a VM of which one half is gone; its definition stays at the source."""
    try:
        connection.bounded(lambda: _end(operation), END_TIMEOUT_S, "ending what is left of the VM")
    except connection.failures() as error:
        values = {"vm": operation.plan.vm, "operation": operation.id, "detail": str(error)}
        operation.post(Kind.CANNOT_SETTLE, problem=Problem("settle.failed", values, native=connection.native(error)))
    else:
        operation.post(Kind.HALVES_ENDED)


def _end(operation: Operation) -> None:
    for _ in range(2):
        # Twice, apart: what has just become whole looks for a moment like a half without the other.
        _require_torn(operation)
        time.sleep(SURE_S)
    lv, reach = connection.module(), operation.reach
    with connection.fresh(reach.source) as here:
        source = connection.find(here, operation.plan.vm_id)
        if source is None or not source.isPersistent():
            raise OSError(f"the VM is not defined on host {reach.source.name}; what is left is kept")
        if source.isActive():
            source.destroy()
    with connection.fresh(reach.destination) as there:
        copy = connection.find(there, operation.plan.vm_id)
        if copy is None:
            return
        persistent = copy.isPersistent()
        if copy.isActive():
            copy.destroy()
        if persistent:
            copy.undefineFlags(lv.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)


def _require_torn(operation: Operation) -> None:
    """Make sure that one half has no process any more and the other one is a half; OSError when not."""
    here, there = (_has_process(operation, side) for side in Side)
    source, destination = halves.both(operation)
    if not here and (not there or destination is Half.BROKEN):
        return
    if not there and (not here or source is not None):
        return
    raise OSError("the two copies are not seen to be halves of which one is gone")


def _has_process(operation: Operation, side: Side) -> bool:
    """Whether a copy's QEMU lives; OSError when its host does not tell."""
    source = side is Side.SOURCE
    channel = operation.reach.source_channel if source else operation.reach.destination_channel
    seen = status.read_status(channel, operation.plan.vm)
    if source and operation.source_process_ended():
        return False
    return seen is not None and not status.process_gone(channel, seen.pid)
