"""Ending the copy of a source whose daemon does not answer, by its process (handover 1.1, 5).

The process is held by a pidfd since before the switch, so it cannot be mistaken. It is stopped first: while it stands,
nothing that its daemon orders can let it run, and what the daemon has ordered before is in its file, which it writes
before it gives the order. Only if that says that the copy was not taken back is the process ended; if not, it goes on.

A controller that is killed in between leaves a process that stands still, and a daemon that waits for it with all that
it has to do. Who looks next lets it go on first (`go_on`): then nothing has been done.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
from pathlib import Path

from refimpl.backends.libvirt.operation import Operation
from refimpl.backends.libvirt.status import DENIED_PHASE, Status, process_stopped, read_status
from refimpl.hosts.stops import stop_point
from refimpl.hosts.wait import until
from refimpl.model.events import Kind
from refimpl.model.phase import Side

STANDS_S, POLL_S = 1.0, 0.0005
STOPPED_POINT = "end-source.stopped"
"""The stop point between the process's stop and its end."""
END_TIMEOUT_MS = 5000
_STANDING = frozenset("TtZXx")


def end_source(operation: Operation) -> None:
    """Carry out END_SOURCE."""
    held = operation.source_pidfd()
    if held is None:
        _not_ended(operation, "its process is not held from here")
        return
    try:
        with operation.ending:
            why = _end(operation, held)
    except OSError as error:
        why = str(error)
    finally:
        os.close(held)
    if why:
        _not_ended(operation, why)
    else:
        operation.post(Kind.SOURCE_ENDED, Side.SOURCE)


def go_on(operation: Operation) -> None:
    """Let the source's process go on if a controller that is gone has stopped it to end it, and say so.

    Only that of a copy that does not run, and not by a controller that holds it: that one knows what it does itself.
    """
    if operation.holds_source_process() or not operation.ending.acquire(blocking=False):
        return
    try:
        went_on = _went_on(operation)
    except OSError:
        return  # A host that shows nothing is told as that by the look which comes now.
    finally:
        operation.ending.release()
    if went_on:
        operation.post(Kind.SOURCE_GOES_ON, Side.SOURCE)


def _went_on(operation: Operation) -> bool:
    channel = operation.reach.source_channel
    seen = read_status(channel, operation.plan.vm)
    if seen is None or seen.state != "paused" or not seen.pid or not process_stopped(channel, seen.pid):
        return False
    outer = channel.outer_pid(seen.pid)
    if outer is None:
        return False
    held = os.pidfd_open(outer)
    try:
        if not process_stopped(channel, seen.pid):
            return False
        signal.pidfd_send_signal(held, signal.SIGCONT)
    finally:
        os.close(held)
    return True


def why_not(source: Status | None, destination: Status | None) -> str:
    """Return why the source's copy must not be ended, by what both files show; empty when it may.

    Before the destination's job is closed, the death of its daemon would end its copy, the last one then.
    """
    if destination is None or not destination.waits:
        return "the destination's copy is not there to be let run"
    if source is None:
        return "the source does not show its copy"
    if not stands_still(source):
        return f"the source's copy is {source.state} ({source.reason}) {source.phase}".rstrip()
    return ""


def stands_still(source: Status | None) -> bool | None:
    """Whether a source's copy stands for its hand-over and was not taken back; None when it shows none."""
    if source is None:
        return None
    return source.phase != DENIED_PHASE and (source.state, source.reason) == ("paused", "migration")


def _end(operation: Operation, held: int) -> str:
    """Return why it was not ended, nothing when it is gone."""
    why = _why_not(operation)
    if why or is_over(held, 0):
        return why
    why = "stopping it failed"
    try:
        signal.pidfd_send_signal(held, signal.SIGSTOP)
        stands = until(lambda: threads_stand(held), STANDS_S, POLL_S)
        why = _why_not(operation) if stands else "its process does not stop"
    finally:
        if why:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(held, signal.SIGCONT)
    if why:
        return why
    stop_point(STOPPED_POINT)
    operation.watch.ends_source()
    signal.pidfd_send_signal(held, signal.SIGKILL)
    return "" if is_over(held, END_TIMEOUT_MS) else "its process does not end"


def _why_not(operation: Operation) -> str:
    reach, vm = operation.reach, operation.plan.vm
    return why_not(read_status(reach.source_channel, vm), read_status(reach.destination_channel, vm))


def is_over(held: int, timeout_ms: int) -> bool:
    """Whether the process of a pidfd has ended, within so many milliseconds."""
    poller = select.poll()
    poller.register(held, select.POLLIN)
    return bool(poller.poll(timeout_ms))


def threads_stand(held: int) -> bool:
    """Whether every thread of the process is stopped, or it is gone."""
    (pid,) = re.findall(r"^Pid:\s+(-?\d+)$", Path(f"/proc/self/fdinfo/{held}").read_text(), re.MULTILINE)
    if int(pid) <= 0:
        return True
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return all(_state(thread / "stat") in _STANDING for thread in threads)
    except (FileNotFoundError, ProcessLookupError):
        return False


def _state(stat: Path) -> str:
    try:
        return stat.read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def _not_ended(operation: Operation, reason: str) -> None:
    operation.post(Kind.SOURCE_NOT_ENDED, Side.SOURCE, reason=reason)
