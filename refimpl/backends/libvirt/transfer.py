"""The transfer itself: preparing it, the one long call, its progress, and what its return means.

The call is peer-to-peer: the source's daemon drives it and goes on when this process dies. So it has a connection and
a thread of its own, nothing waits behind it, and what it returns is a fact among others, never a verdict (rule 3).
"""

from __future__ import annotations

import threading
from typing import Any

from refimpl.backends.libvirt import connection, lease, stamp
from refimpl.backends.libvirt.domain import moved_to
from refimpl.backends.libvirt.operation import Call, Operation
from refimpl.model.errors import Native, Problem
from refimpl.model.events import Event, Kind
from refimpl.model.group import HostEntry
from refimpl.model.phase import Side
from refimpl.model.request import HandOver, Plan

PROGRESS_PERIOD_S = 0.4
STATISTICS_TIMEOUT_S = 0.5
CONNECT_TIMEOUT_S = 3
TLS_PORT = 16514
ABORTED = 78
REFUSALS = frozenset({8, 55, 67, 74, 81, 87})
"""libvirt's codes for a move that it will not begin (libvirt-qemu 3.7): argument, operation or configuration invalid
or not supported, unsafe disk, resource (the lease) busy."""

# Positional arguments of a fixed script: bash opens the connection itself, so the host needs no other tool.
_CONNECT = 'exec 3<>"/dev/tcp/$1/$2"'


def prepare(operation: Operation) -> None:
    """Listen to both hosts, prove the migration network, hold the source's process, make the lease, stamp the VM."""
    plan, reach = operation.plan, operation.reach
    try:
        operation.listen()
        if _cancelled(operation, Kind.PREPARE_FAILED):
            return
        failed = _network_problem(operation)
        if failed is not None:
            operation.post(Kind.NETWORK_FAILED, Side.DESTINATION, address=plan.address, problem=failed)
            return
        operation.hold_source_process()
        lease.make(reach.source_channel, operation.lease)
        domain = connection.find(reach.connections.to(reach.source), plan.vm_id)
        if domain is None:
            raise OSError(f"there is no VM with the id {plan.vm_id} on host {plan.source}")
        stamp.put(domain, stamp.Stamp(operation.id, plan))
    except connection.failures() as error:
        failed = operation.problem("prepare.failed", Side.SOURCE, error)
        operation.post(Kind.PREPARE_FAILED, Side.SOURCE, problem=failed)
        return
    if not _cancelled(operation, Kind.PREPARE_FAILED):
        operation.post(Kind.PREPARED, address=plan.address)


def flags(plan: Plan) -> int:
    """Return libvirt's flags for a plan: live, peer-to-peer, persistent there, gone here, arriving paused if strict."""
    lv = connection.module()
    chosen: int = (
        lv.VIR_MIGRATE_LIVE
        | lv.VIR_MIGRATE_PEER2PEER
        | lv.VIR_MIGRATE_PERSIST_DEST
        | lv.VIR_MIGRATE_UNDEFINE_SOURCE
        | lv.VIR_MIGRATE_ABORT_ON_ERROR
    )
    if plan.hand_over is HandOver.STRICT:
        chosen |= lv.VIR_MIGRATE_PAUSED
    if plan.encryption:
        chosen |= lv.VIR_MIGRATE_TLS
    return chosen


def parameters(plan: Plan, domain: Any, source: HostEntry, destination: HostEntry) -> dict[str, Any]:
    """Return libvirt's typed parameters. With encryption the peer has to prove that it is the destination by name.

    The destination listens in the migration network of the plan and in no other.
    """
    lv = connection.module()
    address = plan.address or ""
    chosen: dict[str, Any] = {
        lv.VIR_MIGRATE_PARAM_URI: f"tcp://{bracketed(address)}",
        lv.VIR_MIGRATE_PARAM_LISTEN_ADDRESS: address,
    }
    if plan.encryption:
        chosen[lv.VIR_MIGRATE_PARAM_TLS_DESTINATION] = destination.name
    if plan.bandwidth_mib_s:
        chosen[lv.VIR_MIGRATE_PARAM_BANDWIDTH] = plan.bandwidth_mib_s
    movable = lv.VIR_DOMAIN_XML_MIGRATABLE | lv.VIR_DOMAIN_XML_SECURE
    for name, which in (
        (lv.VIR_MIGRATE_PARAM_DEST_XML, movable),
        (lv.VIR_MIGRATE_PARAM_PERSIST_XML, movable | lv.VIR_DOMAIN_XML_INACTIVE),
    ):
        edited = moved_to(domain.XMLDesc(which), source, destination)
        if edited is not None:
            chosen[name] = edited
    return chosen


def bracketed(address: str) -> str:
    """Return an address as it stands in a URI."""
    return f"[{address}]" if ":" in address else address


def transfer(operation: Operation) -> None:
    """Make the long call and post what it meant; it blocks as long as the transfer takes."""
    with operation.lock:
        if operation.call in (Call.RUNNING, Call.FOLLOWED):
            return
        if operation.call is Call.RETURNED and operation.last_returned is not None:
            operation.post_all([operation.last_returned])
            return
        if operation.cancel_accepted:
            operation.returned(_returned(operation, _cancel_problem(operation)))
            return
        operation.call = Call.RUNNING
        operation.watch.following = True
    operation.on_memory_phase = lambda: start_progress(operation)
    try:
        _call(operation)
    except connection.failures() as error:
        _failed(operation, error)
        return
    operation.returned(_returned(operation, None))


def start_progress(operation: Operation) -> None:
    """Report progress from a thread of its own while memory is being sent."""
    threading.Thread(target=_progress, args=(operation,), name="libvirt-progress", daemon=True).start()


def finished(operation: Operation) -> tuple[int | None, float | None]:
    """Return bytes sent and QEMU's downtime in ms from the statistics of the finished job, waiting for them shortly."""
    with operation.lock:
        operation.changed.wait_for(lambda: bool(operation.watch.statistics), STATISTICS_TIMEOUT_S)
        statistics = operation.watch.statistics
    downtime = statistics.get("downtime")
    return statistics.get("memory_processed"), None if downtime is None else float(downtime)


def _call(operation: Operation) -> None:
    plan, reach = operation.plan, operation.reach
    operation.listen()
    own = connection.open_connection(reach.source)
    try:
        domain = own.lookupByUUIDString(plan.vm_id)
        chosen = parameters(plan, domain, reach.source, reach.destination)
        domain.migrateToURI3(reach.destination.peer_uri, chosen, flags(plan))
    finally:
        connection.close_quietly(own)


def _failed(operation: Operation, error: Exception) -> None:
    code = connection.code(error)
    begun = operation.watch.seen(Kind.TRANSFER_STARTED)
    if code in REFUSALS and not begun and not operation.cancel_accepted:
        problem = operation.problem("transfer.refused", Side.SOURCE, error)
        with operation.lock:
            operation.call = Call.IDLE
            operation.post(Kind.NATIVE_REFUSAL, Side.SOURCE, problem=problem)
        return
    if operation.cancel_accepted and (code == ABORTED or not begun):
        problem = _cancel_problem(operation, connection.native(error))
    else:
        problem = operation.problem("transfer.failed", Side.SOURCE, error)
    operation.returned(_returned(operation, problem))


def _returned(operation: Operation, problem: Problem | None) -> Event:
    values: dict[str, Any] = {"ok": problem is None, "problem": problem}
    if operation.watch.seen(Kind.TRANSFER_STARTED):
        values["sent_bytes"], values["qemu_downtime_ms"] = finished(operation)
    host = operation.plan.source
    return Event(Kind.CALL_RETURNED, operation.now_ns(), values, side=Side.SOURCE, host=host)


def _progress(operation: Operation) -> None:
    reach, plan = operation.reach, operation.plan
    try:
        domain = connection.find(reach.connections.to(reach.source), plan.vm_id)
        while domain is not None and not operation.closing.wait(PROGRESS_PERIOD_S):
            if not _still_sending(operation):
                return
            statistics = domain.jobStats()
            with operation.lock:
                if not _still_sending(operation):
                    return
                if "memory_total" in statistics:
                    operation.post_all(
                        operation.watch.passes(statistics.get("memory_iteration", 1), operation.now_ns())
                    )
                    operation.post(Kind.PROGRESS, Side.SOURCE, **progress_values(statistics))
    except connection.failures():
        return  # the call's return, or the lack of it, is what counts


def progress_values(statistics: dict[str, Any]) -> dict[str, int]:
    """Return the values of PROGRESS from libvirt's job statistics; its dirty rate is in pages."""
    return {
        "total_bytes": statistics.get("memory_total", 0),
        "remaining_bytes": statistics.get("memory_remaining", 0),
        "sent_bytes": statistics.get("memory_processed", 0),
        "dirty_bytes_s": statistics.get("memory_dirty_rate", 0) * statistics.get("memory_page_size", 4096),
        "bytes_s": statistics.get("memory_bps", 0),
    }


def _still_sending(operation: Operation) -> bool:
    return operation.watch.in_memory_phase and operation.call in (Call.RUNNING, Call.FOLLOWED)


def _network_problem(operation: Operation) -> Problem | None:
    address = operation.plan.address
    if address is None:
        return Problem(id="network.no_connection", values={"host": operation.plan.destination, "tried": "none"})
    command = ["timeout", str(CONNECT_TIMEOUT_S), "bash", "-c", _CONNECT, "bash", address, str(TLS_PORT)]
    try:
        done = operation.reach.source_channel.run(command, timeout_s=CONNECT_TIMEOUT_S + 2)
    except TimeoutError as error:
        said = str(error)
    else:
        if done.status == 0:
            return None
        said = done.stderr.strip().rpartition("\n")[2] or f"no answer within {CONNECT_TIMEOUT_S} s"
    values = {"host": operation.plan.destination, "tried": address}
    native = Native("connect", "failed", said)
    return Problem(
        id="network.no_connection", values=values, side=Side.SOURCE, host=operation.plan.source, native=native
    )


def _cancelled(operation: Operation, kind: Kind) -> bool:
    with operation.lock:
        if operation.cancel_accepted:
            operation.post(kind, problem=_cancel_problem(operation))
        return operation.cancel_accepted


def _cancel_problem(operation: Operation, native: Native | None = None) -> Problem:
    values = {"vm": operation.plan.vm, "source": operation.plan.source}
    return Problem(id="transfer.cancelled", values=values, native=native)
