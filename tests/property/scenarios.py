"""Moves and what has to come of them: every row of the table is on the way of at least one."""

from __future__ import annotations

from refimpl.model.events import Kind
from refimpl.model.phase import Phase
from tests.moves import Rig
from tests.property.fence_scenarios import FENCE_SCENARIOS
from tests.property.post_copy_scenarios import POST_COPY_SCENARIOS
from tests.property.scenario import (
    AT_DESTINATION,
    AT_SOURCE,
    COMMIT,
    Scenario,
    broken_off_first,
    fault,
    faults,
    given,
    hangs,
    looked_at_once,
    started_by_host,
    stays_paused,
    took_longer_than_s,
    within_s,
)
from tests.property.storage_scenarios import STORAGE_SCENARIOS

TWO_NETWORKS = {
    "networks": {"fast": {"priority": 1}, "slow": {"priority": 2}},
    "hosts": {
        h: {"memory_mib": 2048, "networks": {"fast": f"192.0.2.{n}", "slow": f"198.51.100.{n}"}}
        for n, h in enumerate("ab", 1)
    },
}
NO_B_AFTER_COMMIT = fault("host-dies", host="b", during="bound")
SOURCE_DIES = fault("source-dies", during="memory")
BOTH_RUN = fault("both-run", during="arrived")
SELDOM = {"latency_ms": {"progress": 5_000}}
STALLS = SELDOM | fault("stalls", during="memory")
SELDOM = {"latency_ms": {"progress": 5_000}}
STALLS = SELDOM | fault("stalls", during="memory")
LIES = fault("call-lies", during="memory")

SCENARIOS: dict[str, Scenario] = {
    **STORAGE_SCENARIOS,
    **FENCE_SCENARIOS,
    **POST_COPY_SCENARIOS,
    # the way through
    "moved": Scenario(COMMIT, AT_DESTINATION, also=given("settle-destination", 1)),
    "moved, memory not shown": Scenario(
        "check setup switch committed reconcile cleanup completed", AT_DESTINATION, {"hidden": ["memory-seen"]}
    ),
    "moved, switch not shown": Scenario(COMMIT, AT_DESTINATION, {"hidden": ["switch-seen"]}),
    "moved, only the arrival shown": Scenario(
        "check setup switch committed reconcile cleanup completed",
        AT_DESTINATION,
        {"hidden": ["memory-seen", "switch-seen"]},
    ),
    "moved, nothing shown": Scenario(
        "check setup reconcile cleanup completed",
        AT_DESTINATION,
        {"hidden": ["memory-seen", "switch-seen"], "hand_over": "delegated"},
    ),
    "moved, delegated": Scenario(
        "check setup memory switch reconcile cleanup completed", AT_DESTINATION, {"hand_over": "delegated"}
    ),
    "moved, the call lies": Scenario(COMMIT, AT_DESTINATION, LIES),
    "moved though it never converges": Scenario(
        COMMIT, AT_DESTINATION, {"dirty": 900_000_000}, also=given("steer-switch", 1)
    ),
    "moved over the second network": Scenario(
        COMMIT,
        AT_DESTINATION,
        TWO_NETWORKS | fault("no-connection", network="fast"),
        also=given("prepare", 2),
    ),
    "something left behind": Scenario(
        COMMIT + "-with-warnings", AT_DESTINATION, fault("leaves-behind", host="a"), problem="cleanup.left_behind"
    ),
    "run refused once": Scenario(
        "check setup memory switch committed reconcile committed reconcile cleanup completed",
        AT_DESTINATION,
        fault("run-refused"),
        also=looked_at_once,
    ),
    "no answer to the permission to run": Scenario(
        "check setup memory switch committed reconcile committed reconcile cleanup completed-with-warnings",
        AT_DESTINATION,
        faults(hangs("allow-run"), hangs("start-transfer")),
        deadlines=("committed",),
        problem="blackout.unexpected",
    ),
    "binding not shown, the call hangs": Scenario(
        "check setup memory switch reconcile committed reconcile cleanup completed-with-warnings",
        AT_DESTINATION,
        faults(hangs("look-for-binding"), hangs("start-transfer")),
        deadlines=("switch",),
        problem="blackout.unexpected",
    ),
    "binding not shown": Scenario(
        "check setup memory switch reconcile committed reconcile cleanup completed",
        AT_DESTINATION,
        hangs("look-for-binding"),
    ),
    "the switch takes longer than its deadline": Scenario(
        "check setup memory switch reconcile switch committed reconcile cleanup completed-with-warnings",
        AT_DESTINATION,
        {"dirty": 900_000_000, "networks": {"migration": {"bytes_s": 2_500_000}}},
        {"pass_limit": 1},
        deadlines=("switch",),
        problem="blackout.unexpected",
    ),
    "the source's process ends after the arrival": Scenario(
        "check setup memory switch reconcile committed reconcile cleanup completed",
        AT_DESTINATION,
        fault("source-dies", during="arrived"),
        also=looked_at_once,
    ),
    "a slower link is asked for in set-up": Scenario(
        COMMIT,
        AT_DESTINATION,
        {"dirty": 0},
        bandwidth_at=Kind.PREPARED,
        also=lambda rig: given("steer-bandwidth", 1)(rig) and took_longer_than_s(10)(rig),
    ),
    "a slower link is asked for in memory": Scenario(
        COMMIT,
        AT_DESTINATION,
        {"dirty": 0},
        bandwidth_at=Phase.MEMORY,
        also=lambda rig: given("steer-bandwidth", 1)(rig) and took_longer_than_s(10)(rig),
    ),
    "a slower link is asked for, killed before it is": Scenario(
        "reconcile memory switch committed reconcile cleanup completed",
        AT_DESTINATION,
        {"dirty": 0},
        bandwidth_at=Phase.MEMORY,
        kill_at="intended:steer-bandwidth",
        also=lambda rig: given("steer-bandwidth", 1)(rig) and took_longer_than_s(10)(rig),
    ),
    "a slower link is asked for too late": Scenario(
        COMMIT, AT_DESTINATION, bandwidth_at=Phase.SWITCH, also=given("steer-bandwidth", 0)
    ),
    "what is left would take too long": Scenario(
        "check setup memory reconcile undoing cancelled",
        world={"dirty": 900_000_000},
        request={"cancel_if_blackout_exceeds_ms": 500, "pass_limit": 3},
        problem="blackout.too_long",
        also=lambda rig: given("steer-switch", 0)(rig) and given("request-cancel", 1)(rig),
    ),
    "what is left would take too long, killed before the cancel": Scenario(
        "reconcile memory reconcile undoing cancelled",
        world={"dirty": 900_000_000},
        request={"cancel_if_blackout_exceeds_ms": 500, "pass_limit": 3},
        kill_at="intended:request-cancel",
        problem="blackout.too_long",
        also=given("request-cancel", 1),
    ),
    "what is left would take too long, and the cancel is carried out at the second request": Scenario(
        "check setup memory reconcile undoing cancelled",
        world={"dirty": 900_000_000} | fault("cancel-late"),
        request={"cancel_if_blackout_exceeds_ms": 500, "pass_limit": 3},
        problem="blackout.too_long",
        also=lambda rig: given("steer-switch", 0)(rig) and given("request-cancel", 2)(rig),
    ),
    "what is left would take too long, and no cancel is carried out": Scenario(
        "check setup memory indeterminate",
        {"a": "running", "b": "planned"},
        {"dirty": 900_000_000} | fault("cancel-late", times=0),
        {"cancel_if_blackout_exceeds_ms": 500, "pass_limit": 3},
        problem="owner.unknown",
        also=given("request-cancel", 4),
    ),
    "what is left is allowed": Scenario(
        COMMIT,
        AT_DESTINATION,
        {"dirty": 900_000_000},
        {"cancel_if_blackout_exceeds_ms": 5_000, "pass_limit": 3},
        also=given("steer-switch", 1),
    ),
    "what was left took longer than was allowed": Scenario(
        COMMIT + "-with-warnings",
        AT_DESTINATION,
        {"dirty": 900_000_000, "latency_ms": {"device": 6_000}},
        {"cancel_if_blackout_exceeds_ms": 5_000, "pass_limit": 3},
        problem="blackout.unexpected",
    ),
    "the destination's lock daemon ends in set-up": Scenario(
        "check setup reconcile undoing failed",
        world=fault("lock-daemon-dies", host="b", during="prepare"),
        problem="lease.unsafe",
        also=given("request-cancel", 1),
    ),
    "the destination's lock daemon ends in memory": Scenario(
        "check setup memory reconcile undoing failed",
        world=fault("lock-daemon-dies", host="b", during="memory"),
        problem="lease.unsafe",
        also=given("request-cancel", 1),
    ),
    "the destination's lock daemon ends in memory, killed before the cancel": Scenario(
        "reconcile memory reconcile undoing failed",
        world=fault("lock-daemon-dies", host="b", during="memory"),
        kill_at="intended:request-cancel",
        problem="lease.unsafe",
        also=given("request-cancel", 1),
    ),
    "the destination's lock daemon ends when its copy has been let run": Scenario(
        COMMIT + "-with-warnings",
        AT_DESTINATION,
        fault("lock-daemon-dies", host="b", during="ran"),
        problem="lease.not_taken",
        also=given("request-cancel", 0),
    ),
    "the destination's lock daemon ends in the switch: a person has to mend it": Scenario(
        "check setup memory switch committed reconcile committed reconcile committed reconcile indeterminate",
        {"a": "paused", "b": "paused"},
        fault("lock-daemon-dies", host="b", during="switch"),
        problem="lease.lost",
        also=given("request-cancel", 0),
    ),
    "the destination's lock daemon ended in the switch, then mended and recovered": Scenario(
        "reconcile committed reconcile cleanup completed-with-warnings",
        AT_DESTINATION,
        fault("lock-daemon-dies", host="b", during="switch", for_ms=60_000),
        ended=Phase.INDETERMINATE,
        after_ms=120_000,
        problem="lease.lost",
    ),
    "the source's lock daemon ends in memory": Scenario(
        COMMIT + "-with-warnings",
        AT_DESTINATION,
        fault("lock-daemon-dies", host="a", during="memory"),
        problem="lease.lost",
        also=given("request-cancel", 0),
    ),
    "the source's lock daemon ends in memory, delegated": Scenario(
        "check setup memory reconcile undoing failed",
        world={"hand_over": "delegated"} | fault("lock-daemon-dies", host="a", during="memory"),
        problem="lease.not_taken",
        also=given("request-cancel", 1),
    ),
    "the source's lock daemon has ended, and a cancel is too late": Scenario(
        "check setup memory switch reconcile cleanup completed-with-warnings",
        AT_DESTINATION,
        {"hand_over": "delegated"} | fault("lock-daemon-dies", host="a", during="switch"),
        problem="lease.lost",
        also=given("request-cancel", 0),
    ),
    "a VM that its host starts by itself": Scenario(
        COMMIT + "-with-warnings",
        AT_DESTINATION,
        {"autostart": True},
        problem="vm.autostart",
        also=lambda rig: started_by_host(rig) == [],
    ),
    "a VM that its host starts by itself stays": Scenario(
        "check setup memory reconcile undoing cancelled",
        world={"autostart": True},
        cancel_at=Phase.MEMORY,
        also=lambda rig: started_by_host(rig) == ["a"],
    ),
    "a VM that its host starts by itself stays, killed in between": Scenario(
        "reconcile undoing failed",
        world={"autostart": True} | fault("link-drops", network="migration", during="memory"),
        kill_at="given:settle-source",
        also=lambda rig: started_by_host(rig) == ["a"],
    ),
    "a paused VM": Scenario(COMMIT, {"b": "paused"}, {"state": "paused"}, also=stays_paused),
    "a paused VM, delegated": Scenario(
        "check setup memory switch reconcile cleanup completed",
        {"b": "paused"},
        {"state": "paused", "hand_over": "delegated"},
        also=stays_paused,
    ),
    "a paused VM, killed when committed": Scenario(
        "reconcile cleanup completed",
        {"b": "paused"},
        {"state": "paused"},
        kill_at="given:adopt",
        after_ms=3_600_000,
    ),
    "a paused VM, the link drops": Scenario(
        "check setup memory reconcile undoing failed",
        {"a": "paused"},
        {"state": "paused"} | fault("link-drops", network="migration", during="memory"),
        problem="transfer.failed",
    ),
    "a VM that is off": Scenario(
        "check setup reconcile cleanup completed", {"b": "off"}, {"state": "off"}, also=given("allow-run", 0)
    ),
    "a VM that is off, the call fails": Scenario(
        "check setup reconcile undoing failed",
        {"a": "off"},
        {"state": "off"} | fault("call-fails", during="start"),
        problem="transfer.failed",
    ),
    # refused
    "destination is the source": Scenario("check refused", request={"destination": "a"}, problem="host.same"),
    "no facts": Scenario("check refused", world=hangs("probe"), deadlines=("check",), problem="check.timeout"),
    "another has the VM": Scenario("check setup refused", claimed=True, problem="vm.migrating"),
    "the destination goes down between the check and the claim": Scenario(
        "check setup refused", world=fault("host-dies", host="b", at_s=0.003), problem="host.down"
    ),
    "no network connects": Scenario(
        "check setup undoing refused",
        world=fault("no-connection", network="migration", times=0),
        problem="network.no_connection",
    ),
    "refused by the system": Scenario(
        "check setup undoing refused", world=fault("native-refusal"), problem="transfer.refused"
    ),
    # failed
    "prepare fails": Scenario("check setup undoing failed", world=fault("prepare-fails"), problem="prepare.failed"),
    "prepare hangs": Scenario("check setup reconcile undoing failed", world=hangs("prepare"), deadlines=("setup",)),
    "the link drops": Scenario(
        "check setup memory reconcile undoing failed",
        world=fault("link-drops", network="migration", during="memory"),
        problem="transfer.failed",
    ),
    "fails at the switch": Scenario(
        "check setup memory switch reconcile undoing failed",
        world=fault("call-fails", during="switch"),
        problem="transfer.failed",
    ),
    "the destination freezes at the arrival": Scenario(
        "check setup memory switch reconcile undoing failed",
        {"a": "running", "b": "paused"},
        fault("host-freezes", host="b", during="arrived"),
        problem="transfer.failed",
    ),
    "the guest switches itself off": Scenario(
        "check setup memory reconcile undoing failed",
        {"a": "off"},
        fault("guest-powers-off", during="memory"),
        problem="guest.ended",
    ),
    # cancelled
    "cancelled before it began": Scenario("cancelled", cancel_at=Phase.NEW),
    "cancelled in check": Scenario("check cancelled", cancel_at=Phase.CHECK),
    "cancelled in set-up": Scenario("check setup undoing cancelled", cancel_at=Kind.CLAIMED),
    "nothing is sent any more": Scenario(
        "check setup memory reconcile memory reconcile undoing failed",
        world=STALLS,
        deadlines=("memory",),
        problem="transfer.stalled",
        also=broken_off_first,
    ),
    "nothing is sent any more and it does not end": Scenario(
        "check setup memory reconcile memory reconcile memory reconcile indeterminate",
        {"a": "running", "b": "planned"},
        SELDOM | faults(STALLS, hangs("request-cancel", 0)),
        deadlines=("memory",) * 3,
        problem="owner.unknown",
    ),
    "nothing is sent any more, and the call never returns": Scenario(
        "check setup memory reconcile memory reconcile undoing failed",
        world=SELDOM | faults(STALLS, hangs("start-transfer")),
        deadlines=("memory",) * 2,
        problem="transfer.stalled",
    ),
    "cancelled while nothing is sent any more": Scenario(
        "check setup memory reconcile undoing cancelled", world=STALLS, cancel_at=Phase.MEMORY
    ),
    "a slow transfer is no stalled one": Scenario(
        COMMIT,
        AT_DESTINATION,
        SELDOM | {"dirty": 0, "networks": {"migration": {"bytes_s": 1_000_000}}},
        also=took_longer_than_s(120),
    ),
    "cancelled in memory": Scenario("check setup memory reconcile undoing cancelled", cancel_at=Phase.MEMORY),
    "cancelled in memory, and completed all the same": Scenario(
        COMMIT + "-with-warnings",
        AT_DESTINATION,
        fault("cancel-late"),
        cancel_at=Phase.MEMORY,
        problem="cancel.too_late",
    ),
    "cancel in the switch, memory not shown": Scenario(
        "check setup switch committed reconcile cleanup completed-with-warnings",
        AT_DESTINATION,
        {"hidden": ["memory-seen"]},
        cancel_at=Kind.SWITCH_SEEN,
        also=given("request-cancel", 0),
    ),
    "cancel in the switch": Scenario(COMMIT + "-with-warnings", AT_DESTINATION, cancel_at=Phase.SWITCH),
    "cancel when committed": Scenario(COMMIT + "-with-warnings", AT_DESTINATION, cancel_at=Phase.COMMITTED),
    "cancel in reconcile": Scenario(COMMIT + "-with-warnings", AT_DESTINATION, cancel_at=Phase.RECONCILE),
    "cancel in clean-up": Scenario(COMMIT + "-with-warnings", AT_DESTINATION, cancel_at=Phase.CLEANUP),
    "cancel in undoing": Scenario("check setup undoing failed", world=fault("prepare-fails"), cancel_at=Phase.UNDOING),
    "cancel in settling": Scenario(
        "check setup memory switch reconcile settling dual-run", AT_DESTINATION, BOTH_RUN, cancel_at=Phase.SETTLING
    ),
    # lost, two, and what needs a person
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
    # the controller killed, and recovered
    "killed before it began": Scenario("failed", kill_at="intended:probe"),
    "killed in check": Scenario("failed", kill_at=Kind.FACTS_SEEN),
    "killed before the claim": Scenario("failed", kill_at="intended:claim"),
    "killed right after the claim": Scenario("failed", kill_at="given:claim"),
    "killed before the claim, and moved on by another": Scenario(
        "failed",
        {"a": "off"},
        fault("guest-powers-off", at_s=1.0),
        kill_at="intended:claim",
        after_ms=3_600_000,
        problem="operation.interrupted",
    ),
    "killed in set-up": Scenario("reconcile undoing failed", kill_at="given:prepare"),
    "killed in memory, seen at once": Scenario(
        "reconcile memory switch committed reconcile cleanup completed", AT_DESTINATION, kill_at="memory"
    ),
    "killed in memory, seen late": Scenario(
        "reconcile committed reconcile cleanup completed", AT_DESTINATION, kill_at="memory", after_ms=3_600_000
    ),
    "killed in the switch, seen at once": Scenario(
        "reconcile switch committed reconcile cleanup completed", AT_DESTINATION, kill_at="switch"
    ),
    "killed in the switch, seen late": Scenario(
        "reconcile committed reconcile cleanup completed", AT_DESTINATION, kill_at="switch", after_ms=3_600_000
    ),
    "killed in the switch, which a journal may say": Scenario(
        "reconcile switch committed reconcile cleanup completed",
        AT_DESTINATION,
        kill_at="switch",
        journal_says=Phase.SWITCH,
    ),
    "killed after the commit record": Scenario(
        "reconcile committed reconcile cleanup completed-with-warnings",
        AT_DESTINATION,
        kill_at="intended:allow-run",
        after_ms=3_600_000,
    ),
    "killed when committed": Scenario(
        "reconcile cleanup completed", AT_DESTINATION, kill_at="given:adopt", after_ms=3_600_000
    ),
    "killed in reconcile": Scenario("cleanup completed", AT_DESTINATION, kill_at=Kind.EVIDENCE_SEEN),
    "killed in the switch after a late cancel, which nothing keeps while the VM stands still": Scenario(
        "reconcile switch committed reconcile cleanup completed",
        AT_DESTINATION,
        cancel_at=Phase.SWITCH,
        kill_at="given:answer-too-late",
    ),
    "killed in undoing": Scenario(
        "reconcile undoing failed", world=fault("prepare-fails"), kill_at="given:settle-source"
    ),
    "killed in settling": Scenario("reconcile settling lost", {"a": "off"}, SOURCE_DIES, kill_at="given:settle-source"),
    "killed in clean-up": Scenario("reconcile cleanup completed", AT_DESTINATION, kill_at="given:clean-up-moved"),
    "journal gone in memory": Scenario(
        "reconcile memory switch committed reconcile cleanup completed",
        AT_DESTINATION,
        kill_at="memory",
        with_journal=False,
    ),
    "both ran, killed while it was settled": Scenario(
        "reconcile settling dual-run", AT_DESTINATION, BOTH_RUN, kill_at="given:clean-up", problem="owner.dual_run"
    ),
    "left behind, then tidied": Scenario(
        "cleanup completed",
        AT_DESTINATION,
        fault("leaves-behind", host="a"),
        ended=Phase.COMPLETED_WITH_WARNINGS,
        also=given("clean-up-moved", 1),
    ),
    "left behind by a failure, then tidied": Scenario(
        "undoing failed",
        world=faults(fault("prepare-fails"), fault("leaves-behind", host="a")),
        ended=Phase.FAILED,
        also=given("clean-up-undone", 1),
    ),
    "left behind by a refusal, then tidied": Scenario(
        "undoing refused",
        world=faults(fault("native-refusal"), fault("leaves-behind", host="a")),
        ended=Phase.REFUSED,
        also=given("clean-up-undone", 1),
    ),
    "left behind by a cancel, then tidied": Scenario(
        "undoing cancelled",
        world=fault("leaves-behind", host="a"),
        cancel_at=Phase.MEMORY,
        ended=Phase.CANCELLED,
        also=given("clean-up-undone", 1),
    ),
    "left behind by a VM that was lost, then tidied": Scenario(
        "settling lost",
        {"a": "off"},
        faults(SOURCE_DIES, fault("leaves-behind", host="a")),
        ended=Phase.LOST,
        problem="owner.lost",
        also=given("clean-up", 1),
    ),
    "left behind by two that ran, then tidied": Scenario(
        "settling dual-run",
        AT_DESTINATION,
        faults(BOTH_RUN, fault("leaves-behind", host="b")),
        ended=Phase.DUAL_RUN,
        problem="owner.dual_run",
        also=lambda rig: rig.commands() == ["settle-destination", "clean-up", "release"],
    ),
    "a person was needed, then recovered": Scenario(
        "reconcile undoing failed",
        world=faults(fault("prepare-fails"), fault("settle-fails")),
        ended=Phase.INDETERMINATE,
    ),
}
