"""Disks that lie on one host each and move with the VM (shared-nothing): which files there are, and what removes them.

The source's files may go once the copy at the destination has run, the copies once the source's is the VM for good;
a host removes no file of a VM that it has, whatever it was asked for (`backends/libvirt/disk_files.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.handover_model.world import DESTINATION_ALIVE, SOURCE_ALIVE, State, whole


class Step(NamedTuple):
    """A step of a clean-up: what, the state after it, and how far it has come."""

    what: str
    state: State
    at: str


def steps(state: State, others: State, command: str, at: str = "start") -> Iterator[Step]:
    """Yield what a clean-up does with files next. `others`: the state without its task.

    Any file may be one that does not go: a file system can fail, and another VM may have it by then.
    """
    if at == "source":
        yield from _retire(state, others)
    elif state.dd != "up":
        yield Step("backend hears nothing of the copied disks", others, "left")
    elif command == "clean-up-undone":
        yield from _undo(state, others)
    elif command == "clean-up-moved":
        adopted = others._replace(dfile="own" if state.dfile else "")
        yield Step("the destination's VM is given its disks", adopted, "source" if state.dq != "absent" else "left")
    else:
        yield Step("backend names the disks that nothing is decided about", others, _done(state.dfile != "made"))


def is_used(copy: str) -> bool:
    """Whether a host has the VM, running or not, and so keeps its files."""
    return copy != "absent"


def _undo(state: State, others: State) -> Iterator[Step]:
    if state.dfile != "made":
        yield Step("there are no copied disks", others, "done")
        return
    if not is_used(state.dq):
        yield Step("the copied disks are removed", others._replace(dfile=""), "done")
    yield Step("the copied disks are not removed", others, "left")


def _retire(state: State, others: State) -> Iterator[Step]:
    if state.sd == "up" and not is_used(state.sq):
        yield Step("the source's disks are removed", others._replace(sfile=False), "done")
    yield Step("the source's disks are not removed", others, "left")


def _done(well: bool) -> str:
    return "done" if well else "left"


def newest_is_gone(state: State) -> bool:
    """Whether the file is gone that has all that the guest was told is written: that of the copy which ran last.

    Nor may the file of the only copy with the newest memory go, although it has not run yet.
    """
    if not state.sfile and (state.sran or not state.dran):
        return True
    waits = state.dq in DESTINATION_ALIVE and whole(state) and state.sq not in SOURCE_ALIVE
    return not state.dfile and (state.dran or waits)
