"""Moves and what has to come of them: every row of the table is on the way of at least one."""

from __future__ import annotations

from refimpl.model.events import Kind
from refimpl.model.phase import Phase
from tests.property.doubtful_scenarios import DOUBTFUL_SCENARIOS
from tests.property.fence_scenarios import FENCE_SCENARIOS
from tests.property.post_copy_scenarios import POST_COPY_SCENARIOS
from tests.property.recovery_scenarios import RECOVERY_SCENARIOS
from tests.property.scenario import (
    AT_DESTINATION,
    BOTH_RUN,
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
)
from tests.property.storage_scenarios import STORAGE_SCENARIOS

TWO_NETWORKS = {
    "networks": {"fast": {"priority": 1}, "slow": {"priority": 2}},
    "hosts": {
        h: {"memory_mib": 2048, "networks": {"fast": f"192.0.2.{n}", "slow": f"198.51.100.{n}"}}
        for n, h in enumerate("ab", 1)
    },
}
SELDOM = {"latency_ms": {"progress": 5_000}}
STALLS = SELDOM | fault("stalls", during="memory")
LIES = fault("call-lies", during="memory")

SCENARIOS: dict[str, Scenario] = {
    **STORAGE_SCENARIOS,
    **DOUBTFUL_SCENARIOS,
    **FENCE_SCENARIOS,
    **POST_COPY_SCENARIOS,
    **RECOVERY_SCENARIOS,
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
}
