"""Putting both hosts in order once it is clear whose copy is the VM, and taking the operation's mark off.

Three rules: a running copy is removed only where another copy was seen to run; a copy is removed only when it is
provably this operation's; a copy is resumed only when the other is known to be gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

from refimpl.backends.libvirt import connection, disk_files, kept, lease, monitor, port, retake, stamp
from refimpl.backends.libvirt.binding import source_gone
from refimpl.backends.libvirt.delegated import open_port
from refimpl.backends.libvirt.domain import moved_to
from refimpl.backends.libvirt.follow import job_runs, source_job_runs
from refimpl.backends.libvirt.operation import Operation
from refimpl.backends.libvirt.status import Status, process_gone, read_status
from refimpl.hosts.channel import HostChannel
from refimpl.model.errors import Problem
from refimpl.model.events import Kind
from refimpl.model.group import HostEntry
from refimpl.model.phase import Side
from refimpl.model.request import Plan, PostCopy, VmState

T = TypeVar("T")

JOB_TIMEOUT_S = 30.0
GONE_TIMEOUT_S = 15.0
WORK_TIMEOUT_S = 60.0
PERIOD_S = 0.05
_HELD = "; libvirt may hold a job of the post-copy that failed: start libvirtd of host {host} anew, then recover"


class _CannotSettle(OSError):
    """Putting in order would not be safe, or did not work. An OSError, as everything else that a host can say."""


def settle_source(operation: Operation) -> None:
    """Remove a copy at the destination, then resume the source if the system below paused it."""
    _settle(operation, Side.SOURCE, _source_is_the_vm)


def settle_destination(operation: Operation) -> None:
    """Remove the source's copy, once the destination's was seen to run."""
    _settle(operation, Side.DESTINATION, _destination_is_the_vm)


def clean_up(operation: Operation) -> None:
    """Take the mark off on both hosts, and let go of what this process held; copies of disks are only named."""
    _clean(operation, lambda: (disk_files.undecided(operation), []))


def clean_up_undone(operation: Operation) -> None:
    """Do the same, and remove the copies of disks."""
    _clean(operation, lambda: disk_files.undo(operation))


def clean_up_moved(operation: Operation) -> None:
    """Do the same, and remove at the source the disks that have moved."""
    _clean(operation, lambda: (disk_files.finish(operation), []))


def _clean(operation: Operation, disks: Callable[[], tuple[list[str], list[str]]]) -> None:
    left, stay = disks()
    items = [item for _, host, _ in operation.reach.sides() for item in _unmark(operation, host)]
    items += [*left, *_clear_port(operation)]
    operation.forget()
    kept.forget(operation)
    if operation.plan.post_copy is not PostCopy.OFF:
        with suppress(OSError):
            # It ends with its QEMU at the latest.
            monitor.release(operation.reach.destination_channel, operation.plan.vm_id)
    if items:
        operation.post(Kind.LEFT_BEHIND, items=tuple(items), kept=tuple(stay))
    else:
        operation.post(Kind.CLEANED, kept=tuple(stay))


def _settle(operation: Operation, side: Side, work: Callable[[Operation], dict[str, Any] | None]) -> None:
    try:
        told = connection.bounded(lambda: _anew(lambda: work(operation)), WORK_TIMEOUT_S, "putting the hosts in order")
    except connection.failures() as error:
        values = {"vm": operation.plan.vm, "operation": operation.id, "detail": str(error)}
        native = None if isinstance(error, _CannotSettle) else connection.native(error)
        operation.post(Kind.CANNOT_SETTLE, side, problem=Problem(id="settle.failed", values=values, native=native))
    else:
        operation.post(Kind.SETTLED, side, **(told or {}))


def _anew(work: Callable[[], T]) -> T:
    """Do it, and once more if a copy that was found was gone when it was asked: its daemon had ended it meanwhile."""
    try:
        return work()
    except connection.module().libvirtError as error:
        if connection.code(error) != connection.module().VIR_ERR_NO_DOMAIN:
            raise
    return work()


def _source_is_the_vm(operation: Operation) -> dict[str, Any] | None:
    reach = operation.reach
    if reach.source.name in operation.fenced:
        _none_is_left(operation)
        return None
    if operation.source_older:
        _end_older_source(operation)
        return None
    none_runs_there = reach.destination.name in operation.fenced
    with _if_it_answers(reach.destination) as there:
        # One that does not answer forbids only the resume: a source that runs is left alone, the clean-up reports it.
        if there is not None:
            _wait(operation, lambda: not job_runs(operation), JOB_TIMEOUT_S, "a migration job is still open")
            if operation.plan.vm_state is VmState.OFF:
                _no_hidden_job(operation)
            none_runs_there = _remove_half_made(operation, there)
    _wait(operation, lambda: not source_job_runs(operation), JOB_TIMEOUT_S, "the source's migration job is still open")
    with connection.fresh(reach.source) as here:
        domain = connection.find(here, operation.plan.vm_id)
        if domain is None and reach.destination.name in operation.fenced:
            _define(operation, here, reach.source, kept.kept(operation))
        if domain is None or operation.plan.vm_state is VmState.PAUSED:
            return None
        if not _paused_by_migration(domain):
            return _leased_again(operation, domain) if none_runs_there else None
        if not none_runs_there:
            raise _CannotSettle(f"the source is paused and host {reach.destination.name} may have a running copy")
        _require_fresh(operation, domain)
        domain.resume()
        return None


def _end_older_source(operation: Operation) -> None:
    """End a source that is older than what ran at the destination; where that is defined, its definition is the VM."""
    reach = operation.reach
    _wait(operation, lambda: not job_runs(operation), JOB_TIMEOUT_S, "a migration job is still open")
    with connection.fresh(reach.source) as here, connection.fresh(reach.destination) as there:
        domain = connection.find(here, operation.plan.vm_id)
        if domain is None:
            return
        if not _ours(operation, domain):
            raise _CannotSettle(f"the copy on host {reach.source.name} does not carry the mark of this operation")
        defined_there = connection.find(there, operation.plan.vm_id) is not None
        _remove(operation, domain, reach.source, reach.source_channel, undefine=defined_there)


def _leased_again(operation: Operation, domain: Any) -> dict[str, Any] | None:
    """Take the lease of a source that runs without it again; say so with how long it stood still for it."""
    _require_fresh(operation, domain)
    did = retake.source_lease(operation)
    if did is None:
        return None
    if did.problem is not None and domain.state()[0] == connection.module().VIR_DOMAIN_PAUSED:
        raise _CannotSettle(f"{did.problem}")
    return None if did.problem is not None else {"lease_taken": True, "pause_ms": did.pause_ms}


def _none_is_left(operation: Operation) -> None:
    """The VM's memory went with a source that was cut off: what waits here is older, only its definition is kept."""
    lv = connection.module()
    host = operation.reach.destination
    xml = kept.kept(operation)
    xml = (moved_to(xml, operation.reach.source, host) or xml) if xml else None
    with connection.fresh(host) as there:
        domain = connection.find(there, operation.plan.vm_id)
        if domain is not None:
            if not _ours(operation, domain) or domain.state()[0] in (lv.VIR_DOMAIN_RUNNING, lv.VIR_DOMAIN_BLOCKED):
                raise _CannotSettle(f"the copy on host {host.name} runs, or is not of this operation")
            if domain.isPersistent():
                xml = domain.XMLDesc(lv.VIR_DOMAIN_XML_INACTIVE | lv.VIR_DOMAIN_XML_SECURE)
            _remove(operation, domain, host, operation.reach.destination_channel)
        _define(operation, there, host, xml)


def _define(operation: Operation, connected: Any, host: HostEntry, xml: str | None) -> None:
    """Store the definition on the host that owns the VM now, so that it can be started there from its disks."""
    record = operation.ownership
    if xml is not None and record is not None and record.owner == host.name:
        connected.defineXML(xml)


def _require_fresh(operation: Operation, domain: Any) -> None:
    """A copy that carries a later epoch than this operation knows was taken over: it is not this one's to resume."""
    carried, known = stamp.epoch(domain.XMLDesc(0)), operation.ownership.epoch if operation.ownership else 0
    if carried > known:
        raise _CannotSettle(f"the copy carries epoch {carried} of the owner record, this operation knows {known}")


def _no_hidden_job(operation: Operation) -> None:
    """Wait for the end of a move of the definition alone, which shows nowhere while the VM is off.

    libvirt takes no change of a VM that is being moved, so marking it once more waits; and fails when it is gone then.
    """
    with connection.fresh(operation.reach.source) as here:
        domain = connection.find(here, operation.plan.vm_id)
        if domain is None or not _ours(operation, domain):
            return
        if not domain.isPersistent():
            raise _CannotSettle(f"only host {operation.reach.destination.name} has the VM's definition stored")
        stamp.put(domain, operation.stamp)


@contextmanager
def _if_it_answers(host: HostEntry) -> Iterator[Any]:
    """Give a fresh connection, or None when the host does not answer. What fails on an open one is not hidden."""
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(connection.fresh(host))
        except connection.failures():
            opened = None
        yield opened


def _remove_half_made(operation: Operation, there: Any) -> bool:
    """Remove the destination's copy if it is this operation's; True when no running copy can be there afterwards.

    A copy whose source is not defined any more is the only one: it is never removed. Nor is one that has arrived when
    the source's process has ended meanwhile: then nothing else has the VM's memory.
    """
    lv = connection.module()
    reach = operation.reach
    domain = connection.find(there, operation.plan.vm_id)
    if domain is None:
        return True
    state = domain.state()[0]
    if operation.ownership is not None and operation.ownership.owner == reach.destination.name:
        # Of a VM that was lost it is the definition, which somebody may have started since.
        return bool(state == lv.VIR_DOMAIN_SHUTOFF)
    with connection.fresh(reach.source) as here:
        source = connection.find(here, operation.plan.vm_id)
        only_one = source is None or (_arrived(operation, domain) and not source.isActive())
    if only_one or not _ours(operation, domain):
        if only_one and state != lv.VIR_DOMAIN_SHUTOFF:
            raise _CannotSettle(f"the copy on host {reach.destination.name} is the only one; it is not removed")
        return bool(state == lv.VIR_DOMAIN_SHUTOFF)
    if state in (lv.VIR_DOMAIN_RUNNING, lv.VIR_DOMAIN_BLOCKED):
        raise _CannotSettle(f"the copy on host {reach.destination.name} runs; it is not removed")
    _remove(operation, domain, reach.destination, reach.destination_channel)
    return True


def _arrived(operation: Operation, domain: Any) -> bool:
    """Whether a copy at the destination is the whole VM, which waits to be let run."""
    lv = connection.module()
    waits = list(domain.state()) == [lv.VIR_DOMAIN_PAUSED, lv.VIR_DOMAIN_PAUSED_USER]
    return waits and operation.plan.vm_state is not VmState.OFF


def _destination_is_the_vm(operation: Operation) -> None:
    reach, plan = operation.reach, operation.plan
    with connection.fresh(reach.destination) as there:
        copy = connection.find(there, plan.vm_id)
        runs = copy is not None and _is_the_vm(plan, copy.state())
    if runs:
        # A killed conductor left it shut. What cannot be opened is left to the clean-up, which removes it or names it.
        open_port(operation)
    with _if_it_answers(reach.source) as here:
        if here is not None:
            _wait(operation, lambda: not job_runs(operation), JOB_TIMEOUT_S, "a migration job is still open")
            _remove_source(operation, here, runs)
        elif not (runs and (reach.source.name in operation.fenced or _source_bound(operation))):
            # A silent source that cannot run again is no danger; its definition is left behind.
            raise _CannotSettle(f"host {plan.source} does not answer, and its copy may run again")


def _is_the_vm(plan: Plan, state: Sequence[int]) -> bool:
    """Whether a copy at the destination is as the VM has to be there; a paused VM's has arrived and waits."""
    lv = connection.module()
    running = state[0] in (lv.VIR_DOMAIN_RUNNING, lv.VIR_DOMAIN_BLOCKED)
    return running or (
        plan.vm_state is VmState.PAUSED and list(state) == [lv.VIR_DOMAIN_PAUSED, lv.VIR_DOMAIN_PAUSED_USER]
    )


def _remove_source(operation: Operation, here: Any, destination_runs: bool) -> None:
    reach, plan = operation.reach, operation.plan
    domain = connection.find(here, plan.vm_id)
    if domain is None:
        return
    if not destination_runs:
        raise _CannotSettle(f"the copy on host {plan.destination} was not seen to run; the source's is kept")
    if not _ours(operation, domain):
        raise _CannotSettle(f"the copy on host {plan.source} does not carry the mark of this operation")
    if domain.state()[0] in (connection.module().VIR_DOMAIN_RUNNING, connection.module().VIR_DOMAIN_BLOCKED):
        operation.post(Kind.SOURCE_FOUND_RUNNING, Side.SOURCE)
    _remove(operation, domain, reach.source, reach.source_channel)


def _source_bound(operation: Operation) -> bool:
    try:
        seen = read_status(operation.reach.source_channel, operation.plan.vm)
        return seen is None or seen.bound or source_gone(operation, seen)
    except OSError:
        # Nothing of that host can be seen: its copy cannot run while the other one's host holds the lease.
        return operation.source_process_ended() or _leased_there(operation)


def _leased_there(operation: Operation) -> bool:
    return lease.held(operation.reach.destination_channel, operation.lease) is True


def _remove(operation: Operation, domain: Any, host: HostEntry, channel: HostChannel, *, undefine: bool = True) -> None:
    lv = connection.module()
    persistent = bool(domain.isPersistent())
    before = read_status(channel, operation.plan.vm)
    if domain.isActive():
        _unless_gone(domain.destroy)
    what = f"the copy on host {host.name} does not end"
    _wait(operation, lambda: _ended(channel, operation.plan.vm, before), GONE_TIMEOUT_S, what)
    if persistent and undefine:
        # The file with the firmware's variables is the VM's, and the copy that is kept uses it.
        _unless_gone(lambda: domain.undefineFlags(lv.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM))


def _unless_gone(act: Callable[[], Any]) -> None:
    lv = connection.module()
    try:
        act()
    except lv.libvirtError as error:
        if connection.code(error) not in (lv.VIR_ERR_NO_DOMAIN, lv.VIR_ERR_OPERATION_INVALID):
            raise


def _ended(channel: HostChannel, vm: str, before: Status | None) -> bool:
    if read_status(channel, vm) is not None:
        return False
    return before is None or before.pid == 0 or process_gone(channel, before.pid)


def _ours(operation: Operation, domain: Any) -> bool:
    """Whether a copy is provably of this operation: it carries its mark, or is the incoming half of a migration."""
    lv = connection.module()
    marked = stamp.from_domain_xml(domain.XMLDesc(0))
    if marked is not None:
        return marked.operation == operation.id
    return bool(domain.state() == [lv.VIR_DOMAIN_PAUSED, lv.VIR_DOMAIN_PAUSED_MIGRATION])


def _paused_by_migration(domain: Any) -> bool:
    lv = connection.module()
    state, reason = domain.state()
    by_system = (lv.VIR_DOMAIN_PAUSED_MIGRATION, lv.VIR_DOMAIN_PAUSED_API_ERROR)
    return state == lv.VIR_DOMAIN_PAUSED and reason in by_system


def _clear_port(operation: Operation) -> list[str]:
    """Take away what the operation made for the VM's port; return what is left of it."""
    host = operation.reach.destination
    try:
        port.clear(operation.reach.destination_channel, operation.id)
    except OSError as error:
        return [f"the rule by which operation {operation.id} shuts a port on host {host.name}: {error}"]
    return []


def _unmark(operation: Operation, host: HostEntry) -> list[str]:
    """Take the mark off one host's copy; return what is left there."""

    def work() -> None:
        with connection.fresh(host) as fresh:
            domain = connection.find(fresh, operation.plan.vm_id)
            if domain is None:
                return
            record = operation.ownership
            if record is not None and record.owner == host.name and stamp.epoch(domain.XMLDesc(0)) <= record.epoch:
                stamp.put_owner(domain, record)
            if _stale_definition(operation, host, domain):
                domain.undefineFlags(connection.module().VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
                return
            # Before the mark goes: as long as that is there, this is done again.
            if domain.isPersistent():
                _set_autostart(operation, domain, host)
            stamp.take_off(domain, operation.id)

    try:
        connection.bounded(lambda: _anew(work), GONE_TIMEOUT_S, f"clean-up on host {host.name}")
    except connection.failures() as error:
        held = "" if operation.plan.post_copy is PostCopy.OFF else _HELD.format(host=host.name)
        return [f"what operation {operation.id} left of VM {operation.plan.vm!r} on host {host.name}: {error}{held}"]
    return []


def _stale_definition(operation: Operation, host: HostEntry, domain: Any) -> bool:
    """Whether a host that was cut off has come back with nothing but a definition, and the owner has its own."""
    record, reach = operation.ownership, operation.reach
    if record is None or record.owner == host.name or operation.plan.storage is not None:
        return False
    if domain.isActive() or not domain.isPersistent() or not _ours(operation, domain):
        return False
    owner = reach.destination if host is reach.source else reach.source
    with connection.fresh(owner) as fresh:
        return owner.name == record.owner and connection.find(fresh, operation.plan.vm_id) is not None


def _set_autostart(operation: Operation, domain: Any, host: HostEntry) -> None:
    """Have a host start the VM by itself only as it did before, at the source, where that has kept the VM."""
    plan, record = operation.plan, operation.ownership
    kept = record is not None and record.owner == host.name == plan.source
    wanted = int(kept and plan.autostart)
    if domain.autostart() != wanted:
        domain.setAutostart(wanted)


def _wait(operation: Operation, reached: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
    for _ in range(int(timeout_s / PERIOD_S)):
        if reached():
            return
        if operation.closing.wait(PERIOD_S):
            break
    raise _CannotSettle(otherwise)
