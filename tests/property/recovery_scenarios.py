"""Controllers that are killed, or left something behind, and what has to come of their recovery."""

from __future__ import annotations

from refimpl.model.events import Kind
from refimpl.model.phase import Phase
from tests.property.scenario import (
    AT_DESTINATION,
    BOTH_RUN,
    SOURCE_DIES,
    Scenario,
    fault,
    faults,
    given,
)

RECOVERY_SCENARIOS: dict[str, Scenario] = {
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
