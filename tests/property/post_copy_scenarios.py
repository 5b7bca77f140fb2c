"""Moves that may use post-copy: rows P0 to P6, K7 and K8 of libvirt-qemu 3.3 and 3.4, and what comes between."""

from __future__ import annotations

from refimpl.model.events import Kind
from refimpl.model.phase import Phase
from refimpl.model.request import PostCopy
from tests.moves import Rig
from tests.property.scenario import (
    AT_DESTINATION,
    Scenario,
    fault,
    faults,
    given,
    hangs,
    took_longer_than_s,
)

ALLOWED = {"post_copy": PostCopy.ALLOWED}
ON_PASS_LIMIT = {"post_copy": PostCopy.ON_PASS_LIMIT, "pass_limit": 2}
WHOLE = "check setup memory switch post-copy reconcile cleanup completed"
PAUSED = "check setup memory switch post-copy reconcile post-copy-paused"
IN_HALVES = {"a": "paused", "b": "running"}
WRITES_MUCH = {"dirty": 900_000_000}
SLOW = {"networks": {"migration": {"bytes_s": 10_000_000}}, **WRITES_MUCH}
"""What is left when post-copy begins takes twenty seconds."""
BREAKS = WRITES_MUCH | fault("link-drops", network="migration", during="post-copy", for_ms=60_000)
STALLS = WRITES_MUCH | fault("stalls", during="post-copy")
SOURCE_DIES = WRITES_MUCH | fault("source-dies", during="post-copy")
BOTH_DIE = faults(fault("destination-dies", during="post-copy"), fault("source-dies", during="post-copy")) | WRITES_MUCH
DESTINATION_DIES = WRITES_MUCH | fault("destination-dies", during="post-copy")


def recorded_first(rig: Rig) -> bool:
    """The destination was the owner before post-copy was begun, and ran only after that."""
    kinds, commands = rig.kinds(), rig.commands()
    record = next(event["ownership"] for event in rig.events if event.kind is Kind.POSTCOPY_RECORDED)
    ran, recorded = kinds.index(Kind.DESTINATION_RAN), kinds.index(Kind.POSTCOPY_RECORDED)
    return (record.owner, record.pending) == ("b", None) and recorded < ran and "allow-run" not in commands


def taken_back(rig: Rig) -> bool:
    """What did not begin was recorded so: the source is the owner, the move pending."""
    records = [event["ownership"] for event in rig.events if event.kind is Kind.PENDING_RECORDED]
    return [(record.owner, record.pending) for record in records] == [("a", "b"), ("a", "b")]


def store_away(rig: Rig) -> None:
    rig.store.down = True


POST_COPY_SCENARIOS: dict[str, Scenario] = {
    # P0
    "post-copy, asked for": Scenario(
        WHOLE, AT_DESTINATION, WRITES_MUCH, ALLOWED, post_copy_at=Phase.MEMORY, also=recorded_first
    ),
    "post-copy, asked for in set-up": Scenario(
        WHOLE, AT_DESTINATION, WRITES_MUCH, ALLOWED, post_copy_at=Kind.CLAIMED, also=recorded_first
    ),
    "post-copy, at the pass limit": Scenario(
        WHOLE,
        AT_DESTINATION,
        WRITES_MUCH,
        ON_PASS_LIMIT,
        also=lambda rig: given("steer-switch", 0)(rig) and given("start-post-copy", 1)(rig),
    ),
    "post-copy, at the pass limit, in place of a cancel for too long a blackout": Scenario(
        WHOLE,
        AT_DESTINATION,
        WRITES_MUCH,
        ON_PASS_LIMIT | {"cancel_if_blackout_exceeds_ms": 500},
        also=given("request-cancel", 0),
    ),
    "post-copy, allowed and not asked for": Scenario(
        "check setup memory switch reconcile cleanup completed",
        AT_DESTINATION,
        WRITES_MUCH,
        ALLOWED,
        also=lambda rig: given("steer-switch", 1)(rig) and given("start-post-copy", 0)(rig),
    ),
    "post-copy, asked for and not allowed": Scenario(
        "check setup memory switch reconcile cleanup completed",
        AT_DESTINATION,
        WRITES_MUCH | {"hand_over": "delegated"},
        post_copy_at=Phase.MEMORY,
        also=given("start-post-copy", 0),
    ),
    "post-copy, switch not shown": Scenario(
        "check setup memory post-copy reconcile cleanup completed",
        AT_DESTINATION,
        WRITES_MUCH | {"hidden": ["switch-seen"]},
        ALLOWED,
        post_copy_at=Phase.MEMORY,
    ),
    "post-copy, a slower link is asked for": Scenario(
        WHOLE,
        AT_DESTINATION,
        WRITES_MUCH,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        bandwidth_at=Phase.POSTCOPY,
        also=lambda rig: given("steer-bandwidth", 1)(rig) and took_longer_than_s(8)(rig),
    ),
    "post-copy, a slower link is asked for, killed before it is": Scenario(
        "reconcile post-copy reconcile cleanup completed",
        AT_DESTINATION,
        WRITES_MUCH,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        bandwidth_at=Phase.POSTCOPY,
        kill_at="intended:steer-bandwidth",
        also=lambda rig: given("steer-bandwidth", 1)(rig) and took_longer_than_s(8)(rig),
    ),
    # P1a
    "post-copy, a cancel is too late": Scenario(
        WHOLE + "-with-warnings",
        AT_DESTINATION,
        WRITES_MUCH,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        cancel_at=Phase.POSTCOPY,
        problem="cancel.too_late",
        also=given("request-cancel", 0),
    ),
    # not begun
    "post-copy, not taken": Scenario(
        "check setup memory switch reconcile cleanup completed-with-warnings",
        AT_DESTINATION,
        WRITES_MUCH | fault("post-copy-refused"),
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        problem="post_copy.not_started",
        also=taken_back,
    ),
    "post-copy, not taken at the pass limit: the switch is forced": Scenario(
        "check setup memory switch reconcile cleanup completed-with-warnings",
        AT_DESTINATION,
        WRITES_MUCH | fault("post-copy-refused"),
        ON_PASS_LIMIT,
        problem="post_copy.not_started",
        also=lambda rig: taken_back(rig) and given("steer-switch", 1)(rig),
    ),
    "post-copy, not recorded and so not begun": Scenario(
        "check setup memory switch reconcile cleanup completed-with-warnings",
        AT_DESTINATION,
        WRITES_MUCH,
        ON_PASS_LIMIT,
        happens=(Phase.MEMORY, store_away),
        problem="post_copy.not_started",
        also=lambda rig: given("start-post-copy", 0)(rig) and given("steer-switch", 1)(rig),
    ),
    "post-copy, not begun once the lease is not safe": Scenario(
        "check setup memory reconcile undoing failed",
        world=WRITES_MUCH | fault("lock-daemon-dies", host="b", during="memory"),
        request=ALLOWED,
        post_copy_at=Kind.LEASE_UNSAFE,
        problem="lease.unsafe",
        also=given("start-post-copy", 0),
    ),
    "post-copy, killed between its record and its beginning": Scenario(
        "reconcile memory switch post-copy reconcile cleanup completed",
        AT_DESTINATION,
        WRITES_MUCH,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        kill_at="intended:start-post-copy",
    ),
    "post-copy, killed between its record and its beginning, then the link drops": Scenario(
        "reconcile undoing failed",
        world=WRITES_MUCH | fault("link-drops", network="migration", on_pass=1),
        request=ALLOWED,
        post_copy_at=Phase.MEMORY,
        kill_at="intended:start-post-copy",
        after_ms=3_600_000,
    ),
    # P1b, P4, N1: broken, and recovered
    "post-copy, the link drops": Scenario(
        PAUSED, IN_HALVES, BREAKS, ALLOWED, post_copy_at=Phase.MEMORY, problem="post_copy.paused"
    ),
    "post-copy, the link drops, and the call never returns": Scenario(
        PAUSED,
        IN_HALVES,
        faults(BREAKS, hangs("start-transfer")) | WRITES_MUCH,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        problem="post_copy.paused",
    ),
    "post-copy, the link drops, comes back and it is recovered": Scenario(
        "reconcile post-copy reconcile cleanup completed",
        AT_DESTINATION,
        BREAKS,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        ended=Phase.POSTCOPY_PAUSED,
        after_ms=90_000,
        also=lambda rig: given("recover-post-copy", 1)(rig) and given("steer-bandwidth", 1)(rig),
    ),
    "post-copy, recovered without a journal": Scenario(
        "reconcile post-copy reconcile cleanup completed",
        AT_DESTINATION,
        BREAKS,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        ended=Phase.POSTCOPY_PAUSED,
        after_ms=90_000,
        with_journal=False,
    ),
    "post-copy, recovered too early": Scenario(
        "reconcile post-copy reconcile post-copy-paused",
        IN_HALVES,
        BREAKS,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        ended=Phase.POSTCOPY_PAUSED,
        after_ms=1_000,
        problem="post_copy.not_resumed",
        also=given("recover-post-copy", 1),
    ),
    "post-copy, the resumption is refused": Scenario(
        "reconcile post-copy reconcile post-copy-paused",
        IN_HALVES,
        faults(BREAKS, fault("resume-refused")) | WRITES_MUCH,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        ended=Phase.POSTCOPY_PAUSED,
        after_ms=90_000,
        problem="post_copy.not_resumed",
    ),
    "post-copy, nothing is sent any more": Scenario(
        PAUSED,
        IN_HALVES,
        STALLS,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        deadlines=("post-copy",),
        problem="post_copy.paused",
    ),
    "post-copy, nothing is sent any more, and it is recovered": Scenario(
        "reconcile post-copy reconcile cleanup completed",
        AT_DESTINATION,
        STALLS,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        ended=Phase.POSTCOPY_PAUSED,
        also=given("recover-post-copy", 1),
    ),
    "post-copy, the destination cannot take the lease": Scenario(
        PAUSED,
        {"a": "paused", "b": "paused"},
        WRITES_MUCH | fault("lock-daemon-dies", host="b", during="switch", for_ms=60_000),
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        problem="lease.lost",
    ),
    "post-copy, the destination cannot take the lease, mended and recovered": Scenario(
        "reconcile post-copy reconcile cleanup completed-with-warnings",
        AT_DESTINATION,
        WRITES_MUCH | fault("lock-daemon-dies", host="b", during="switch", for_ms=60_000),
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        ended=Phase.POSTCOPY_PAUSED,
        after_ms=90_000,
        problem="lease.lost",
    ),
    # K7, K8
    "post-copy, the destination's daemon is away for a while": Scenario(
        "check setup memory switch post-copy reconcile post-copy reconcile cleanup completed",
        AT_DESTINATION,
        SLOW | fault("host-freezes", host="b", during="post-copy", for_ms=9_000),
        ALLOWED,
        post_copy_at=Phase.MEMORY,
    ),
    "post-copy, the source's daemon is away for a while": Scenario(
        "check setup memory switch post-copy reconcile post-copy reconcile cleanup completed",
        AT_DESTINATION,
        SLOW | fault("host-freezes", host="a", during="post-copy", for_ms=9_000),
        ALLOWED,
        post_copy_at=Phase.MEMORY,
    ),
    # P5, P6
    "post-copy, the source dies": Scenario(
        "check setup memory switch post-copy reconcile settling lost",
        {"a": "off"},
        SOURCE_DIES,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        problem="owner.lost",
        also=given("end-halves", 1),
    ),
    "post-copy, the destination dies": Scenario(
        "check setup memory switch post-copy reconcile settling lost",
        {"a": "off"},
        DESTINATION_DIES,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        problem="owner.lost",
        also=given("end-halves", 1),
    ),
    "post-copy, the source's host is switched off": Scenario(
        PAUSED,
        {"a": "off", "b": "running"},
        SLOW | fault("host-dies", host="a", during="post-copy"),
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        problem="post_copy.paused",
        also=given("end-halves", 0),
    ),
    "post-copy, the source's host is switched off, comes back and it is recovered": Scenario(
        "reconcile settling lost",
        {"a": "off"},
        SLOW | fault("host-dies", host="a", during="post-copy", for_ms=60_000),
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        ended=Phase.POSTCOPY_PAUSED,
        after_ms=90_000,
        problem="owner.lost",
    ),
    "post-copy, both die, and their hosts keep the job": Scenario(
        "reconcile post-copy reconcile settling lost",
        {"a": "off"},
        BOTH_DIE,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        kill_at=Kind.POSTCOPY_BROKEN,
        deadlines=("post-copy",),
        problem="owner.lost",
    ),
    "post-copy, the source dies, killed while that is settled": Scenario(
        "reconcile settling lost",
        {"a": "off"},
        SOURCE_DIES,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        kill_at="given:end-halves",
        problem="owner.lost",
    ),
    "post-copy, the source dies, and what is left cannot be settled": Scenario(
        "check setup memory switch post-copy reconcile settling indeterminate",
        {"a": "off", "b": "running"},
        faults(SOURCE_DIES, fault("settle-fails")) | WRITES_MUCH,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        problem="settle.failed",
    ),
    "post-copy, the source dies, and settling hangs": Scenario(
        "check setup memory switch post-copy reconcile settling indeterminate",
        {"a": "off", "b": "running"},
        faults(SOURCE_DIES, hangs("end-halves")) | WRITES_MUCH,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        deadlines=("settling",),
    ),
    "post-copy, the source dies, left behind, then tidied": Scenario(
        "settling lost",
        {"a": "off"},
        faults(SOURCE_DIES, fault("leaves-behind", host="a")) | WRITES_MUCH,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        ended=Phase.LOST,
        also=lambda rig: given("settle-source", 1)(rig) and given("clean-up", 1)(rig),
    ),
    # the controller killed
    "post-copy, killed in it, seen at once": Scenario(
        "reconcile post-copy reconcile cleanup completed",
        AT_DESTINATION,
        WRITES_MUCH,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        kill_at="post-copy",
    ),
    "post-copy, killed in it, seen late": Scenario(
        "reconcile cleanup completed",
        AT_DESTINATION,
        WRITES_MUCH,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        kill_at="post-copy",
        after_ms=3_600_000,
    ),
    "post-copy, killed in it, journal gone": Scenario(
        "reconcile post-copy reconcile cleanup completed",
        AT_DESTINATION,
        WRITES_MUCH,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        kill_at="post-copy",
        with_journal=False,
    ),
    "post-copy, killed in it, which a journal may say": Scenario(
        "reconcile post-copy reconcile cleanup completed",
        AT_DESTINATION,
        WRITES_MUCH,
        ALLOWED,
        post_copy_at=Phase.MEMORY,
        kill_at="post-copy",
        journal_says=Phase.POSTCOPY,
    ),
}
