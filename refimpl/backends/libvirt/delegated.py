"""Delegated hand-over: libvirt lets the destination run by itself; what is left to do is to open its port.

Nothing here decides anything. Until libvirt is heard to have let the copy run the port stays shut (R16), so the
network is out for as long as the opening takes beyond the blackout; strict hand-over opens it while the copy resumes.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import replace
from typing import Any

from refimpl.backends.libvirt import connection, port
from refimpl.backends.libvirt.announcing import ANNOUNCE, ANNOUNCE_TIMEOUT_S, announce
from refimpl.backends.libvirt.monitor import monitor
from refimpl.backends.libvirt.operation import Operation
from refimpl.backends.libvirt.status import read_status
from refimpl.model.events import Event, Kind
from refimpl.model.facts import VmState
from refimpl.model.request import PostCopy


def let_out(operation: Operation, domain: Any, event: Event) -> None:
    """Open the port of a copy that was heard to run, or to have arrived paused; then tell that event, and the switch.

    In a thread of its own, as this is heard in the event thread. The event is told also when the port stays shut, then
    without `port_ms`: the settling tries again, and the clean-up removes the rule or names it.
    """
    work = threading.Thread(target=_work, args=(operation, domain, event), name="libvirt-port", daemon=True)
    work.start()


def open_port(operation: Operation) -> bool:
    """Open the destination's port unless the source is seen to run; whether it is open.

    Two copies that run are bad enough; two that answer in the network are worse.
    """
    reach = operation.reach
    source = None
    with contextlib.suppress(OSError):
        source = read_status(reach.source_channel, operation.plan.vm)
    if source is not None and source.vm_state is VmState.RUNNING:
        return False
    try:
        port.open_again(reach.destination_channel, operation.id)
    except OSError:
        return False
    return True


def _work(operation: Operation, domain: Any, event: Event) -> None:
    began_s = time.monotonic()
    opened = open_port(operation)
    if opened and event.kind is Kind.DESTINATION_RAN:
        event = replace(event, values={"port_ms": (time.monotonic() - began_s) * 1000})
    operation.let_out(event)
    if opened:
        with contextlib.suppress(*connection.failures()):
            connection.bounded(lambda: _announce(operation, domain), ANNOUNCE_TIMEOUT_S, "announcement")


def _announce(operation: Operation, domain: Any) -> None:
    """Have the switch told; in post-copy past libvirt, which takes no question before the memory is whole."""
    if operation.plan.post_copy is PostCopy.OFF:
        announce(domain)
        return
    with monitor(operation.reach.destination_channel, operation.plan.vm_id) as own:
        own.execute(ANNOUNCE["execute"], ANNOUNCE["arguments"])
