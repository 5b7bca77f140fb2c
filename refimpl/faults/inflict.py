"""Doing a fault and undoing it whatever happens: by the `with` block, or by its record when its process was killed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from refimpl.faults.catalogue import Fault, Needs
from refimpl.faults.strikes import STRIKES, Strike
from refimpl.faults.target import Place, Target
from refimpl.hosts import process
from refimpl.lab import Lab
from refimpl.lab.faultbook import FaultBook, FaultRecord
from refimpl.lab.undoing import undo


class Inflicted:
    """A fault in a lab. It does nothing until `strike`, and is undone at the end of the `with` block if it struck.

    May be struck from another thread, once. ValueError when the target lacks what the fault needs. What it strikes is
    found by `aim`, or by `strike` if that was not called: LabError `fault.no_process`, `fault.no_move`, `fault.stands`.
    """

    def __init__(self, lab: Lab, fault: Fault, target: Target) -> None:
        """Look at nothing yet."""
        lacking = [name for need in fault.needs if (name := _lacking(need, target))]
        if lacking:
            raise ValueError(f"{fault.name} needs {', '.join(lacking)}")
        self.fault = fault
        self._lab, self._target = lab, target
        self._book = FaultBook(lab.paths)
        self._id = self._book.new_id()
        self._strike: Strike | None = None
        self._record: FaultRecord | None = None
        self._lock = threading.Lock()
        self._over = False
        self.struck = False

    def aim(self) -> None:
        """Find what is to be struck, and register it, so that the act itself takes no time."""
        with self._lock:
            self._aim()

    def strike(self) -> None:
        """Do it; a second time nothing. After the end of the block it is too late, and nothing is done."""
        with self._lock:
            if self._over or self.struck:
                return
            strike = self._aim()
            self.struck = True
            strike.act()

    @property
    def target(self) -> str:
        """What it strikes, in words; empty before `aim`."""
        return self._strike.target if self._strike else ""

    def __enter__(self) -> Inflicted:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Undo it. LabError `fault.not_undone` when that cannot be done; the record then stays."""
        with self._lock:
            self._over = True
            if self._record is not None:
                undo(self._lab, self._record)

    def _aim(self) -> Strike:
        if self._strike is None:
            strike = STRIKES[self.fault.name](self._lab, self._target, self._id)
            by = process.here(os.getpid())
            record = FaultRecord(self._id, self.fault.name, strike.target, by, strike.undo)
            if self.fault.lasting:
                self._book.write(record)
                self._record = record
            self._strike = strike
        return self._strike


@contextmanager
def inflicted(lab: Lab, fault: Fault, target: Target) -> Iterator[Inflicted]:
    """Do a fault now; it is undone at the end of the block, however it comes. Errors as of `Inflicted`."""
    with Inflicted(lab, fault, target) as found:
        found.strike()
        yield found


def _lacking(need: Needs, target: Target) -> str:
    """Return what a target lacks of what a fault needs, nothing when it has it."""
    place = {Place.SHARED: bool(target.host), Place.HOME: target.home is not None, Place.STORE: True}[target.place]
    given = {
        Needs.HOST: bool(target.host),
        Needs.VM: bool(target.vm),
        Needs.NETWORK: bool(target.network),
        Needs.DIRECTION: True,
        Needs.RATE: target.rate_mbit_s > 0,
        Needs.PLACE: place,
    }
    if given[need]:
        return ""
    return f"the host or home of the {target.place} place" if need is Needs.PLACE else str(need)
