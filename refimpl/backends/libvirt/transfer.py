"""The transfer itself: preparing it, the one long call, its progress, and what its return means.

The call is peer-to-peer: the source's daemon drives it and goes on when this process dies. So it has a connection and
a thread of its own, nothing waits behind it, and what it returns is a fact among others, never a verdict (rule 3).
"""

from __future__ import annotations

from typing import Any

from refimpl.backends.libvirt import compression, connection, halves, kept, lease, lease_space, port, stamp
from refimpl.backends.libvirt.delegated import let_out
from refimpl.backends.libvirt.disk_files import device_names, full, make, relocated
from refimpl.backends.libvirt.domain import moved_to
from refimpl.backends.libvirt.evidence import vm_state
from refimpl.backends.libvirt.operation import Call, Operation
from refimpl.backends.libvirt.progress import start_progress
from refimpl.backends.libvirt.reservation import reserved, shortage
from refimpl.backends.libvirt.steering import end_after_panic
from refimpl.model.errors import Native, Problem
from refimpl.model.events import Event, Kind
from refimpl.model.group import HostEntry
from refimpl.model.phase import Side
from refimpl.model.request import HandOver, Plan, PostCopy, VmState

STATISTICS_TIMEOUT_S = 0.5
PANIC_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 3
TLS_PORT = 16514
USUAL_DOWNTIME_MS = 300
"""QEMU's own limit; it is set with each transfer, as QEMU keeps what an earlier one was given."""
LATE_END_MS = 500
"""How long a source's QEMU is watched whose parallel channels failed. It takes them down within the 100 ms in which it
looks at its bandwidth limit again, and may die of it then (docs/advisories.md, qemu-channels-failing)."""
ABORTED = 78
REFUSALS = frozenset({8, 55, 67, 74, 81, 87})
"""libvirt's codes for a move that it will not begin (libvirt-qemu 3.7): argument, operation or configuration invalid
or not supported, unsafe disk, resource (the lease) busy."""

# Positional arguments of a fixed script: bash opens the connection itself, so the host needs no other tool.
_CONNECT = 'exec 3<>"/dev/tcp/$1/$2"'


def prepare(operation: Operation) -> None:
    """Listen to both hosts, prove network and ports, hold the source's process, make the lease, stamp the VM.

    Last, the destination's port is shut; a VM that is off has neither a network nor a port to be proved.
    """
    plan = operation.plan
    try:
        operation.listen()
        if _cancelled(operation, Kind.PREPARE_FAILED):
            return
        failed = None if plan.vm_state is VmState.OFF else _network_problem(operation)
        if failed is not None:
            operation.post(Kind.NETWORK_FAILED, Side.DESTINATION, address=plan.address, problem=failed)
            return
        failed = _prepared(operation)
    except connection.failures() as error:
        failed = operation.problem("prepare.failed", Side.SOURCE, error)
    if failed is not None:
        operation.post(Kind.PREPARE_FAILED, failed.side, problem=failed)
        return
    if not _cancelled(operation, Kind.PREPARE_FAILED):
        operation.post(Kind.PREPARED, address=plan.address)


def _prepared(operation: Operation) -> Problem | None:
    plan, reach = operation.plan, operation.reach
    operation.hold_source_process()
    operation.watch_lock_daemons()
    lease.make(reach.source_channel, operation.lease)
    failed = lease_space.problem(operation)
    if failed is not None:
        return failed
    operation.watch_lease()
    domain = as_planned(plan, reach.connections.to(reach.source))
    if plan.vm_state is VmState.OFF:
        _mark(operation, domain)
        return None
    xml = domain.XMLDesc(0)
    arriving = moved_to(xml, reach.source, reach.destination) or xml
    try:
        port.prove(reach.destination_channel, operation.id, port.switches(arriving))
        # First the mark, so that what is shut or made is found and opened or removed without a journal too.
        _mark(operation, domain)
        kept.keep(operation, domain.XMLDesc(connection.module().VIR_DOMAIN_XML_INACTIVE))
        failed = make(operation)
        if failed is not None:
            return failed
        port.shut(reach.destination_channel, operation.id, port.addresses(arriving))
    except OSError as error:
        return operation.problem("port.rejected", Side.DESTINATION, error)
    return None


def _mark(operation: Operation, domain: Any) -> None:
    """Mark the VM, then have its host not start it by itself: one that comes back late must not (handover 1.3)."""
    stamp.put(domain, operation.stamp)
    if domain.isPersistent() and domain.autostart():
        domain.setAutostart(0)


def as_planned(plan: Plan, source: Any) -> Any:
    """Return the VM's domain at the source. OSError when there is none, or when somebody has changed its state since.

    libvirt would copy the definition of a VM that runs and call that a success, and leave a resumed one paused there.
    """
    domain = connection.find(source, plan.vm_id)
    if domain is None:
        raise OSError(f"there is no VM with the id {plan.vm_id} on host {plan.source}")
    state = vm_state(domain.state()[0])
    if state is not plan.vm_state:
        raise OSError(f"the VM is {state} on host {plan.source} and not {plan.vm_state} any more")
    return domain


def flags(plan: Plan) -> int:
    """Return libvirt's flags for a plan: live, peer-to-peer, persistent there, gone here, arriving paused if strict.

    Of a VM that is off only the definition is moved.
    """
    lv = connection.module()
    chosen: int = lv.VIR_MIGRATE_PEER2PEER | lv.VIR_MIGRATE_PERSIST_DEST | lv.VIR_MIGRATE_UNDEFINE_SOURCE
    if plan.vm_state is VmState.OFF:
        return chosen | int(lv.VIR_MIGRATE_OFFLINE)
    if plan.storage is not None and plan.storage.disks:
        # The guest's writes go to both sides from the beginning: the mirror gets whole however fast it writes.
        chosen |= lv.VIR_MIGRATE_NON_SHARED_DISK | lv.VIR_MIGRATE_NON_SHARED_SYNCHRONOUS_WRITES
    chosen |= lv.VIR_MIGRATE_LIVE | lv.VIR_MIGRATE_ABORT_ON_ERROR | compression.flags(plan)
    if plan.hand_over is HandOver.STRICT:
        chosen |= lv.VIR_MIGRATE_PAUSED
    if plan.post_copy is not PostCopy.OFF:
        chosen |= lv.VIR_MIGRATE_POSTCOPY
    if plan.encryption:
        chosen |= lv.VIR_MIGRATE_TLS
    return chosen


def parameters(plan: Plan, domain: Any, source: HostEntry, destination: HostEntry) -> dict[str, Any]:
    """Return libvirt's typed parameters. With encryption the peer has to prove that it is the destination by name.

    The destination listens in the migration network of the plan and in no other, and takes the whole memory at once.
    """
    lv = connection.module()
    movable = lv.VIR_DOMAIN_XML_MIGRATABLE | lv.VIR_DOMAIN_XML_SECURE
    stored = domain.XMLDesc(movable | lv.VIR_DOMAIN_XML_INACTIVE)
    stored = relocated(moved_to(stored, source, destination) or stored, plan.storage)
    chosen: dict[str, Any] = {lv.VIR_MIGRATE_PARAM_PERSIST_XML: stored}
    if plan.vm_state is VmState.OFF:
        return chosen
    live, address = domain.XMLDesc(movable), plan.address or ""
    chosen |= {
        lv.VIR_MIGRATE_PARAM_DEST_XML: reserved(relocated(moved_to(live, source, destination) or live, plan.storage)),
        lv.VIR_MIGRATE_PARAM_URI: f"tcp://{bracketed(address)}",
        lv.VIR_MIGRATE_PARAM_LISTEN_ADDRESS: address,
        **compression.parameters(plan),
    }
    if plan.encryption:
        chosen[lv.VIR_MIGRATE_PARAM_TLS_DESTINATION] = destination.name
    if plan.storage is not None and plan.storage.disks:
        chosen[lv.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = device_names(live, plan.storage)
    if plan.bandwidth_mib_s:
        chosen[lv.VIR_MIGRATE_PARAM_BANDWIDTH] = plan.bandwidth_mib_s
        if plan.post_copy is not PostCopy.OFF:
            chosen[lv.VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY] = plan.bandwidth_mib_s
    return chosen


def most_downtime_ms(plan: Plan) -> int:
    """Return the downtime, by its own estimate, up to which QEMU begins the switch by itself."""
    limit_ms = plan.cancel_if_blackout_exceeds_ms
    return USUAL_DOWNTIME_MS if limit_ms is None else max(1, min(USUAL_DOWNTIME_MS, limit_ms))


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
    operation.on_sending = lambda: start_progress(operation)
    operation.on_panic = lambda: end_after_panic(operation)
    operation.on_let_go = lambda domain, event: let_out(operation, domain, event)
    operation.on_post_copy = lambda: halves.follow(operation)
    try:
        _call(operation)
    except connection.failures() as error:
        _failed(operation, error)
        return
    operation.returned(_returned(operation, None))


def finished(operation: Operation) -> dict[str, Any]:
    """Return the figures of CALL_RETURNED from the statistics of the finished job, waiting for them shortly."""
    with operation.lock:
        operation.changed.wait_for(lambda: bool(operation.watch.statistics), STATISTICS_TIMEOUT_S)
        statistics = operation.watch.statistics
    downtime = statistics.get("downtime")
    return {
        "sent_bytes": statistics.get("memory_processed"),
        "qemu_downtime_ms": None if downtime is None else float(downtime),
        "disks_sent_bytes": statistics.get("disk_processed") if operation.plan.storage else None,
    }


def _call(operation: Operation) -> None:
    plan, reach = operation.plan, operation.reach
    operation.listen()
    own = connection.open_connection(reach.source)
    try:
        domain = as_planned(plan, own)
        chosen = parameters(plan, domain, reach.source, reach.destination)
        if plan.vm_state is not VmState.OFF:
            domain.migrateSetMaxDowntime(most_downtime_ms(plan), 0)
        domain.migrateToURI3(reach.destination.peer_uri, chosen, flags(plan))
    finally:
        connection.close_quietly(own)


def _failed(operation: Operation, error: Exception) -> None:
    code = connection.code(error)
    begun = operation.watch.seen(Kind.TRANSFER_STARTED)
    refused = None if begun or operation.cancel_accepted else _refusal(operation, error)
    if refused is not None:
        with operation.lock:
            operation.call = Call.IDLE
            operation.post(Kind.NATIVE_REFUSAL, refused.side, problem=refused)
        return
    if guest_ended(operation):
        # What the guest did is the reason, and the evidence says which; the call only says that there is no VM.
        operation.returned(_returned(operation, None, ok=False))
        return
    if operation.cancel_accepted and (code == ABORTED or not begun):
        problem = _cancel_problem(operation, connection.native(error))
    else:
        problem = full(operation, error) or operation.problem("transfer.failed", Side.SOURCE, error)
        if begun and operation.plan.compression == compression.ZSTD:
            operation.await_source_process(LATE_END_MS)
    operation.returned(_returned(operation, problem))


def _refusal(operation: Operation, error: Exception) -> Problem | None:
    if connection.code(error) in REFUSALS:
        return operation.problem("transfer.refused", Side.SOURCE, error)
    return shortage(operation, error)


def guest_ended(operation: Operation) -> bool:
    """Whether the source's VM is over by itself; after a panic this waits for libvirt to end it as configured."""
    with operation.lock:
        if operation.watch.panicked:
            operation.changed.wait_for(lambda: operation.watch.seen(Kind.SOURCE_GONE), PANIC_TIMEOUT_S)
        return operation.watch.seen(Kind.SOURCE_GONE)


def _returned(operation: Operation, problem: Problem | None, *, ok: bool | None = None) -> Event:
    values: dict[str, Any] = {"ok": problem is None if ok is None else ok, "problem": problem}
    if operation.watch.seen(Kind.TRANSFER_STARTED):
        values |= finished(operation)
    host = operation.plan.source
    return Event(Kind.CALL_RETURNED, operation.now_ns(), values, side=Side.SOURCE, host=host)


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
