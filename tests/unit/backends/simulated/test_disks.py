"""Disks that move in a simulated world: what is made, what is removed, and what is never touched."""

from __future__ import annotations

from typing import Any

import pytest

from refimpl.model.events import Kind
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from refimpl.model.request import MigrationRequest
from refimpl.model.storage import StorageWish
from tests.contract.benches import world
from tests.moves import Rig

PATH = "/local/web.raw"


def rig(source: str = "a", destination: str = "b", *, wish: dict[str, Any] | None = None, **changes: Any) -> Rig:
    asked = MigrationRequest("web", destination, storage=StorageWish(**({"include": True} | (wish or {}))))
    return Rig(world(**({"disks": [{"path": PATH, "local": True}]} | changes)), asked)


def moved(made: Rig, **options: Any) -> Outcome:
    outcome = made.start(**options)
    assert outcome is not None
    return outcome


def ids(outcome: Outcome) -> list[str]:
    return [p.id for p in (*outcome.problems, *outcome.warnings)]


@pytest.mark.rule("R3")
def test_there_and_back() -> None:
    first = rig()
    assert moved(first).end is Phase.COMPLETED
    assert (first.files("a"), first.files("b")) == ([], [PATH])
    # The next move is another operation, though every rig calls its own the same.
    first.world.transfers.clear()
    first.world.let_go_ns.clear()
    back = Rig(first.world, MigrationRequest("web", "a", storage=StorageWish(include=True)))
    outcome = moved(back)
    assert (outcome.end, outcome.disks_sent_bytes) == (Phase.COMPLETED, 64 << 20)
    assert (back.files("a"), back.files("b"), back.lacking()) == ([PATH], [], [])


@pytest.mark.rule("R3")
def test_the_sources_file_is_there_until_the_vm_was_seen_to_run_at_the_destination() -> None:
    there: list[bool] = []
    made = rig()
    moved(made, happens=(Phase.CLEANUP, lambda r: there.append(r.files("a") == [PATH])))
    assert there == [True]
    assert made.files("a") == []


@pytest.mark.rule("R3")
def test_a_file_of_the_source_that_is_another_one_by_now_is_not_removed() -> None:
    made = rig()

    def replaced(r: Rig) -> None:
        r.world.disks.files["a", PATH].number = 99

    assert moved(made, happens=(Phase.CLEANUP, replaced)).end is Phase.COMPLETED
    assert made.files("a") == [PATH]


def test_from_shared_storage_to_a_hosts_own_disk() -> None:
    made = rig(wish={"destination_path": "/local"}, disks=[{"path": "/shared/web.raw"}])
    assert moved(made).end is Phase.COMPLETED
    assert made.files("b") == [PATH]


@pytest.mark.rule("R17")
@pytest.mark.error("storage.target_exists")
def test_a_strangers_file_is_refused_and_stays() -> None:
    hosts = {h: {"memory_mib": 2048, "networks": {"migration": f"192.0.2.{n}"}} for n, h in enumerate("ab", 1)}
    hosts["b"] |= {"files": [PATH]}
    made = rig(hosts=hosts)
    outcome = moved(made)
    assert (outcome.end, ids(outcome)) == (Phase.REFUSED, ["storage.target_exists"])
    assert made.files("b") == [PATH]


@pytest.mark.rule("R17")
@pytest.mark.error("storage.target_exists")
def test_a_file_that_appears_after_the_checks_is_refused_and_stays() -> None:
    made = rig()

    def appears(r: Rig) -> None:
        r.world.disks.files["b", PATH] = r.world.disks._file(1)

    outcome = moved(made, happens=(Kind.PENDING_RECORDED, appears))
    assert (outcome.end, ids(outcome)) == (Phase.FAILED, ["storage.target_exists"])
    assert (made.files("a"), made.files("b")) == ([PATH], [PATH])
    assert made.world.disks.files["b", PATH].vm is None


@pytest.mark.error("storage.changed")
def test_a_source_that_is_another_file_after_the_checks_is_refused() -> None:
    made = rig()

    def replaced(r: Rig) -> None:
        r.world.disks.files["a", PATH].number = 99

    outcome = moved(made, happens=(Kind.PENDING_RECORDED, replaced))
    assert (outcome.end, ids(outcome)) == (Phase.FAILED, ["storage.changed"])
    assert made.files("b") == []


@pytest.mark.error("storage.changed")
def test_a_source_that_is_another_file_under_the_claim_is_refused() -> None:
    made = rig()

    def replaced(r: Rig) -> None:
        r.world.disks.files["a", PATH].number = 99

    outcome = moved(made, happens=(Kind.CLAIMED, replaced))
    assert (outcome.end, ids(outcome)) == (Phase.REFUSED, ["storage.changed"])


@pytest.mark.rule("R2")
@pytest.mark.error("storage.full")
def test_a_file_system_that_fills_up_leaves_the_vm_at_the_source_and_no_copy() -> None:
    made = rig(faults=[{"kind": "disk-full", "during": "storage"}])
    outcome = moved(made)
    assert (outcome.end, ids(outcome), outcome.runs_on) == (Phase.FAILED, ["storage.full"], "a")
    assert (made.files("b"), made.lacking()) == ([], [])


@pytest.mark.error("storage.kept")
def test_a_copy_that_is_kept_is_named() -> None:
    made = rig(wish={"avoid_removing_vhds": True}, faults=[{"kind": "disk-full", "during": "storage"}])
    outcome = moved(made)
    assert ids(outcome) == ["storage.full", "storage.kept"]
    assert f"{PATH} on host b" in outcome.warnings[0].text


def test_a_move_without_disks_has_no_phase_for_them() -> None:
    made = rig(disks=[{"path": "/shared/web.raw"}])
    made.request = MigrationRequest("web", "b")
    outcome = moved(made)
    assert (outcome.end, outcome.disks_sent_bytes) == (Phase.COMPLETED, None)
    assert Phase.STORAGE not in made.path()


@pytest.mark.parametrize(("faults", "behind"), [([], "a"), ([{"kind": "call-fails", "during": "memory"}], "b")])
def test_the_file_that_is_not_the_vms_any_more_falls_behind(faults: list[dict[str, Any]], behind: str) -> None:
    made = rig(wish={"avoid_removing_vhds": True}, faults=faults)
    moved(made)
    files = made.world.disks.files
    assert {host: files[host, PATH].whole for host in "ab"} == {host: host != behind for host in "ab"}


def test_a_file_that_was_put_aside_comes_back() -> None:
    hosts = {h: {"memory_mib": 2048, "networks": {"migration": f"192.0.2.{n}"}} for n, h in enumerate("ab", 1)}
    hosts["b"] |= {"files": [PATH]}
    made = rig(wish={"allow_overwrite": True}, hosts=hosts, faults=[{"kind": "call-fails", "during": "memory"}])
    assert moved(made).end is Phase.FAILED
    assert made.world.disks.files["b", PATH].vm is None
