"""A source that QEMU lets run on by itself has given its lease back: the roll-back takes it again, whoever does that.

The destination's daemon is killed when the source has begun to send the last part. The roll-back is held before it puts
the source in order: there the guest runs, and nobody has its lease.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from refimpl.app.operations import Operation
from refimpl.meter.disk import disk_verdict
from refimpl.meter.heartbeat import continuity
from refimpl.meter.verdict import State
from refimpl.model.events import Kind
from refimpl.model.facts import VmState
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from tests.fault_table import CASES
from tests.lab.faulted import ATTEMPTS, owned_by
from tests.lab.moving import Moving, Stop, joined_log, kinds, until
from tests.lab.striking import Struck
from tests.lab.test_lease_health import second_copy_is_refused, unleased

pytestmark = [pytest.mark.lab, pytest.mark.full]

HELD_AT = "intended:settle-source"


@contextmanager
def running_without_lease(moving: Moving) -> Iterator[tuple[Operation, Stop]]:
    """A move that has failed, its conductor held before the source is put in order, until the end of the block."""
    source = moving.place()
    for _ in range(ATTEMPTS):
        with moving.stop_at(HELD_AT) as stop:
            operation = Struck(moving, CASES["K6-strict"]).play()
            until(lambda operation=operation, stop=stop: stop.marker.exists() or not operation.alive(), HELD_AT)
            if stop.marker.exists() and unleased(moving, source)[1] == (moving.spec.name,):
                yield operation, stop
                return
        # Answered before the daemon was struck, or broken off before QEMU had stopped: nothing was given back.
        assert operation.wait().completed or unleased(moving, source) == (True, ())
        source = moving.place()
    raise AssertionError(f"in {ATTEMPTS} moves no source was let run on by QEMU without its lease")


def judge(moving: Moving, outcome: Outcome, told: list[str], boot: str) -> None:
    """At the source, with its lease, in which nobody can take it; the guest stood still for it, and lost nothing."""
    source, other = moving.place(), moving.other()
    assert (outcome.end, outcome.runs_on) == (Phase.FAILED, source)
    (warning,) = (warning for warning in outcome.warnings if warning.id == "lease.taken_again")
    assert warning.host == source
    print(warning.text)
    assert Kind.SETTLED in told
    assert unleased(moving, source) == (True, ())
    second_copy_is_refused(moving, other)
    assert moving.states() == {source: VmState.RUNNING}
    owned_by(moving, source)
    moving.works()
    log = joined_log(moving)
    assert log.boots[-1] == boot
    seen = continuity(log, boot)
    assert (seen.lines_missing, seen.beats_missing, seen.duplicated) == (0, 0, 0)
    assert disk_verdict(log, Path(moving.spec.disk_path), boot=boot).state is State.OK


@pytest.mark.rule("R1", "R2")
@pytest.mark.error("lease.taken_again")
def test_it_is_taken_again_by_the_roll_back(moving: Moving) -> None:
    boot = joined_log(moving).boots[-1]
    with running_without_lease(moving) as (operation, _):
        pass
    judge(moving, operation.wait(), kinds(operation), boot)
    assert moving.start().wait().end is Phase.COMPLETED, "and given away and taken as ever"


@pytest.mark.rule("R1", "R2")
@pytest.mark.error("lease.taken_again")
@pytest.mark.parametrize("journal", [True, False], ids=["with journal", "without journal"])
def test_it_is_taken_again_by_a_recovery(moving: Moving, journal: bool) -> None:
    boot = joined_log(moving).boots[-1]
    with running_without_lease(moving) as (operation, stop):
        os.kill(stop.reached(), signal.SIGKILL)
        until(lambda: not operation.alive(), "the end of the conductor")
    if not journal:
        moving.forget_journal(operation)
    outcome = moving.recover()
    judge(moving, outcome, [Kind.SETTLED], boot)
