"""Claims in the group store: one VM, one operation; a dead controller's lock is free."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from refimpl.engine import store as store_module
from refimpl.engine.store import Claim, GroupStore, LimitReached, MemoryStore, Store, completed
from refimpl.model.errors import Problem, RefimplError
from refimpl.model.group import ProcessRef
from refimpl.model.request import PerformanceOption
from refimpl.model.settings import Authentication, HostSettings
from refimpl.model.storage import DiskMove, StoragePlan
from tests.builders import NETWORKS, facts, plan

ME = ProcessRef(os.getpid(), 1, "boot")


def claim(operation: str, vm_id: str = "vm-1") -> Claim:
    return Claim(operation, f"/home/{operation}", ME, plan(vm_id=vm_id))


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return GroupStore(tmp_path / "group.db") if request.param == "file" else MemoryStore()


@pytest.mark.rule("R10")
def test_one_vm_one_operation(store: Store) -> None:
    assert store.claim(claim("one")) is None
    assert store.claim(claim("two")) == claim("one")
    assert store.claim(claim("three", vm_id="vm-2")) is None
    assert [c.operation for c in store.claims()] == ["one", "three"]


@pytest.mark.rule("R7")
def test_a_claim_renews_and_is_given_back_once(store: Store) -> None:
    assert store.claim(claim("one")) is None
    assert store.claim(claim("one")) is None
    store.release("vm-1", "two")
    assert [c.operation for c in store.claims()] == ["one"]
    store.release("vm-1", "one")
    store.release("vm-1", "one")
    assert store.claims() == ()
    assert store.claim(claim("two")) is None


def test_two_controllers_share_one_file_and_no_file_is_left(tmp_path: Path) -> None:
    first, second = GroupStore(tmp_path / "group.db"), GroupStore(tmp_path / "group.db")
    assert first.claim(claim("one")) is None
    assert second.claim(claim("two")) == claim("one")
    first.release("vm-1", "one")
    assert second.claim(claim("two")) is None
    second.release("vm-1", "two")
    assert list(tmp_path.glob("*.lock")) == []


def test_the_claim_of_a_killed_controller_stays_and_can_be_taken_over(tmp_path: Path) -> None:
    program = (
        "import sys, signal\n"
        "from pathlib import Path\n"
        "from refimpl.engine.store import GroupStore\n"
        "from tests.unit.engine.test_store import claim\n"
        "store = GroupStore(Path(sys.argv[1]))\n"
        "assert store.claim(claim('one')) is None\n"
        "print('claimed', flush=True)\n"
        "signal.pause()\n"
    )
    path = tmp_path / "group.db"
    controller = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert controller.stdout is not None
    assert controller.stdout.readline() == "claimed\n"
    store = GroupStore(path)
    assert store.claim(claim("one")) is not None, "its own operation cannot be taken from a living controller"
    controller.send_signal(signal.SIGKILL)
    controller.wait()
    assert store.claim(claim("two")) is not None
    assert store.claim(claim("one")) is None, "a recovery takes the operation over"


@pytest.mark.error("store.failed")
def test_a_store_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(RefimplError, match=r"store\.failed"):
        GroupStore(tmp_path / "missing" / "group.db")


def test_a_lock_on_a_name_that_was_taken_away_excludes_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first gives back between the second's opening the lock file and locking it; the third must not get in too."""
    first, second, third = (GroupStore(tmp_path / "group.db") for _ in range(3))
    assert first.claim(claim("one")) is None
    genuine = store_module._locks
    given_back: list[bool] = []

    def late(file: IO[str]) -> bool:
        if not given_back:
            given_back.append(True)
            first.release("vm-1", "one")
        return genuine(file)

    monkeypatch.setattr(store_module, "_locks", late)
    assert second.claim(claim("one")) is None
    assert third.claim(claim("one")) is not None


@pytest.mark.rule("R7")
def test_the_third_move_of_a_host_with_a_limit_of_two_is_refused_whoever_asks(tmp_path: Path) -> None:
    first, second = GroupStore(tmp_path / "group.db"), GroupStore(tmp_path / "group.db")
    assert first.claim(claim("one", "vm-1")) is None
    assert second.claim(claim("two", "vm-2")) is None
    assert second.claim(claim("three", "vm-3")) == LimitReached("a", 2, ("one", "two"))
    assert [c.operation for c in first.claims()] == ["one", "two"]
    assert not list(tmp_path.glob("*three*"))
    first.release("vm-1", "one")
    assert second.claim(claim("three", "vm-3")) is None


@pytest.mark.rule("R7")
@pytest.mark.rule("R12")
@pytest.mark.parametrize("host", ["a", "b"])
def test_the_limit_of_either_host_counts_and_is_two_unless_it_is_set(store: Store, host: str) -> None:
    assert HostSettings().maximum_migrations == 2
    store.change_settings(host, lambda old: replace(old, maximum_migrations=1))
    assert store.claim(claim("one", "vm-1")) is None
    assert store.claim(claim("two", "vm-2")) == LimitReached(host, 1, ("one",))
    elsewhere = Claim("two", "/home/two", ME, plan(vm_id="vm-2", source="c", destination="d"))
    assert store.claim(elsewhere) is None


@pytest.mark.rule("R7")
@pytest.mark.rule("R12")
@pytest.mark.parametrize("host", ["a", "b"])
def test_moves_that_take_disks_have_a_limit_of_their_own_too(store: Store, host: str) -> None:
    disks = StoragePlan((DiskMove("/a/x.raw", "/b/x.raw", "raw", 1, "1"),))

    def with_disks(operation: str, vm_id: str) -> Claim:
        bare = claim(operation, vm_id)
        return replace(bare, plan=replace(bare.plan, storage=disks))

    store.change_settings(host, lambda old: replace(old, maximum_storage_migrations=1, maximum_migrations=9))
    other = {"a": "b", "b": "a"}[host]
    store.change_settings(other, lambda old: replace(old, maximum_migrations=9))
    assert store.claim(claim("none", "vm-0")) is None, "one without disks does not count"
    assert store.claim(with_disks("one", "vm-1")) is None
    assert store.claim(with_disks("two", "vm-2")) == LimitReached(host, 1, ("one",), storage=True)
    assert store.claim(claim("three", "vm-3")) is None
    store.release("vm-1", "one")
    assert store.claim(with_disks("two", "vm-2")) is None


def test_a_move_that_has_begun_is_recovered_whatever_the_limit(store: Store) -> None:
    for host in ("a", "b"):
        store.change_settings(host, lambda old: replace(old, maximum_migrations=0))
    assert store.claim(claim("one")) == LimitReached("a", 0, ())
    assert store.claim(claim("one"), bounded=False) is None
    assert store.claim(claim("two"), bounded=False) == claim("one")


def test_settings_are_kept_and_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    store = GroupStore(tmp_path / "group.db")
    wanted = HostSettings(True, 3, 4, Authentication.KERBEROS, PerformanceOption.TCPIP, True, NETWORKS, 7, 900)
    assert store.change_settings("a", lambda _: wanted) == wanted

    def fail(_: HostSettings) -> HostSettings:
        raise RefimplError(Problem("network.listed"))

    with pytest.raises(RefimplError):
        store.change_settings("a", fail)
    assert GroupStore(tmp_path / "group.db").settings() == {"a": wanted}


def test_facts_are_completed_with_what_others_move_and_with_the_store_s_silence(tmp_path: Path) -> None:
    store = GroupStore(tmp_path / "group.db")
    store.change_settings("a", lambda old: replace(old, pass_limit=9))
    store.claim(claim("one", "vm-1"))
    store.claim(claim("two", "vm-2"))
    whole = completed(facts(), store, "two")
    assert whole.moving == {"a": ("one",), "b": ("one",)}
    assert whole.settings["a"].pass_limit == 9
    (tmp_path / "group.db").write_bytes(b"this is no database" * 100)
    silent = completed(facts(), store, "two")
    assert silent.store_problem is not None
    assert silent.store_problem.id == "store.failed"


def test_a_claim_that_fails_leaves_no_lock_and_one_that_stands_keeps_its(tmp_path: Path) -> None:
    path = tmp_path / "group.db"
    store = GroupStore(path)
    assert store.claim(claim("kept", vm_id="vm-2")) is None
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TRIGGER full BEFORE INSERT ON claims BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    for wanted in (claim("new"), claim("kept", vm_id="vm-2")):
        with pytest.raises(RefimplError, match="disk is full"):
            store.claim(wanted)
    assert [file.name for file in tmp_path.glob("*.lock")] == ["group.db.kept.lock"]
    assert [c.operation for c in store.claims()] == ["kept"]


@pytest.mark.error("store.failed")
def test_a_lock_file_that_cannot_be_made_is_a_store_that_failed(tmp_path: Path) -> None:
    store = GroupStore(tmp_path / "group.db")
    (tmp_path / "group.db.one.lock").mkdir()
    with pytest.raises(RefimplError) as failed:
        store.claim(claim("one"))
    assert failed.value.problems[0].id == "store.failed"


@pytest.mark.error("store.failed")
@pytest.mark.parametrize("table", ["claims", "settings"])
@pytest.mark.parametrize("body", ["{", "{}", '{"of another": "version"}'])
def test_a_row_that_cannot_be_read_is_a_store_that_failed(tmp_path: Path, table: str, body: str) -> None:
    path = tmp_path / "group.db"
    store = GroupStore(path)
    values = ("vm-1", "op", body) if table == "claims" else ("a", body)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)
    assert getattr(completed(facts(), store, "one").store_problem, "id", None) == "store.failed"
