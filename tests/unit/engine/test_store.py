"""Claims in the group store: one VM, one operation; a dead controller's lock is free."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from refimpl.engine import store as store_module
from refimpl.engine.store import Claim, GroupStore, MemoryStore, Store
from refimpl.model.errors import RefimplError
from refimpl.model.group import ProcessRef
from tests.builders import plan

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
