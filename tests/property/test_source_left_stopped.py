"""A controller that dies after it has stopped a silent source's process and before it ends it: what comes of that."""

from __future__ import annotations

import pytest

from refimpl.backends.simulated.ending import Ending
from refimpl.model.events import Kind
from refimpl.model.facts import VmState
from refimpl.model.phase import Phase
from tests.moves import OPERATION, Killed, Rig
from tests.property.scenario import fault
from tests.property.test_every_journal_entry import LATER_MS, Move, judge, recovered, rig_of

FROZEN_MS = (1_200, 3_000, 10_000, 200_000)
"""How long the source's system is frozen from the arrival on; after a second its process is to be ended."""


def left_stopped(monkeypatch: pytest.MonkeyPatch, frozen_ms: int, *, fails: bool = False) -> tuple[Move, Rig]:
    """Play a move whose controller dies in between, and return it with its world, in which the process stands still.

    `fails`: the source gives the transfer up then, and wants to take the VM back as soon as it answers.
    """
    move = Move(Phase.COMPLETED, fault("host-freezes", host="a", during="arrived", for_ms=frozen_ms))
    rig = rig_of(move, None, False)

    def killed(*_: object) -> None:
        raise Killed("between stop and end")

    with monkeypatch.context() as patched:
        patched.setattr(Ending, "_end", killed)
        assert rig.start() is None
    source = rig.world.copy("a", "web")
    assert source is not None
    assert (source.state, source.stopped) == (VmState.PAUSED, True)
    if fails:
        rig.world.transfers[OPERATION].break_off("the answer of the destination was lost")
    return move, rig


@pytest.mark.rule("R1", "R2")
@pytest.mark.parametrize("with_journal", [True, False], ids=["with journal", "without journal"])
@pytest.mark.parametrize("fails", [False, True], ids=["goes through", "is taken back"])
@pytest.mark.parametrize("after_ms", [0, 500, 4_000, LATER_MS, 300_000])
@pytest.mark.parametrize("frozen_ms", FROZEN_MS)
def test_it_goes_on_and_the_ordinary_verdict_follows(
    monkeypatch: pytest.MonkeyPatch, frozen_ms: int, after_ms: int, fails: bool, with_journal: bool
) -> None:
    move, rig = left_stopped(monkeypatch, frozen_ms, fails=fails)
    judge(move, rig, recovered(rig, with_journal=with_journal, after_ms=after_ms))


@pytest.mark.rule("R1")
@pytest.mark.parametrize(("after_ms", "fails"), [(0, False), (LATER_MS, True)])
def test_the_first_look_lets_it_go_on_and_says_so(monkeypatch: pytest.MonkeyPatch, after_ms: int, fails: bool) -> None:
    _, rig = left_stopped(monkeypatch, 10_000, fails=fails)
    rig.recover(after_ms=after_ms)
    told = [kind for kind in rig.kinds() if kind in (Kind.SOURCE_GOES_ON, Kind.EVIDENCE_SEEN)]
    assert told[0] is Kind.SOURCE_GOES_ON
    assert told.count(Kind.SOURCE_GOES_ON) == 1


@pytest.mark.rule("R1")
def test_what_nobody_lets_go_on_stands_until_somebody_does(monkeypatch: pytest.MonkeyPatch) -> None:
    move, rig = left_stopped(monkeypatch, 10_000, fails=True)
    with monkeypatch.context() as patched:
        patched.setattr(Ending, "go_on", lambda *_: None)
        outcome = rig.recover(after_ms=LATER_MS)
    assert outcome.end is Phase.INDETERMINATE
    judge(move, rig, recovered(rig, with_journal=True, after_ms=0))
