"""Moves of a VM with its disks (shared-nothing), and what has to come of them and of the files on both hosts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refimpl.model.events import Kind
from refimpl.model.phase import Phase
from refimpl.model.storage import StorageWish
from tests.moves import Rig
from tests.property.scenario import (
    AT_DESTINATION,
    Scenario,
    broken_off_first,
    fault,
    faults,
    given,
    hangs,
    looked_at_once,
    took_longer_than_s,
)

PATH = "/local/web.raw"
LOCAL: dict[str, Any] = {"disks": [{"path": PATH, "local": True}]}
SELDOM = LOCAL | {"latency_ms": {"progress": 5_000}}
STALLS = SELDOM | fault("stalls", during="storage")
THROUGH = "check setup storage memory switch committed reconcile cleanup completed"
BACK = "check setup storage reconcile undoing failed"


def taken(**changes: Any) -> dict[str, Any]:
    """Return what a request has that takes all disks along."""
    return {"storage": StorageWish(include=True, **changes)}


def only_at(host: str) -> Callable[[Rig], bool]:
    """The disk lies on one host, and nothing of it on the other."""
    other = {"a": "b", "b": "a"}[host]
    return lambda rig: rig.files(host) == [PATH] and rig.files(other) == []


def at_both(rig: Rig) -> bool:
    """Files are on both hosts."""
    return rig.files("a") == rig.files("b") == [PATH]


def _slowed(rig: Rig) -> bool:
    return given("steer-bandwidth", 1)(rig) and took_longer_than_s(10)(rig)


def _file_of_a_stranger(rig: Rig) -> bool:
    return rig.world.disks.files["b", PATH].vm is None


def _with_a_file_there() -> dict[str, Any]:
    hosts = {h: {"memory_mib": 2048, "networks": {"migration": f"192.0.2.{n}"}} for n, h in enumerate("ab", 1)}
    hosts["b"] |= {"files": [PATH]}
    return LOCAL | {"hosts": hosts}


STORAGE_SCENARIOS: dict[str, Scenario] = {
    "disks move": Scenario(THROUGH, AT_DESTINATION, LOCAL, taken(), also=only_at("b")),
    "disks move, memory not shown": Scenario(
        "check setup storage switch committed reconcile cleanup completed",
        AT_DESTINATION,
        LOCAL | {"hidden": ["memory-seen"]},
        taken(),
        also=only_at("b"),
    ),
    "cancel in the switch, after disks and with memory not shown": Scenario(
        "check setup storage switch committed reconcile cleanup completed-with-warnings",
        AT_DESTINATION,
        LOCAL | {"hidden": ["memory-seen"]},
        taken(),
        cancel_at=Kind.SWITCH_SEEN,
        also=given("request-cancel", 0),
    ),
    "disks move, only their copying and the arrival shown": Scenario(
        "check setup storage switch committed reconcile cleanup completed",
        AT_DESTINATION,
        LOCAL | {"hidden": ["memory-seen", "switch-seen"]},
        taken(),
        also=only_at("b"),
    ),
    "disks move, delegated": Scenario(
        "check setup storage memory switch reconcile cleanup completed",
        AT_DESTINATION,
        LOCAL | {"hand_over": "delegated"},
        taken(),
        also=only_at("b"),
    ),
    "disks move, nothing is removed": Scenario(
        THROUGH, AT_DESTINATION, LOCAL, taken(avoid_removing_vhds=True), also=at_both
    ),
    "disks move over a file that is there": Scenario(
        THROUGH,
        AT_DESTINATION,
        _with_a_file_there(),
        taken(allow_overwrite=True),
        also=only_at("b"),
    ),
    "disks move over a file that is there, and it fails": Scenario(
        BACK,
        world=_with_a_file_there() | fault("call-fails", during="storage"),
        request=taken(allow_overwrite=True),
        problem="transfer.failed",
        also=_file_of_a_stranger,
    ),
    "a shared disk stays where it is": Scenario(
        THROUGH.replace(" storage", ""), AT_DESTINATION, also=lambda rig: rig.files("a") == rig.files("b") == []
    ),
    "a slower link is asked for while disks are copied": Scenario(
        THROUGH, AT_DESTINATION, LOCAL | {"dirty": 0}, taken(), bandwidth_at=Phase.STORAGE, also=_slowed
    ),
    "a slower link is asked for while disks are copied, killed before it is": Scenario(
        "reconcile storage memory switch committed reconcile cleanup completed",
        AT_DESTINATION,
        LOCAL | {"dirty": 0},
        taken(),
        bandwidth_at=Phase.STORAGE,
        kill_at="intended:steer-bandwidth",
        also=_slowed,
    ),
    "the destination's lock daemon ends while disks are copied": Scenario(
        BACK,
        world=LOCAL | fault("lock-daemon-dies", host="b", during="storage"),
        request=taken(),
        problem="lease.unsafe",
        also=only_at("a"),
    ),
    "the file system fills up": Scenario(
        BACK,
        world=LOCAL | fault("disk-full", during="storage"),
        request=taken(),
        problem="storage.full",
        also=only_at("a"),
    ),
    "the file system fills up while memory is copied": Scenario(
        "check setup storage memory reconcile undoing failed",
        world=LOCAL | fault("disk-full", during="memory"),
        request=taken(),
        problem="storage.full",
        also=only_at("a"),
    ),
    "it fails and the copy is kept": Scenario(
        BACK,
        world=LOCAL | fault("call-fails", during="storage"),
        request=taken(avoid_removing_vhds=True),
        problem="storage.kept",
        also=at_both,
    ),
    "it fails at the switch": Scenario(
        "check setup storage memory switch reconcile undoing failed",
        world=LOCAL | fault("call-fails", during="switch"),
        request=taken(),
        problem="transfer.failed",
        also=only_at("a"),
    ),
    "the link drops while disks are copied": Scenario(
        BACK,
        world=LOCAL | fault("link-drops", network="migration", during="storage"),
        request=taken(),
        problem="transfer.failed",
        also=only_at("a"),
    ),
    "the system refuses after the files were made": Scenario(
        "check setup undoing refused",
        world=LOCAL | fault("native-refusal"),
        request=taken(),
        problem="transfer.refused",
        also=only_at("a"),
    ),
    "cancelled while disks are copied": Scenario(
        "check setup storage reconcile undoing cancelled",
        world=LOCAL,
        request=taken(),
        cancel_at=Phase.STORAGE,
        also=only_at("a"),
    ),
    "cancelled in memory after the disks were copied": Scenario(
        "check setup storage memory reconcile undoing cancelled",
        world=LOCAL,
        request=taken(),
        cancel_at=Phase.MEMORY,
        also=only_at("a"),
    ),
    "nothing of the disks is sent any more": Scenario(
        "check setup storage reconcile storage reconcile undoing failed",
        world=STALLS,
        request=taken(),
        deadlines=("storage",),
        problem="transfer.stalled",
        also=lambda rig: broken_off_first(rig) and only_at("a")(rig),
    ),
    "nothing of the disks is sent any more, and the call never returns": Scenario(
        "check setup storage reconcile storage reconcile undoing failed",
        world=SELDOM | faults(STALLS, hangs("start-transfer")),
        request=taken(),
        deadlines=("storage",) * 2,
        problem="transfer.stalled",
    ),
    "the source dies while disks are copied": Scenario(
        "check setup storage reconcile settling lost",
        {"a": "off"},
        LOCAL | fault("source-dies", during="storage"),
        taken(),
        problem="cleanup.left_behind",
        also=lambda rig: looked_at_once(rig) and at_both(rig),
    ),
    "the destination dies with all that had arrived, disks too": Scenario(
        "check setup storage memory switch reconcile settling lost",
        {"b": "off"},
        LOCAL | fault("destination-dies", during="bound"),
        taken(),
        problem="cleanup.left_behind",
        also=at_both,
    ),
    "both ran, each on its own disk": Scenario(
        "check setup storage memory switch reconcile settling dual-run",
        AT_DESTINATION,
        LOCAL | fault("both-run", during="arrived"),
        taken(),
        problem="owner.dual_run",
        also=at_both,
    ),
    "killed while disks are copied, seen at once": Scenario(
        "reconcile storage memory switch committed reconcile cleanup completed",
        AT_DESTINATION,
        LOCAL,
        taken(),
        kill_at="storage",
        also=only_at("b"),
    ),
    "killed while disks are copied, seen late": Scenario(
        "reconcile committed reconcile cleanup completed",
        AT_DESTINATION,
        LOCAL,
        taken(),
        kill_at="storage",
        after_ms=3_600_000,
        also=only_at("b"),
    ),
    "killed while disks are copied, journal gone": Scenario(
        "reconcile storage memory switch committed reconcile cleanup completed",
        AT_DESTINATION,
        LOCAL,
        taken(),
        kill_at="storage",
        with_journal=False,
        also=only_at("b"),
    ),
    "killed after the files were made": Scenario(
        "reconcile undoing failed", world=LOCAL, request=taken(), kill_at=Kind.PREPARED, also=only_at("a")
    ),
    "killed before the source's files go": Scenario(
        "reconcile cleanup completed",
        AT_DESTINATION,
        LOCAL,
        taken(),
        kill_at="intended:clean-up-moved",
        also=only_at("b"),
    ),
    "killed before the copies go": Scenario(
        "reconcile undoing failed",
        world=LOCAL | fault("call-fails", during="storage"),
        request=taken(),
        kill_at="intended:clean-up-undone",
        also=only_at("a"),
    ),
    "copies left behind by a failure, then tidied": Scenario(
        "undoing failed",
        world=LOCAL | faults(fault("call-fails", during="storage"), fault("leaves-behind", host="b")),
        request=taken(),
        ended=Phase.FAILED,
        also=only_at("a"),
    ),
    "disks move, the guest switches itself off there, and its former host comes back": Scenario(
        "reconcile settling lost",
        {"b": "off"},
        LOCAL
        | faults(
            fault("host-dies", host="a", during="ran", for_ms=200_000),
            fault("guest-powers-off", during="ran"),
        ),
        taken(),
        ended=Phase.INDETERMINATE,
        after_ms=200_000,
        problem="owner.lost",
        also=lambda rig: rig.files("b") == [PATH],
    ),
    "a delegated destination runs and dies, unheard: what it may have written stays": Scenario(
        "reconcile undoing failed",
        world=LOCAL | {"hand_over": "delegated"} | fault("destination-dies", during="ran"),
        request=taken(),
        kill_at=Kind.DESTINATION_RAN,
        after_ms=10_000,
        problem="storage.kept",
        also=at_both,
    ),
    "the same, and its host is silent until the move has failed": Scenario(
        "undoing failed",
        world=LOCAL
        | {"hand_over": "delegated", "hidden": ["destination-ran"]}
        | fault("host-dies", host="b", during="ran", for_ms=120_000),
        request=taken(),
        ended=Phase.FAILED,
        after_ms=200_000,
        problem="storage.kept",
        also=at_both,
    ),
}
