"""Mending the leases of a lab's host: when it is refused, who is left alone, and what it does to the lab's daemons."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from refimpl.app import leases
from refimpl.app.leases import LabDaemons, Spares, mend_leases
from refimpl.backends.libvirt.running import RunningVm
from refimpl.engine.store import Claim, GroupStore
from refimpl.hosts.process import here
from refimpl.lab import Lab
from refimpl.model.errors import RefimplError
from refimpl.model.facts import VmState
from refimpl.model.group import ChannelSpec, Group, ProcessRef
from refimpl.model.ownership import OwnerRecord
from tests.builders import host, plan, settings, vm
from tests.unit.app.test_vms import Hosts, entry

WEB = RunningVm("web", vm().id, VmState.RUNNING, 38, "/leases/web", False)
GONE = ProcessRef(1, 1, "an earlier boot")


def group(directory: Path, init: ProcessRef) -> Group:
    hosts = tuple(replace(entry(name), channel=ChannelSpec("namespace", init)) for name in "ab")
    GroupStore(directory / "group.db")
    return Group("id", "lab", hosts, str(directory / "group.db"), "/shared", "/leases", "")


@pytest.fixture
def store(tmp_path: Path) -> GroupStore:
    made = GroupStore(tmp_path / "group.db")
    for name in "ab":
        made.change_settings(name, lambda _: settings())
    return made


def lab(directory: Path, init: ProcessRef | None = None, *moves: Claim) -> Any:
    return SimpleNamespace(name="lab", group=group(directory, init or here(os.getpid())), moves=lambda: moves)


def refused(found: Any, name: str = "a") -> RefimplError:
    with pytest.raises(RefimplError) as failure:
        mend_leases(found, name, Hosts())  # type: ignore[arg-type]
    return failure.value


@pytest.mark.error("lab.host_unknown")
def test_a_host_that_the_lab_has_not(tmp_path: Path) -> None:
    assert "known: a, b" in str(refused(lab(tmp_path), "h9"))


@pytest.mark.error("host.down")
def test_a_host_that_is_off(tmp_path: Path) -> None:
    assert refused(lab(tmp_path, GONE)).problems[0].id == "host.down"


@pytest.mark.rule("R10")
@pytest.mark.error("lease.host_moving")
@pytest.mark.parametrize("name", ["a", "b"])
def test_while_a_move_runs_there_libvirtd_is_left_alone(tmp_path: Path, name: str) -> None:
    claim = Claim("0a1b2c3d", "home", here(os.getpid()), plan())
    told = refused(lab(tmp_path, None, claim), name)
    assert told.problems[0].id == "lease.host_moving"
    assert "refimpl attach 0a1b2c3d" in told.problems[0].mend


def test_a_move_between_other_hosts_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = Claim("0a1b2c3d", "home", here(os.getpid()), plan(source="c", destination="d"))
    monkeypatch.setattr(leases, "mend", lambda place, _: sorted(place.others))
    assert mend_leases(lab(tmp_path, None, claim), "a", Hosts()) == ["b"]  # type: ignore[arg-type,comparison-overlap]


@pytest.mark.error("lease.stuck")
def test_what_a_host_says_when_it_fails_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise OSError("no room for another process")

    monkeypatch.setattr(leases, "mend", fails)
    problem = refused(lab(tmp_path)).problems[0]
    assert (problem.id, problem.native is not None) == ("lease.stuck", True)
    assert "no room for another process" in problem.text


def why(store: GroupStore, hosts: Hosts, running: RunningVm = WEB) -> str | None:
    problem = Spares(store, entry("a"), hosts).why(running)  # type: ignore[arg-type]
    return None if problem is None else problem.id


@pytest.mark.rule("R10")
@pytest.mark.error("vm.stamped")
def test_a_vm_that_a_move_has_is_left_alone_by_its_mark_and_by_its_claim(store: GroupStore) -> None:
    assert why(store, Hosts()) is None
    assert why(store, Hosts(), replace(WEB, operation="0a1b2c3d")) == "vm.stamped"
    assert store.claim(Claim("0a1b2c3d", "home", GONE, plan())) is None
    assert why(store, Hosts()) == "vm.stamped"
    assert why(store, Hosts(), replace(WEB, id="another")) is None


@pytest.mark.rule("R1")
@pytest.mark.error("owner.elsewhere")
def test_a_stale_copy_is_not_resumed(store: GroupStore) -> None:
    store.swap_owner(None, OwnerRecord(WEB.id, "b", 3))
    has_it = Hosts(host("a"), host("b", vms=(vm(state=VmState.OFF),)))
    assert why(store, has_it) == "owner.elsewhere"
    assert why(store, has_it, replace(WEB, epoch=4)) is None
    assert why(store, Hosts(host("a"), host("b"))) is None, "something else has moved it"


def test_the_owners_copy_may_be_resumed(store: GroupStore) -> None:
    store.swap_owner(None, OwnerRecord(WEB.id, "a", 3))
    assert why(store, Hosts(host("a"), host("b"))) is None


class FakeLab:
    """A lab that notes what is done to the daemons of its one host, by the times at which they began."""

    def __init__(self, **began: int) -> None:
        self.began = began
        self.done: list[str] = []

    def daemon(self, _host: str, name: str) -> ProcessRef | None:
        return ProcessRef(1, self.began[name], "boot") if name in self.began else None

    def daemons_in_order(self, name: str) -> bool:
        return Lab.daemons_in_order(self, name)  # type: ignore[arg-type]

    def stop_daemon(self, _host: str, name: str) -> None:
        self.done.append(f"stop {name}")

    def start_daemons(self, _host: str) -> None:
        self.done.append("start")

    def restart_libvirtd(self, _host: str) -> None:
        self.done.append("restart")


@pytest.mark.parametrize(
    ("began", "runs", "ordered"),
    [
        ({"virtlockd": 5, "libvirtd": 7}, True, True),
        ({"virtlockd": 5, "libvirtd": 5}, True, True),
        ({"virtlockd": 9, "libvirtd": 7}, True, False),
        ({"virtlockd": 5}, True, False),
        ({"libvirtd": 7}, False, False),
    ],
)
def test_daemons_are_in_order_when_libvirtd_began_after_the_lock_daemon(
    began: dict[str, int], runs: bool, ordered: bool
) -> None:
    daemons = LabDaemons(FakeLab(**began), "h1")  # type: ignore[arg-type]
    assert (daemons.lock_daemon_runs(), daemons.in_order()) == (runs, ordered)


@pytest.mark.parametrize(("began", "done"), [({"virtlockd": 5}, ["start"]), ({}, ["stop virtlockd", "start"])])
def test_the_socket_of_a_killed_lock_daemon_goes_before_the_new_one_comes(
    began: dict[str, int], done: list[str]
) -> None:
    fake = FakeLab(**began)
    LabDaemons(fake, "h1").start()  # type: ignore[arg-type]
    assert fake.done == done
    LabDaemons(fake, "h1").restart_libvirtd()  # type: ignore[arg-type]
    assert fake.done[-1] == "restart"
    LabDaemons(fake, "h1").end_lock_daemon()  # type: ignore[arg-type]
    assert fake.done[-1] == "stop virtlockd"
