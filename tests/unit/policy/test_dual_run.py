"""Two copies that were seen to run are remembered: no later look, and no recovery, makes a good end of that."""

from __future__ import annotations

import json

import pytest

from refimpl.model.events import Event, Kind
from refimpl.model.facts import VmState
from refimpl.model.learning import record
from refimpl.model.ledger import Ledger
from refimpl.model.phase import Phase
from refimpl.policy.reconciliation import reconcile
from tests.builders import destination, event, evidence, ledger, source


def verdict(known: Ledger, look: Event) -> Kind | None:
    made = reconcile(known, look)
    return made.kind if made else None


@pytest.mark.rule("R1")
@pytest.mark.error("owner.dual_run")
@pytest.mark.parametrize("recovered", [False, True])
def test_once_two_copies_ran_the_verdict_stays(recovered: bool) -> None:
    both = evidence(source(), destination(VmState.RUNNING))
    assert verdict(ledger(), both) is Kind.BOTH_RAN
    known = record(ledger(), event(Kind.BOTH_RAN, why="running at both"), Phase.RECONCILE)
    assert [p.id for p in known.problems] == ["owner.dual_run"]
    if recovered:
        known = record(
            Ledger.from_json(json.loads(json.dumps(known.to_json()))), event(Kind.LOOK_AGAIN), Phase.SETTLING
        )
    one = evidence(source(VmState.ABSENT), destination(VmState.RUNNING))
    assert verdict(ledger(), one) is Kind.DESTINATION_OWNS
    assert verdict(known, one) is Kind.BOTH_RAN
