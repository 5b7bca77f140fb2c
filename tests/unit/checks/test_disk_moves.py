"""Disks that move with their VM: where they may go, what is refused and why, and the plan that comes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from refimpl.checks.disk_moves import MIB
from refimpl.checks.judge import judge
from refimpl.checks.report import compared
from refimpl.checks.subject import subject
from refimpl.model.events import Kind
from refimpl.model.facts import DiskFact, Facts, TargetFact, VmState
from refimpl.model.request import MigrationRequest, Plan
from refimpl.model.storage import DiskMove, SourceFile, StoragePlan, StorageWish, conflict, wish_of
from tests.builders import OPERATION, event, facts, host, ledger, request, vm

DISK = "/data/web.raw"
OVERLAY = "/data/web-2.qcow2"
BASE = "/data/base.qcow2"
TARGET = "/big/web.raw"
SIZE = 64 * MIB


def disk(path: str = DISK, **changes: Any) -> DiskFact:
    good = DiskFact(
        path,
        f"here:{path}",
        SIZE,
        format="raw",
        content="raw",
        cache="writeback",
        probed=False,
        shared_file_system=False,
        virtual_size_bytes=SIZE,
        allocated_bytes=8 * MIB,
    )
    return replace(good, **changes)


def target(path: str = TARGET, **changes: Any) -> TargetFact:
    directory = path.rpartition("/")[0]
    return replace(TargetFact(path, None, "", directory, True, 1024 * MIB, "fs9"), **changes)


def both(
    *disks: DiskFact, there: tuple[TargetFact, ...] = (target(),), a: Any = None, b: Any = None, **of_vm: Any
) -> Facts:
    """Facts of a source with disks of its own and a destination that sees none of them."""
    own = disks or (disk(),)
    seen = {d.path: d for d in own}
    here = host("a", vms=(vm(disks=own, **of_vm),), disks=seen)
    beyond = host("b", disks={}, targets={t.path: t for t in there})
    return facts(replace(here, **(a or {})), replace(beyond, **(b or {})))


def wish(**changes: Any) -> MigrationRequest:
    return request(storage=StorageWish(**({"include": True, "destination_path": "/big"} | changes)))


def one_by_one(*pairs: tuple[str, str], **changes: Any) -> MigrationRequest:
    return request(storage=StorageWish(vhds=pairs, **changes))


def found(asked: MigrationRequest, seen: Facts) -> dict[str, str]:
    """The findings: id and text."""
    return {p.id: p.text for p in compared(subject(asked, OPERATION, "lab", seen)).problems}


def planned(asked: MigrationRequest, seen: Facts, before: Plan | None = None) -> StoragePlan:
    decided = judge(ledger(request=asked, plan=before), event(Kind.FACTS_SEEN, facts=seen))
    assert decided.kind is Kind.CHECKS_PASSED, decided
    made: StoragePlan = decided.values["plan"].storage
    return made


def test_a_disk_of_the_source_alone_needs_nothing_at_the_destination_but_its_place() -> None:
    assert found(wish(), both()) == {}
    assert "disk.missing" in found(request(), both())


@pytest.mark.rule("R3")
@pytest.mark.rule("R17")
def test_the_plan_names_every_file() -> None:
    made = planned(wish(), both())
    move = DiskMove(DISK, TARGET, "raw", SIZE, f"here:{DISK}")
    assert made == StoragePlan((move,), removed=(SourceFile(DISK, f"here:{DISK}"),))


def test_a_plan_survives_the_journal() -> None:
    decided = judge(ledger(request=wish(), plan=None), event(Kind.FACTS_SEEN, facts=both()))
    plan: Plan = decided.values["plan"]
    assert Plan.from_json(plan.to_json()) == plan
    assert MigrationRequest.from_json(wish().to_json()) == wish()


def test_without_a_directory_disks_go_to_the_destinations_own_or_stay_where_they_are() -> None:
    anywhere = both(there=(target("/data/web.raw"),))
    assert planned(wish(destination_path=None), anywhere).disks[0].destination == "/data/web.raw"
    rooted = both(there=(target("/pool/web.raw"),), b={"storage_directories": ("/pool", "/big")})
    assert planned(wish(destination_path=None), rooted).disks[0].destination == "/pool/web.raw"


@pytest.mark.rule("R3")
def test_nothing_is_removed_at_the_source_when_that_is_wished() -> None:
    made = planned(wish(avoid_removing_vhds=True), both())
    assert (made.removed, made.keep_at_destination) == ((), True)


def chained(**changes: Any) -> Facts:
    top = disk(OVERLAY, format="qcow2", content="qcow2", chain=(BASE,), **changes)
    base = disk(BASE, format=None, read_only=True, allocated_bytes=40 * MIB)
    seen = both(top, there=(target("/big/web-2.qcow2"),))
    here = seen.hosts["a"]
    return replace(seen, hosts={**seen.hosts, "a": replace(here, disks={**here.disks, BASE: base})})


@pytest.mark.rule("R3")
@pytest.mark.parametrize(
    ("choice", "removed"),
    [
        ({}, [OVERLAY]),
        ({"retain_vhd_copies_on_source": True}, [OVERLAY]),
        ({"remove_source_unmanaged_vhds": True}, [OVERLAY, BASE]),
    ],
)
def test_what_a_disk_is_based_on_goes_only_when_that_is_wished(choice: dict[str, bool], removed: list[str]) -> None:
    assert [file.path for file in planned(wish(**choice), chained()).removed] == removed


@pytest.mark.rule("R3")
def test_what_another_vm_has_stays() -> None:
    seen = chained()
    here = seen.hosts["a"]
    other = vm(name="other", id="9", disks=(DiskFact(BASE, "x"),))
    seen = replace(seen, hosts={**seen.hosts, "a": replace(here, vms=(*here.vms, other))})
    assert [file.path for file in planned(wish(remove_source_unmanaged_vhds=True), seen).removed] == [OVERLAY]


def test_only_named_disks_move_and_the_others_have_to_be_shared() -> None:
    second = disk("/data/second.raw")
    seen = both(disk(), second)
    assert set(found(one_by_one((DISK, TARGET)), seen)) == {"disk.missing", "disk.cache"}
    shared = replace(seen.hosts["b"], disks={second.path: second})
    calm = replace(second, cache="none", probed=True)
    here = host("a", vms=(vm(disks=(disk(), calm)),), disks={DISK: disk(), calm.path: calm})
    seen = facts(here, replace(shared, disks={calm.path: calm}))
    assert [move.source for move in planned(one_by_one((DISK, TARGET)), seen).disks] == [DISK]


def test_what_is_only_read_does_not_move() -> None:
    medium = DiskFact("/data/boot.iso", "here:iso", 1, device="cdrom", read_only=True)
    assert "media.missing" in found(wish(), both(disk(), medium))


@pytest.mark.parametrize(
    ("choices", "why"),
    [
        ({"include": True, "vhds": (("/a/x", "/b/x"),)}, "exclude each other"),
        ({"destination_path": "/b"}, "not that they are to move"),
        ({"allow_overwrite": True}, "no disk is to move"),
        (
            {"include": True, "retain_vhd_copies_on_source": True, "remove_source_unmanaged_vhds": True},
            "kept and be removed",
        ),
        (
            {"include": True, "avoid_removing_vhds": True, "remove_source_unmanaged_vhds": True},
            "nothing is to be removed",
        ),
        ({"include": True, "destination_path": "b"}, "absolute path"),
        ({"include": True, "destination_path": "/b/../c"}, "absolute path"),
        ({"vhds": (("/a/x", "x"),)}, "absolute path"),
        ({"vhds": (("/a/x", "/b/x"), ("/a/x", "/c/x"))}, "named twice"),
    ],
)
@pytest.mark.error("storage.options")
def test_choices_that_contradict_each_other(choices: dict[str, Any], why: str) -> None:
    asked = request(storage=StorageWish(**choices))
    assert why in found(asked, both())["storage.options"]


def test_choices_that_can_be_meant() -> None:
    assert conflict(StorageWish(include=True, allow_overwrite=True, remove_source_unmanaged_vhds=True)) is None
    assert conflict(StorageWish(vhds=(("/a/x", "/b/x"),), avoid_removing_vhds=True)) is None


@pytest.mark.error("storage.off")
def test_disks_of_a_vm_that_is_off() -> None:
    assert "storage.off" in found(wish(), both(state=VmState.OFF))


@pytest.mark.error("storage.not_a_disk")
def test_a_disk_that_the_vm_does_not_have() -> None:
    assert DISK in found(one_by_one(("/data/other.raw", "/big/other.raw")), both())["storage.not_a_disk"]


@pytest.mark.rule("R17")
@pytest.mark.error("storage.name")
def test_another_file_name() -> None:
    assert "storage.name" in found(one_by_one((DISK, "/big/renamed.raw")), both(there=(target("/big/renamed.raw"),)))


@pytest.mark.error("storage.collision")
def test_two_disks_of_one_name() -> None:
    assert "storage.collision" in found(wish(), both(disk(), disk("/more/web.raw")))


@pytest.mark.error("storage.chain_broken")
def test_a_broken_chain() -> None:
    text = found(wish(), chained(broken="No such file"))["storage.chain_broken"]
    assert "No such file" in text


@pytest.mark.error("storage.not_copied")
@pytest.mark.parametrize("changes", [{"format": "luks"}, {"virtual_size_bytes": None}, {"identity": None}])
def test_a_disk_that_cannot_be_mirrored(changes: dict[str, Any]) -> None:
    assert "storage.not_copied" in found(wish(), both(disk(**changes)))


@pytest.mark.error("storage.no_directory")
def test_no_such_directory() -> None:
    seen = both(there=(target(directory="there is no such directory"),))
    assert "there is no such directory" in found(wish(), seen)["storage.no_directory"]
    assert "storage.no_directory" in found(wish(), both(there=()))


@pytest.mark.error("storage.outside")
def test_a_directory_that_is_really_elsewhere() -> None:
    link = both(there=(target(real="/etc"),))
    assert "'/etc'" in found(wish(), link)["storage.outside"]
    beside = both(there=(target(),), b={"storage_directories": ("/bi", "/pool")})
    assert "/bi, /pool" in found(wish(), beside)["storage.outside"]
    inside = both(there=(target("/big/deep/web.raw"),), b={"storage_directories": ("/big",)})
    assert found(wish(destination_path="/big/deep"), inside) == {}


@pytest.mark.error("storage.not_writable")
def test_a_directory_that_takes_no_writes() -> None:
    assert set(found(wish(), both(there=(target(writable=False),)))) == {"storage.not_writable"}


@pytest.mark.rule("R17")
@pytest.mark.error("storage.target_exists")
def test_a_file_that_is_there() -> None:
    seen = both(there=(target(identity="there:1"),))
    assert set(found(wish(), seen)) == {"storage.target_exists"}
    assert found(wish(allow_overwrite=True), seen) == {}
    assert planned(wish(allow_overwrite=True), seen).allow_overwrite


@pytest.mark.error("storage.target_used")
def test_a_disk_of_another_vm_is_never_overwritten() -> None:
    other = vm(name="other", id="9", disks=(DiskFact(TARGET, "there:1"),))
    seen = both(there=(target(identity="there:1"),), b={"vms": (other,)})
    assert "'other'" in found(wish(allow_overwrite=True), seen)["storage.target_used"]


@pytest.mark.error("storage.same_file")
@pytest.mark.parametrize("path", [DISK, BASE])
def test_a_copy_onto_itself_is_never_made(path: str) -> None:
    seen = chained() if path == BASE else both()
    place = next(iter(seen.hosts["b"].targets))
    there = {place: target(place, identity=f"here:{path}")}
    seen = replace(seen, hosts={**seen.hosts, "b": replace(seen.hosts["b"], targets=there)})
    assert "storage.same_file" in found(wish(allow_overwrite=True), seen)


@pytest.mark.error("storage.no_space")
def test_no_room_for_what_is_there_now() -> None:
    text = found(wish(), both(there=(target(free_bytes=7 * MIB),)))["storage.no_space"]
    assert "take 8 MiB" in text
    assert "7 MiB free" in text


@pytest.mark.error("storage.tight")
def test_room_for_now_but_not_for_all_that_may_be_written() -> None:
    seen = both(there=(target(free_bytes=63 * MIB),))
    assert set(found(wish(), seen)) == {"storage.tight"}
    assert planned(wish(), seen).disks


def test_disks_on_one_file_system_share_its_room_and_others_do_not() -> None:
    two = (disk(allocated_bytes=SIZE), disk("/data/second.raw", allocated_bytes=SIZE))
    room = {"free_bytes": 100 * MIB}
    same = both(*two, there=(target(**room), target("/big/second.raw", **room)))
    apart = both(*two, there=(target(**room), target("/big/second.raw", file_system="fs10", **room)))
    assert (set(found(wish(), same)), found(wish(), apart)) == ({"storage.no_space"}, {})


def test_room_is_needed_for_what_a_disk_is_based_on_too() -> None:
    seen = chained()
    there = {"/big/web-2.qcow2": target("/big/web-2.qcow2", free_bytes=47 * MIB)}
    seen = replace(seen, hosts={**seen.hosts, "b": replace(seen.hosts["b"], targets=there)})
    assert "take 48 MiB" in found(wish(), seen)["storage.no_space"]


@pytest.mark.error("storage.changed")
@pytest.mark.parametrize(
    "changes",
    [{"identity": "here:another"}, {"virtual_size_bytes": SIZE * 2}, {"path": "/data/else/web.raw"}],
)
def test_a_disk_that_changed_between_the_first_look_and_the_claim(changes: dict[str, Any]) -> None:
    first = judge(ledger(request=wish(), plan=None), event(Kind.FACTS_SEEN, facts=both())).values["plan"]
    assert planned(wish(), both(), first).disks, "what did not change goes on"
    again = judge(ledger(request=wish(), plan=first), event(Kind.FACTS_SEEN, facts=both(disk(**changes))))
    assert (again.kind, [p.id for p in again.values["problems"]]) == (Kind.CHECKS_REFUSED, ["storage.changed"])


def test_what_moves_is_told() -> None:
    report = compared(subject(wish(), OPERATION, "lab", both()))
    told = next(c.text for c in report.checked if c.family == "storage")
    assert told == "1 disk(s) of 64 MiB to /big; no others"


@pytest.mark.parametrize("choice", [{}, {"remove_source_unmanaged_vhds": True}, {"avoid_removing_vhds": True}])
def test_a_plan_tells_what_was_wished(choice: dict[str, bool]) -> None:
    made = planned(wish(**choice), chained())
    asked = request(storage=wish_of(made))
    assert planned(asked, chained()) == made
