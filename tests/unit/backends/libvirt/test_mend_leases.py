"""Taking lost leases again, on a host made of fakes: the order, what is left alone, and doing it again after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from refimpl.backends.libvirt import connection, mend_leases, stamp, vms
from refimpl.backends.libvirt.mend_leases import Did, HostMended, Place, mend, unmark
from refimpl.backends.libvirt.running import MENDING_NAMESPACE, RunningVm, running_vms
from refimpl.model.errors import Problem
from refimpl.model.facts import VmState
from tests.unit.backends.libvirt import recorded as r
from tests.unit.backends.libvirt.lease_host import (
    BUSY,
    DAEMON,
    OFF_ID,
    Host,
    Killed,
    without_lease,
)
from tests.unit.backends.libvirt.mover import refusal

libvirt = pytest.importorskip("libvirt")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return without_lease(monkeypatch)


def mended(host: Host, *, other: Host | None = None, spares: Problem | None = None) -> HostMended:
    others = {"h2": other} if other is not None else {}
    return mend(Place(r.host("h1"), host, others, "/g/shared/leases", lambda _: spares), host)


def only(found: HostMended) -> mend_leases.VmMended:
    (vm,) = found.vms
    return vm


IN_ORDER = ["start lock daemon", "restart libvirtd", "file", "mark", "suspend", "resume", "unmark"]


@pytest.mark.rule("R1")
def test_the_one_order_that_works(host: Host) -> None:
    found = mended(host)
    assert host.done == IN_ORDER
    assert (found.lock_daemon_started, found.libvirtd_restarted, found.whole) == (True, True, True)
    assert only(found) == mend_leases.VmMended("web", Did.TAKEN, pause_ms=24.0)


def test_what_is_in_order_is_left_as_it_is(host: Host) -> None:
    host.lock_daemon, host.ordered, host.holder = True, True, DAEMON
    found = mended(host)
    assert host.done == []
    assert (found.lock_daemon_started, found.libvirtd_restarted) == (False, False)
    assert only(found) == mend_leases.VmMended("web", Did.HELD)


@pytest.mark.rule("R1")
def test_a_lock_daemon_that_was_started_by_hand_is_not_enough(host: Host) -> None:
    """libvirtd is older than it then, and does not know the lease space: a VM paused now could not be resumed."""
    host.lock_daemon = True
    found = mended(host)
    assert host.done == IN_ORDER[1:]
    assert (found.lock_daemon_started, found.libvirtd_restarted) == (False, True)


@pytest.mark.rule("R1")
def test_a_lease_that_has_outlived_its_vm_is_given_back_and_the_others_are_taken_again(host: Host) -> None:
    host.lock_daemon, host.ordered, host.holder, host.off_holder = True, True, DAEMON, DAEMON
    found = mended(host)
    assert host.done == ["end lock daemon", *IN_ORDER]
    assert (found.released, found.left_locked, found.whole) == ((OFF_ID,), (), True)
    assert only(found).did is Did.TAKEN


@pytest.mark.rule("R1", "R10")
def test_no_lease_is_given_back_at_the_cost_of_a_vm_that_may_not_be_paused(host: Host) -> None:
    host.lock_daemon, host.ordered, host.holder, host.off_holder = True, True, DAEMON, DAEMON
    found = mended(host, spares=Problem("vm.stamped", {"vm": "web", "operation": "0a1b2c3d"}))
    assert host.done == []
    assert (found.released, found.left_locked, found.whole) == ((), (OFF_ID,), False)
    assert only(found).did is Did.HELD


def test_a_lease_that_another_host_holds_is_not_this_ones(host: Host) -> None:
    host.lock_daemon, host.ordered, host.holder, host.off_holder = True, True, DAEMON, DAEMON + 1
    assert mended(host).whole
    assert host.done == []


def test_with_no_vm_on_only_the_daemons_are_put_in_order(host: Host) -> None:
    host.state = ""
    assert mended(host).vms == ()
    assert host.done == IN_ORDER[:2]


def test_a_paused_vm_holds_no_lease_and_stays_paused(host: Host) -> None:
    host.state = "paused"
    assert mended(host).vms == ()
    assert host.state == "paused"


@pytest.mark.rule("R1")
@pytest.mark.parametrize("at", ["start lock daemon", "restart libvirtd", "mark", "suspend", "resume", "unmark"])
@pytest.mark.parametrize("done", [False, True], ids=["before it", "after it"])
def test_killed_anywhere_and_done_again_it_is_mended(
    host: Host, monkeypatch: pytest.MonkeyPatch, at: str, done: bool
) -> None:
    method = {"start lock daemon": "start", "restart libvirtd": "restart_libvirtd", "mark": "setMetadata"}
    name = method.get(at, "setMetadata" if at == "unmark" else at)
    real = getattr(host, name)

    def killed_after(*arguments: Any) -> None:
        real(*arguments)
        if host.done[-1] == at:
            raise Killed

    with monkeypatch.context() as patch:
        if done:
            patch.setattr(host, name, killed_after)
        else:
            host.raises[at] = Killed()
        with pytest.raises(Killed):
            mended(host)
    found = mended(host)
    assert (host.state, host.holder, host.mark) == ("running", DAEMON, "")
    assert found.whole
    assert "resume without lease space" not in host.done
    assert host.done.count("suspend") == 1 or at == "suspend"


@pytest.mark.rule("R1")
def test_a_vm_that_was_found_paused_by_a_mending_is_resumed_and_that_is_said(host: Host) -> None:
    host.raises["resume"] = Killed()
    with pytest.raises(Killed):
        mended(host)
    assert host.state == "paused"
    vm = only(mended(host))
    assert (vm.did, vm.resumed, vm.pause_ms) == (Did.TAKEN, True, None)


def test_the_mark_of_another_process_of_the_vm_counts_for_nothing(host: Host) -> None:
    """It was moved, or switched off and on again, and somebody has paused it there."""
    host.raises["resume"] = Killed()
    with pytest.raises(Killed):
        mended(host)
    host.pid += 1
    assert mended(host).vms == ()
    assert host.state == "paused"


def test_who_resumes_it_by_hand_takes_the_mark_off(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.raises["resume"] = Killed()
    with pytest.raises(Killed):
        mended(host)

    class Connection:
        def lookupByName(self, _name: str) -> Host:
            return host

    @contextmanager
    def fresh(_host: Any) -> Iterator[Connection]:
        yield Connection()

    monkeypatch.setattr(connection, "fresh", fresh)
    vms.resume(r.host("h1"), "web")
    vms.pause(r.host("h1"), "web")
    assert (host.state, host.mark) == ("paused", "")
    assert mended(host).vms == ()


def test_taking_off_a_mark_that_is_not_there_is_nothing_and_another_refusal_is_not_hidden(host: Host) -> None:
    unmark(host)
    host.mark = "x"
    host.raises["unmark"] = refusal(libvirt.VIR_ERR_OPERATION_FAILED)
    with pytest.raises(libvirt.libvirtError):
        unmark(host)


@pytest.mark.rule("R1")
@pytest.mark.error("lease.held_elsewhere")
@pytest.mark.parametrize("state", ["running", "paused"])
def test_what_another_host_holds_is_neither_paused_nor_resumed(host: Host, state: str) -> None:
    other = Host()
    other.holder = DAEMON
    if state == "paused":
        host.raises["resume"] = Killed()
        with pytest.raises(Killed):
            mended(host)
        host.done.clear()
    vm = only(mended(host, other=other))
    assert (vm.did, vm.problem.id if vm.problem else None) == (Did.REFUSED, "lease.held_elsewhere")
    assert host.state == state
    assert not {"suspend", "resume"} & set(host.done)


@pytest.mark.rule("R1")
@pytest.mark.error("lease.held_elsewhere")
def test_what_another_host_takes_in_between_stays_paused_and_is_said(host: Host) -> None:
    host.raises["resume"] = refusal(BUSY)
    found = mended(host)
    vm = only(found)
    assert vm.problem is not None
    assert (vm.did, vm.problem.id, found.whole) == (Did.REFUSED, "lease.held_elsewhere", False)
    assert vm.problem.native is not None
    assert host.state == "paused"


@pytest.mark.error("lease.not_mended")
def test_a_refusal_leaves_it_marked_for_the_next_time(host: Host) -> None:
    host.raises["resume"] = refusal(libvirt.VIR_ERR_OPERATION_FAILED, text="no")
    vm = only(mended(host))
    assert vm.problem is not None
    assert vm.problem.id == "lease.not_mended"
    assert "refimpl lab mend h1" in vm.problem.mend
    assert only(mended(host)).did is Did.TAKEN


@pytest.mark.error("lease.not_mended")
def test_a_lease_that_is_not_seen_held_after_all_is_said(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mend_leases.lease, "held", lambda *_: False)
    vm = only(mended(host))
    assert vm.problem is not None
    assert "does not hold its lease" in vm.problem.text


def test_a_lease_file_that_is_gone_is_made_before_the_vm_is_paused(host: Host) -> None:
    host.file = False
    assert only(mended(host)).did is Did.TAKEN
    assert host.done.index("file") < host.done.index("suspend")


@pytest.mark.error("lease.not_mended")
def test_without_its_file_it_is_not_paused(host: Host) -> None:
    host.raises["file"] = OSError("read-only file system")
    vm = only(mended(host))
    assert vm.problem is not None
    assert "read-only" in vm.problem.text
    assert host.state == "running"


@pytest.mark.rule("R1")
@pytest.mark.error("lock_daemon.down")
def test_a_lock_daemon_that_dies_again_keeps_every_vm_running(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "restart_libvirtd", lambda: setattr(host, "lock_daemon", False))
    vm = only(mended(host))
    assert vm.problem is not None
    assert vm.problem.id == "lock_daemon.down"
    assert host.state == "running"


@pytest.mark.rule("R10")
def test_what_is_spared_is_named_and_left_alone(host: Host) -> None:
    moving = Problem("vm.stamped", {"vm": "web", "operation": "0a1b2c3d"})
    found = mended(host, spares=moving)
    assert (only(found).did, only(found).problem, found.whole) == (Did.SPARED, moving, False)
    assert host.done == IN_ORDER[:2]


@pytest.mark.error("lease.absent")
def test_a_vm_without_a_lease_has_none_to_be_taken(host: Host) -> None:
    host.lease = False
    vm = only(mended(host))
    assert vm.problem is not None
    assert vm.problem.id == "lease.absent"
    assert host.state == "running"


def test_vms_that_are_on_are_told_without_a_daemon(host: Host) -> None:
    mark = stamp.to_xml(stamp.Stamp("0a1b2c3d", r.PLAN, 7))
    host.move = mark.replace("<operation", f"<operation xmlns='{stamp.NAMESPACE}'", 1)
    (vm,) = running_vms(host)
    path = "/g/shared/leases/web"
    assert vm == RunningVm("web", r.VM_ID, VmState.RUNNING, 38, path, False, "0a1b2c3d", epoch=7)
    assert vm.unprotected
    assert not replace(vm, state=VmState.PAUSED).unprotected
    assert not replace(vm, held=None).unprotected
    assert MENDING_NAMESPACE not in host._status()
    host.state = ""
    assert running_vms(host) == ()
    host.down = True
    with pytest.raises(OSError, match="down"):
        running_vms(host)
