"""The claim on a VM is held from before anything is touched until all is in order: no second move comes between."""

from __future__ import annotations

from typing import Any

import pytest

from refimpl.engine.store import Claim, MemoryStore
from refimpl.model.errors import Problem
from refimpl.model.events import Event, Kind
from refimpl.model.phase import Phase
from refimpl.model.request import CommandKind as C
from tests.builders import SETTINGS, event, plan
from tests.scripted import HAPPY, IDENTITY, STAYED, Run

SECOND = Claim("ffffffff", "/home/two", IDENTITY.process, plan())
TOUCHING = frozenset(C) - {C.PROBE, C.CLAIM, C.RELEASE}
FAILS: dict[str, Any] = {
    "PREPARE": [event(Kind.PREPARE_FAILED, problem=Problem("prepare.failed"))],
    "INSPECT": [event(Kind.EVIDENCE_SEEN, evidence=STAYED)],
}


@pytest.mark.rule("R10")
@pytest.mark.parametrize("changes", [{}, FAILS], ids=["moved", "failed"])
def test_a_second_move_is_refused_at_whatever_moment_it_comes(changes: dict[str, Any]) -> None:
    store, refused = MemoryStore(SETTINGS), {}
    script = {kind.name: answer for kind, answer in HAPPY.items()} | changes

    def tries(command: C) -> Any:
        """Try to claim the VM for a second move before the command is answered."""

        def answer() -> list[Event]:
            standing = store.claim(SECOND)
            if standing is None:
                store.release(plan().vm_id, SECOND.operation)
            refused[command] = standing is not None
            return list(script[command.name])

        return answer

    run = Run(store=store, **{name: tries(C[name]) for name in script})
    end = run.conductor.start().end
    assert end is (Phase.FAILED if changes else Phase.COMPLETED)
    assert {C.CLEAN_UP_MOVED, C.CLEAN_UP_UNDONE} & refused.keys()
    assert {command for command, so in refused.items() if not so} == {C.PROBE}
    assert store.claim(SECOND) is None, "and it comes when the first has ended"
