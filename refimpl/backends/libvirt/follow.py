"""Following a transfer that another process began: after a crash of the controller it goes on without one."""

from __future__ import annotations

import threading
from contextlib import suppress

from refimpl.backends.libvirt import connection, halves
from refimpl.backends.libvirt.delegated import let_out, open_port
from refimpl.backends.libvirt.operation import Call, Operation
from refimpl.backends.libvirt.progress import start_progress, statistics_of
from refimpl.backends.libvirt.status import Status, read_status
from refimpl.backends.libvirt.steering import end_after_panic
from refimpl.backends.libvirt.transfer import finished, guest_ended
from refimpl.hosts.channel import HostChannel
from refimpl.model.errors import Problem
from refimpl.model.events import Event, Kind
from refimpl.model.facts import VmState
from refimpl.model.phase import Side
from refimpl.model.request import HandOver

PERIOD_S = 0.05
ASK_TIMEOUT_S = 5.0
_BEGUN = (Kind.TRANSFER_STARTED, Kind.STORAGE_SEEN)
_BEFORE = {
    Kind.ADOPTED_STORAGE: _BEGUN,
    Kind.ADOPTED_MEMORY: (*_BEGUN, Kind.MEMORY_SEEN),
    Kind.ADOPTED_SWITCH: (*_BEGUN, Kind.MEMORY_SEEN, Kind.SWITCH_SEEN),
}
"""What has been seen by then, whether anybody was there to be told or not."""
_SWITCH_PHASES = ("perform3_done", "confirm3", "confirm3_cancelled")


def adopt(operation: Operation) -> None:
    """Hear both hosts, say how the transfer stands, and follow it to its end; at once at its end when no job is left.

    A call under way in this process, or a transfer followed already, returns by itself: only its standing is told.
    """
    if any(halves.both(operation)):
        _follow_halves(operation)
        return
    with operation.lock:
        under_way = operation.call in (Call.RUNNING, Call.FOLLOWED)
        if not under_way:
            operation.call = Call.FOLLOWED
            operation.watch.adopt()
    if under_way:
        _tell_again(operation)
        return
    operation.on_sending = lambda: None
    operation.on_panic = lambda: end_after_panic(operation)
    operation.on_let_go = lambda domain, event: let_out(operation, domain, event)
    problem = _listen(operation)
    source, destination = _statuses(operation)
    if not _job(source, destination):
        operation.returned(_ended(operation, problem))
        return
    with suppress(OSError):
        operation.hold_source_process()
    if not _runs(destination):
        _tell_standing(operation, source, destination)
    elif operation.plan.hand_over is HandOver.DELEGATED:
        # It began to run while nobody listened.
        open_port(operation)
    operation.watch_lock_daemons()
    operation.watch_lease()
    threading.Thread(target=_follow, args=(operation,), name="libvirt-follow", daemon=True).start()


def _follow_halves(operation: Operation) -> None:
    """Follow a VM in post-copy by its QEMUs' own word, whatever libvirt makes of it meanwhile."""
    with operation.lock:
        operation.watch.adopt_halves()
    operation.take_over()
    with suppress(*connection.failures()):
        operation.listen()
    with suppress(OSError):
        operation.hold_source_process()
    open_port(operation)
    operation.post(Kind.ADOPTED_POSTCOPY, Side.SOURCE)
    halves.follow(operation)


def has_switched(source: Status | None, destination: Status | None) -> bool:
    """Whether the source stands still for the switch, or is beyond it."""
    if source is None or (source.state, source.reason) == ("paused", "migration"):
        return True
    arrived = destination is not None and (destination.arrived or destination.phase == "finish3")
    return arrived or source.phase in _SWITCH_PHASES


def job_runs(operation: Operation) -> bool:
    """Whether a migration job is open on either side; a host that is down has none."""
    return _job(*_statuses(operation))


def source_job_runs(operation: Operation) -> bool:
    """Whether a migration job is open at the source."""
    return _job(_statuses(operation)[0], None)


def _tell_again(operation: Operation) -> None:
    source, destination = _statuses(operation)
    standing = _standing(operation, source, destination)
    with operation.lock:
        over = operation.call is Call.RETURNED or operation.watch.seen(Kind.DESTINATION_RAN) or _runs(destination)
        if over or source is None or not source.job:
            return
        operation.post(standing, Side.SOURCE)
        if _waits(operation, destination):
            operation.post(Kind.DESTINATION_ARRIVED, Side.DESTINATION)


def _waits(operation: Operation, destination: Status | None) -> bool:
    """Whether a copy has arrived that is to be let run from here."""
    return operation.plan.hand_over is HandOver.STRICT and destination is not None and destination.arrived


def _runs(destination: Status | None) -> bool:
    return destination is not None and destination.vm_state is VmState.RUNNING


def _standing(operation: Operation, source: Status | None, destination: Status | None) -> Kind:
    if has_switched(source, destination):
        return Kind.ADOPTED_SWITCH
    return Kind.ADOPTED_STORAGE if _copies_disks(operation) else Kind.ADOPTED_MEMORY


def _copies_disks(operation: Operation) -> bool:
    """Whether disks are still being made the same, by libvirt's statistics: those of memory begin after that."""
    if operation.plan.storage is None:
        return False
    try:
        statistics = connection.bounded(lambda: statistics_of(operation), ASK_TIMEOUT_S, "question to the source")
    except connection.failures():
        return False
    return bool(statistics.get("disk_total")) and not statistics.get("memory_total")


def _tell_standing(operation: Operation, source: Status | None, destination: Status | None) -> None:
    standing = _standing(operation, source, destination)
    switched = standing is Kind.ADOPTED_SWITCH
    with operation.lock:
        operation.post(standing, Side.SOURCE)
        now_ns = operation.now_ns()
        # What the adoption has said is not to be said again by the events that follow.
        for kind in _BEFORE[standing]:
            operation.watch.once(kind, now_ns, Side.SOURCE)
        if _waits(operation, destination):
            operation.watch.once(Kind.DESTINATION_ARRIVED, now_ns, Side.DESTINATION)
            operation.post(Kind.DESTINATION_ARRIVED, Side.DESTINATION)
    if not switched:
        start_progress(operation)


def _follow(operation: Operation) -> None:
    while not operation.closing.wait(PERIOD_S):
        if not job_runs(operation):
            guest_ended(operation)
            operation.returned(_ended(operation, None))
            return
        problem = _daemon_problem(operation)
        if problem is not None:
            operation.returned(_ended(operation, problem))
            return


def _ended(operation: Operation, problem: Problem | None) -> Event:
    values = {"ok": None, "problem": problem, **(finished(operation) if problem is None else {})}
    return Event(Kind.CALL_RETURNED, operation.now_ns(), values, side=Side.SOURCE, host=operation.plan.source)


def _listen(operation: Operation) -> Problem | None:
    try:
        operation.listen()
    except connection.failures() as error:
        return operation.problem("transfer.failed", Side.SOURCE, error)
    return None


def _daemon_problem(operation: Operation) -> Problem | None:
    """Return a problem when the source's daemon, which drives the transfer, has gone: its file stays as it was."""
    try:
        operation.reach.connections.to(operation.reach.source)
    except connection.failures() as error:
        return operation.problem("transfer.failed", Side.SOURCE, error)
    return None


def _statuses(operation: Operation) -> tuple[Status | None, Status | None]:
    reach, vm = operation.reach, operation.plan.vm
    return _status(reach.source_channel, vm), _status(reach.destination_channel, vm)


def _status(channel: HostChannel, vm: str) -> Status | None:
    try:
        return read_status(channel, vm)
    except OSError:
        return None


def _job(source: Status | None, destination: Status | None) -> bool:
    return any(seen is not None and seen.job for seen in (source, destination))
