"""Moves whose end is in doubt: VMs that are lost, that ran twice, or that need a person."""

from __future__ import annotations

from refimpl.model.events import Kind
from refimpl.model.phase import Phase
from tests.moves import Rig
from tests.property.scenario import (
    AT_DESTINATION,
    AT_SOURCE,
    BOTH_RUN,
    COMMIT,
    SOURCE_DIES,
    Scenario,
    fault,
    faults,
    given,
    hangs,
    looked_at_once,
    within_s,
)

NO_B_AFTER_COMMIT = fault("host-dies", host="b", during="bound")

DOUBTFUL_SCENARIOS: dict[str, Scenario] = {
    "the source dies": Scenario(
        "check setup memory reconcile settling lost",
        {"a": "off"},
        SOURCE_DIES,
        problem="owner.lost",
        also=looked_at_once,
    ),
    "the source dies before its memory is read": Scenario(
        "check setup reconcile settling lost",
        {"a": "off"},
        fault("source-dies", during="start"),
        problem="owner.lost",
        also=looked_at_once,
    ),
    "the guest switches itself off as soon as it runs there": Scenario(
        "check setup memory switch committed reconcile cleanup completed-with-warnings",
        {"b": "off"},
        fault("guest-powers-off", during="ran"),
        problem="vm.off_there",
    ),
    "the destination dies with all that had arrived": Scenario(
        "check setup memory switch reconcile settling lost",
        {"b": "off"},
        fault("destination-dies", during="bound"),
        problem="owner.lost",
    ),
    "the source's host is silent for a while": Scenario(
        "check setup memory switch reconcile undoing failed",
        world=faults(
            hangs("look-for-binding"),
            fault("not-ended", times=0),
            fault("host-freezes", host="a", during="bound", for_ms=8_000),
        ),
        problem="transfer.failed",
        also=lambda rig: Kind.HOST_SILENT in rig.kinds() and Kind.SOURCE_NOT_ENDED in rig.kinds(),
    ),
    "the source's system is silent at the arrival": Scenario(
        COMMIT + "-with-warnings",
        {"a": "off", "b": "running"},
        fault("host-freezes", host="a", during="arrived", for_ms=200_000),
        deadlines=("committed",),
        problem="source.ended",
        also=lambda rig: given("end-source", 1)(rig) and within_s(2)(rig),
    ),
    "the source's system is silent at the arrival, and back afterwards": Scenario(
        COMMIT + "-with-warnings",
        AT_DESTINATION,
        fault("host-freezes", host="a", during="arrived", for_ms=3_000),
        problem="source.ended",
    ),
    "the source's system is silent at the arrival for less than a second": Scenario(
        COMMIT,
        AT_DESTINATION,
        fault("host-freezes", host="a", during="arrived", for_ms=900),
        also=given("end-source", 0),
    ),
    "the source's system is silent, seen by the evidence": Scenario(
        "check setup memory switch reconcile committed reconcile cleanup completed-with-warnings",
        {"a": "off", "b": "running"},
        faults(hangs("look-for-binding"), fault("host-freezes", host="a", during="bound", for_ms=200_000)),
        problem="source.ended",
        also=given("end-source", 1),
    ),
    "a delegated destination runs and dies, and its source goes on": Scenario(
        "check setup memory switch reconcile settling lost",
        {"b": "off"},
        {"hand_over": "delegated"} | fault("destination-dies", during="ran"),
        problem="owner.lost",
    ),
    "a delegated destination runs and dies, and its controller has not kept that it heard of it": Scenario(
        "reconcile undoing failed",
        AT_SOURCE,
        {"hand_over": "delegated"} | fault("destination-dies", during="ran"),
        kill_at=Kind.DESTINATION_RAN,
        after_ms=10_000,
        problem="hand_over.may_have_run",
    ),
    "a delegated destination runs and its host dies, and its source goes on": Scenario(
        "reconcile settling lost",
        {"b": "off"},
        {"hand_over": "delegated"} | fault("host-dies", host="b", during="ran", for_ms=60_000),
        ended=Phase.INDETERMINATE,
        after_ms=120_000,
        problem="owner.lost",
    ),
    "both ran": Scenario(
        "check setup memory switch reconcile settling dual-run", AT_DESTINATION, BOTH_RUN, problem="owner.dual_run"
    ),
    "the destination dies after commit": Scenario(
        "check setup memory switch reconcile indeterminate",
        {"b": "off"},
        NO_B_AFTER_COMMIT,
        problem="owner.unknown",
    ),
    "nothing can be seen": Scenario(
        "check setup memory switch committed reconcile indeterminate",
        AT_DESTINATION,
        hangs("inspect", 0),
        deadlines=("reconcile",),
    ),
    "undoing fails": Scenario(
        "check setup undoing indeterminate",
        world=faults(fault("prepare-fails"), fault("settle-fails")),
        problem="settle.failed",
    ),
    "undoing hangs": Scenario(
        "check setup undoing indeterminate",
        world=faults(fault("prepare-fails"), hangs("settle-source")),
        deadlines=("undoing",),
    ),
    "settling fails": Scenario(
        "check setup memory reconcile settling indeterminate",
        {"a": "off"},
        faults(SOURCE_DIES, fault("settle-fails")),
        problem="settle.failed",
    ),
    "settling hangs": Scenario(
        "check setup memory reconcile settling indeterminate",
        {"a": "off"},
        faults(SOURCE_DIES, hangs("settle-source")),
        deadlines=("settling",),
    ),
    "clean-up fails": Scenario(
        "check setup memory switch committed reconcile cleanup indeterminate",
        AT_DESTINATION,
        fault("settle-fails"),
        problem="settle.failed",
    ),
    "clean-up hangs": Scenario(
        "check setup memory switch committed reconcile cleanup indeterminate",
        AT_DESTINATION,
        hangs("settle-destination"),
        deadlines=("cleanup",),
    ),
    # the owner record
    "the owner record cannot be written before anything is touched": Scenario(
        "check setup refused",
        happens=(Kind.CLAIMED, lambda rig: setattr(rig.store, "down", True)),
        problem="store.failed",
    ),
    "the owner record cannot be written at the commit": Scenario(
        COMMIT + "-with-warnings",
        AT_DESTINATION,
        happens=(Phase.SWITCH, lambda rig: setattr(rig.store, "down", True)),
        problem="store.failed",
    ),
    "taken over before the commit": Scenario(
        "check setup memory switch committed indeterminate",
        {"a": "paused", "b": "paused"},
        happens=(Phase.SWITCH, Rig.overtake),
        problem="owner.superseded",
    ),
    "taken over before the roll-back": Scenario(
        "check setup undoing indeterminate",
        {"a": "running"},
        fault("prepare-fails"),
        happens=(Kind.PENDING_RECORDED, Rig.overtake),
        problem="owner.superseded",
    ),
    "taken over before a lost VM is settled": Scenario(
        "check setup memory reconcile settling indeterminate",
        {"a": "off"},
        SOURCE_DIES,
        happens=(Phase.MEMORY, Rig.overtake),
        problem="owner.superseded",
    ),
    "taken over after it ran": Scenario(
        "check setup memory switch committed reconcile cleanup indeterminate",
        AT_DESTINATION,
        happens=(Kind.DESTINATION_RAN, Rig.overtake),
        problem="owner.superseded",
    ),
}
