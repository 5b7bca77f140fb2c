"""Forced take-overs behind a fence, and hosts that come back late: what has to come of them."""

from __future__ import annotations

from collections.abc import Callable

from refimpl.model.facts import VmState
from refimpl.model.phase import Phase
from tests.moves import Rig
from tests.property.scenario import AT_DESTINATION, Scenario, fault, faults, given
from tests.property.storage_scenarios import LOCAL, taken

KEPT = fault("not-ended", times=0)
"""A source whose process cannot be ended from outside: only its host can be."""
SILENT_AT_ARRIVAL = faults(KEPT, fault("host-freezes", host="a", during="arrived", for_ms=600_000))
SILENT_IN_MEMORY = fault("host-freezes", host="a", during="memory")
GONE_AFTER_COMMIT = fault("host-dies", host="b", during="bound")
FORCED = {"ended": Phase.INDETERMINATE, "force": True}


def comes_back(state: VmState, host: str = "a") -> Callable[[Rig], None]:
    """The host that was silent answers again, and has its copy of the VM in that state."""

    def back(rig: Rig) -> None:
        rig.world.bring_back(host)
        copy = rig.world.copy(host, "web")
        assert copy is not None
        if state is VmState.RUNNING:
            rig.world.run(copy, by_force=True)
        assert copy.state is state

    return back


FENCE_SCENARIOS: dict[str, Scenario] = {
    "forced: the source stood still until it was cut off": Scenario(
        "reconcile committed reconcile cleanup completed-with-warnings",
        {"a": "off", "b": "running"},
        SILENT_AT_ARRIVAL,
        problem="fence.done",
        also=given("fence", 1),
        **FORCED,
    ),
    "forced: the source is not cut off": Scenario(
        "reconcile indeterminate",
        {"a": "paused", "b": "paused"},
        faults(SILENT_AT_ARRIVAL, fault("fence-fails", times=0)),
        problem="fence.failed",
        also=lambda rig: given("fence", 1)(rig) and given("record-commit", 0)(rig) and given("settle-source", 0)(rig),
        **FORCED,
    ),
    "not forced: nothing is cut off": Scenario(
        "reconcile indeterminate",
        {"a": "paused", "b": "paused"},
        SILENT_AT_ARRIVAL,
        problem="owner.unknown",
        ended=Phase.INDETERMINATE,
        also=given("fence", 0),
    ),
    "forced: the source answers again by then": Scenario(
        "reconcile switch committed reconcile cleanup completed-with-warnings",
        AT_DESTINATION,
        SILENT_AT_ARRIVAL,
        between=lambda rig: rig.world.bring_back("a"),
        also=given("fence", 0),
        **FORCED,
    ),
    "forced: all of the memory was at the source": Scenario(
        "reconcile settling lost",
        {"a": "off", "b": "off"},
        SILENT_IN_MEMORY,
        problem="owner.lost",
        also=lambda rig: [record.owner for record in rig.store.owners()] == ["b"],
        **FORCED,
    ),
    "forced: the destination had taken the VM over": Scenario(
        "reconcile settling lost",
        {"a": "off", "b": "off"},
        GONE_AFTER_COMMIT,
        problem="owner.lost",
        also=lambda rig: [record.owner for record in rig.store.owners()] == ["a"],
        **FORCED,
    ),
    "forced, with disks that moved: what was let run there died, and its disks are the newer ones": Scenario(
        "reconcile committed reconcile settling lost",
        {"a": "off", "b": "off"},
        faults(SILENT_AT_ARRIVAL, fault("destination-dies", during="ran")) | LOCAL,
        taken(),
        problem="owner.lost",
        also=lambda rig: [record.owner for record in rig.store.owners()] == ["b"],
        **FORCED,
    ),
    "lost by force, and the host comes back": Scenario(
        "settling lost",
        {"a": "off", "b": "off"},
        SILENT_IN_MEMORY,
        problem="owner.lost",
        then=(comes_back(VmState.OFF),),
        **FORCED,
    ),
    "taken over by force, and the host comes back with its definition": Scenario(
        "cleanup completed-with-warnings",
        AT_DESTINATION,
        SILENT_AT_ARRIVAL,
        then=(comes_back(VmState.OFF),),
        problem="fence.done",
        **FORCED,
    ),
    "taken over by force, and the host comes back and runs its copy": Scenario(
        "cleanup settling dual-run",
        AT_DESTINATION,
        SILENT_AT_ARRIVAL,
        then=(comes_back(VmState.RUNNING),),
        problem="owner.dual_run",
        **FORCED,
    ),
    "two copies ran, and something is left of it": Scenario(
        "settling dual-run",
        AT_DESTINATION,
        faults(fault("both-run", during="arrived"), fault("leaves-behind", host="a")),
        ended=Phase.DUAL_RUN,
        problem="owner.dual_run",
    ),
    "a silent source was ended by its process, and its host comes back": Scenario(
        "cleanup completed-with-warnings",
        AT_DESTINATION,
        fault("host-freezes", host="a", during="arrived", for_ms=200_000),
        ended=Phase.COMPLETED_WITH_WARNINGS,
        between=comes_back(VmState.OFF),
        problem="source.ended",
    ),
}
