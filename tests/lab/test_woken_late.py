"""A destination's daemon that is frozen at the switch and woken when the move was recovered already without it.

The controller dies at the same moment, so that nobody hears what comes after. Whatever the woken daemon still does: one
copy runs, and never two, and a recovery ends the move truly.
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict

import pytest

from refimpl.app.home import OperationFiles
from refimpl.app.recovery import recover_one
from refimpl.faults.moments import migration_is
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from refimpl.model.request import HandOver
from tests import traced
from tests.lab.libvirt_support import host_of
from tests.lab.moving import Moving, joined_log, until
from tests.lab.striking import MOMENT_S, at_the_end, daemon_frozen, given_up

pytestmark = pytest.mark.lab

STRICT, DELEGATED = HandOver.STRICT, HandOver.DELEGATED


def recovered(moving: Moving) -> Outcome:
    (item,) = moving.interrupted(marks=False)
    return recover_one(moving.home, moving.group, item).wait()


@pytest.mark.full
@pytest.mark.timeout(400)  # a recovery asks a silent host twenty times, and each time waits for it
@pytest.mark.rule("R1", "R2")
@pytest.mark.parametrize(
    ("hand_over", "arrived"),
    [(STRICT, False), (STRICT, True), (DELEGATED, False), (DELEGATED, True)],
    ids=["strict-S2", "strict-S4", "delegated-S2", "delegated-S4"],
)
def test_it_changes_nothing_wrong(moving: Moving, hand_over: HandOver, arrived: bool) -> None:
    source, destination = moving.place(), moving.other()
    moment, teller = (at_the_end(hand_over), destination) if arrived else (migration_is("device"), source)
    with daemon_frozen(moving.lab, destination, (teller, moving.spec.id, moment), lambda: True) as freeze:
        operation = moving.start(hand_over=hand_over)
        assert freeze.fired.wait(MOMENT_S), "the moment of the freeze"
        conductor = OperationFiles(moving.home.operations / operation.id).conductor()
        assert conductor is not None
        os.kill(conductor.pid, signal.SIGKILL)
        until(lambda: not operation.alive(), "the end of the conductor")
        until(lambda: given_up(host_of(moving.group, source), moving.spec.name), "the source gives the move up")
        without = recovered(moving)
    assert without.end in (Phase.FAILED, Phase.INDETERMINATE), without
    # The daemon is awake, and does what it had to do next; the recovery finds out what that was.
    outcome = recovered(moving)
    assert outcome.end in (Phase.FAILED, Phase.COMPLETED, Phase.COMPLETED_WITH_WARNINGS), outcome
    assert moving.place() == (destination if outcome.completed else source)
    assert outcome.completed or without.end is Phase.FAILED or arrived
    moving.works()
    never_twice(moving)
    files = OperationFiles(moving.home.operations / operation.id)
    traced.TRACES.leave_out(files, "a controller that dies while a daemon is frozen: more than one fault")


def never_twice(moving: Moving) -> None:
    """No line of the guest was written by two copies: the same number on both hosts."""
    places: dict[tuple[str, int], set[str]] = defaultdict(set)
    for line in joined_log(moving).lines:
        places[line.boot, line.sequence].add(line.host)
    assert places
    assert [number for number, hosts in places.items() if len(hosts) > 1] == []
