"""Putting hosts in order, on hosts made of fakes: what a lab can hold only by luck."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from refimpl.backends.libvirt import connection, lease, settle, stamp
from refimpl.backends.libvirt.operation import Operation, Reach
from refimpl.backends.libvirt.status import status_path
from refimpl.backends.libvirt.tap import Taps
from refimpl.model.events import Event, Kind
from refimpl.model.group import HostEntry
from refimpl.model.ownership import OwnerRecord
from refimpl.model.request import VmState
from tests.unit.backends.libvirt import recorded as r

libvirt = pytest.importorskip("libvirt")

RUNNING, OFF = [libvirt.VIR_DOMAIN_RUNNING, 1], [libvirt.VIR_DOMAIN_SHUTOFF, 1]
PAUSED_BY_USER = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER]
PAUSED_BY_MOVE = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION]
PAUSED_BY_ERROR = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_API_ERROR]


class FakeDomain:
    persistent = True
    starts_with_host = 0

    def __init__(self, world: World, host: str, state: list[int], operation: str | None) -> None:
        self._world, self._host, self._state, self._operation = world, host, state, operation

    def state(self) -> list[int]:
        return self._state

    def isActive(self) -> int:
        return int(self._state != OFF)

    def isPersistent(self) -> int:
        return int(self.persistent)

    def autostart(self) -> int:
        return self.starts_with_host

    def setAutostart(self, on: int) -> None:
        self._world.done.append(f"autostart {self._host} {on}")
        self.starts_with_host = on

    def setMetadata(self, *_: Any) -> None:
        self._world.marking(self._host)

    def XMLDesc(self, _which: int) -> str:
        if self._operation is None:
            return "<domain/>"
        mark = stamp.to_xml(stamp.Stamp(self._operation, r.PLAN))
        mark = mark.replace("<operation", f"<operation xmlns='{stamp.NAMESPACE}'", 1)
        return f"<domain><metadata>{mark}</metadata></domain>"

    def resume(self) -> None:
        self._world.done.append(f"resume {self._host}")

    def destroy(self) -> None:
        self._world.done.append(f"destroy {self._host}")
        self._world.channels[self._host].files.clear()
        self._state = OFF

    def undefineFlags(self, _flags: int) -> None:
        self._world.done.append(f"undefine {self._host}")
        del self._world.domains[self._host]


class World:
    """Two hosts; `silent` ones have a daemon that does not answer."""

    operation: Operation

    def __init__(self) -> None:
        self.done: list[str] = []
        self.domains: dict[str, FakeDomain] = {}
        self.channels = {"h1": r.FakeChannel(), "h2": r.FakeChannel()}
        self.silent: set[str] = set()
        self.events: list[Event] = []
        self.marking: Callable[[str], None] = lambda host: self.done.append(f"mark {host}")

    def put(self, host: str, state: list[int], status: bytes | None = None, operation: str | None = "op") -> None:
        self.domains[host] = FakeDomain(self, host, state, operation)
        if status is not None:
            self.channels[host].files[status_path(r.PLAN.vm)] = status
            for pid in (b"38", b"54"):
                self.channels[host].files[f"/proc/{pid.decode()}/stat"] = pid + b" (qemu) S"

    @contextmanager
    def fresh(self, host: HostEntry, timeout_s: float = 1) -> Iterator[str]:
        if host.name in self.silent:
            raise TimeoutError(f"host {host.name} does not answer")
        yield host.name

    def give(self, work: Any) -> Event:
        work(self.operation)
        return self.events[-1]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(connection, "fresh", world.fresh)
    monkeypatch.setattr(connection, "find", lambda host, _id: world.domains.get(host))
    monkeypatch.setattr(settle, "JOB_TIMEOUT_S", 0.2)
    monkeypatch.setattr(settle, "GONE_TIMEOUT_S", 0.2)
    reach = Reach(r.GROUP, r.PLAN, connection.Connections(), Taps(lambda: 0))
    reach.source_channel, reach.destination_channel = world.channels["h1"], world.channels["h2"]
    world.operation = Operation("op", r.PLAN, reach, world.events.append, lambda: 0)
    return world


@pytest.mark.rule("R2")
@pytest.mark.parametrize("state", [PAUSED_BY_MOVE, PAUSED_BY_ERROR])
def test_a_source_that_the_move_paused_is_resumed_after_the_copy_is_gone(world: World, state: list[int]) -> None:
    world.put("h1", state, r.SOURCE_FORGOTTEN)
    world.put("h2", PAUSED_BY_USER, r.DESTINATION_ARRIVED)
    assert world.give(settle.settle_source).kind is Kind.SETTLED
    assert world.done == ["destroy h2", "undefine h2", "resume h1"]


@pytest.mark.rule("R2")
def test_a_source_that_a_person_paused_stays_paused(world: World) -> None:
    world.put("h1", PAUSED_BY_USER, r.BOOTED)
    assert world.give(settle.settle_source).kind is Kind.SETTLED
    assert world.done == []


@pytest.mark.rule("R2")
def test_a_vm_that_was_paused_before_its_move_is_not_resumed_whatever_paused_it_last(world: World) -> None:
    world.operation.plan = replace(world.operation.plan, vm_state=VmState.PAUSED)
    world.put("h1", PAUSED_BY_MOVE, r.SOURCE_FORGOTTEN)
    assert world.give(settle.settle_source).kind is Kind.SETTLED
    assert world.done == []


@pytest.mark.rule("R1")
@pytest.mark.parametrize(("state", "settled"), [(PAUSED_BY_USER, True), (PAUSED_BY_MOVE, False)])
def test_of_a_paused_vm_the_copy_that_arrived_is_enough_to_remove_the_source(
    world: World, state: list[int], settled: bool
) -> None:
    world.operation.plan = replace(world.operation.plan, vm_state=VmState.PAUSED)
    world.put("h1", PAUSED_BY_USER, r.BOOTED)
    world.put("h2", state, r.DESTINATION_ARRIVED)
    answer = world.give(settle.settle_destination).kind
    assert answer is (Kind.SETTLED if settled else Kind.CANNOT_SETTLE)
    assert world.done == (["destroy h1", "undefine h1"] if settled else [])


@pytest.mark.rule("R1")
def test_a_paused_source_is_not_resumed_while_the_other_host_is_silent(world: World) -> None:
    world.put("h1", PAUSED_BY_MOVE, r.SOURCE_FORGOTTEN)
    world.silent.add("h2")
    assert world.give(settle.settle_source).kind is Kind.CANNOT_SETTLE
    assert world.done == []


@pytest.mark.rule("R1")
def test_the_last_definition_of_a_vm_is_never_removed(world: World) -> None:
    """The guest switched itself off after the move: the source's definition is gone, the other one is the VM."""
    world.put("h2", OFF)
    assert world.give(settle.settle_source).kind is Kind.SETTLED
    assert list(world.domains) == ["h2"]


@pytest.mark.rule("R1")
@pytest.mark.parametrize("state", [RUNNING, PAUSED_BY_MOVE])
@pytest.mark.parametrize("defined_there", [True, False])
def test_a_source_that_is_older_than_what_ran_at_the_destination_is_ended(
    world: World, state: list[int], defined_there: bool
) -> None:
    """It is never resumed, and the last definition of the VM stays."""
    world.operation.source_older = True
    world.put("h1", state, r.SOURCE_BACK)
    if defined_there:
        world.put("h2", OFF)
    for _ in range(2):
        assert world.give(settle.settle_source).kind is Kind.SETTLED
    assert world.done == (["destroy h1", "undefine h1"] if defined_there else ["destroy h1"])
    assert list(world.domains) == (["h2"] if defined_there else ["h1"])


@pytest.mark.rule("R1")
def test_but_only_with_both_hosts_seen_no_job_open_and_our_mark(world: World) -> None:
    world.operation.source_older = True
    world.put("h1", RUNNING, r.SOURCE_BACK, operation="other")
    assert world.give(settle.settle_source).kind is Kind.CANNOT_SETTLE
    world.put("h1", RUNNING, r.SOURCE_SENDS)
    assert world.give(settle.settle_source).kind is Kind.CANNOT_SETTLE
    world.put("h1", RUNNING, r.SOURCE_BACK)
    world.silent.add("h2")
    assert world.give(settle.settle_source).kind is Kind.CANNOT_SETTLE
    assert world.done == []


@pytest.mark.rule("R2")
def test_a_lost_vm_that_was_started_again_at_the_destination_is_left_alone_by_a_tidying(world: World) -> None:
    world.put("h2", RUNNING, r.DESTINATION_RUNS)
    assert world.give(settle.settle_source).kind is Kind.CANNOT_SETTLE
    world.operation.ownership = OwnerRecord(r.PLAN.vm_id, "h2", 3, None, "op")
    assert world.give(settle.settle_source).kind is Kind.SETTLED
    assert world.done == []


@pytest.mark.rule("R1")
def test_the_last_copy_of_a_vm_is_never_removed(world: World) -> None:
    world.put("h2", PAUSED_BY_USER, r.DESTINATION_ARRIVED)
    assert world.give(settle.settle_source).kind is Kind.CANNOT_SETTLE
    assert world.done == []


def test_a_copy_that_cannot_be_removed_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(_: FakeDomain) -> None:
        raise libvirt.libvirtError("Failed to terminate process: Device or resource busy")

    world.put("h1", RUNNING, r.SOURCE_BACK)
    world.put("h2", PAUSED_BY_USER, r.DESTINATION_ARRIVED)
    monkeypatch.setattr(FakeDomain, "destroy", busy)
    assert world.give(settle.settle_source).kind is Kind.CANNOT_SETTLE
    assert list(world.domains) == ["h1", "h2"]


@pytest.mark.rule("R2")
def test_a_running_source_needs_no_answer_of_the_other_host(world: World) -> None:
    world.put("h1", RUNNING, r.SOURCE_BACK)
    world.channels["h2"].files[status_path(r.PLAN.vm)] = r.DESTINATION_RECEIVES
    world.silent.add("h2")
    assert world.give(settle.settle_source).kind is Kind.SETTLED


@pytest.mark.rule("R1")
@pytest.mark.parametrize("state", [RUNNING, PAUSED_BY_USER])
def test_a_paused_source_is_not_resumed_beside_a_strangers_copy(world: World, state: list[int]) -> None:
    world.put("h1", PAUSED_BY_MOVE, r.SOURCE_FORGOTTEN)
    world.put("h2", state, r.DESTINATION_RUNS, operation=None)
    assert world.give(settle.settle_source).kind is Kind.CANNOT_SETTLE
    assert world.done == []


@pytest.mark.rule("R1")
@pytest.mark.parametrize("source", [PAUSED_BY_MOVE, RUNNING])
def test_a_copy_of_this_operation_that_runs_there_is_not_removed(world: World, source: list[int]) -> None:
    """It may be the only one that has what was written last: the evidence has to be looked at again."""
    world.put("h1", source, r.SOURCE_FORGOTTEN)
    world.put("h2", RUNNING, r.DESTINATION_RUNS)
    assert world.give(settle.settle_source).kind is Kind.CANNOT_SETTLE
    assert world.done == []


@pytest.mark.rule("R2")
def test_an_incoming_half_without_a_mark_is_ours(world: World) -> None:
    world.put("h1", RUNNING, r.SOURCE_BACK)
    world.put("h2", PAUSED_BY_MOVE, r.DESTINATION_RECEIVES.replace(b"migration in", b"none"), operation=None)
    assert world.give(settle.settle_source).kind is Kind.SETTLED
    assert world.done == ["destroy h2", "undefine h2"]


@pytest.mark.rule("R1")
@pytest.mark.parametrize(("host", "status"), [("h1", r.SOURCE_SENDS), ("h2", r.DESTINATION_RECEIVES)])
def test_nothing_is_removed_while_a_job_is_open(world: World, host: str, status: bytes) -> None:
    world.put("h1", RUNNING, r.SOURCE_BACK)
    world.put("h2", PAUSED_BY_MOVE, r.DESTINATION_ARRIVED)
    world.channels[host].files[status_path(r.PLAN.vm)] = status
    assert world.give(settle.settle_source).kind is Kind.CANNOT_SETTLE
    assert world.give(settle.settle_destination).kind is Kind.CANNOT_SETTLE
    assert world.done == []


@pytest.mark.rule("R1")
def test_a_copy_whose_process_does_not_end_cannot_be_settled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put("h1", PAUSED_BY_MOVE, r.SOURCE_FORGOTTEN)
    world.put("h2", PAUSED_BY_USER, r.DESTINATION_ARRIVED)
    monkeypatch.setattr(world.domains["h2"], "destroy", lambda: world.done.append("destroy h2"))
    assert world.give(settle.settle_source).kind is Kind.CANNOT_SETTLE
    assert "resume h1" not in world.done


@pytest.mark.rule("R1")
def test_the_sources_copy_goes_once_the_destinations_runs(world: World) -> None:
    world.put("h1", PAUSED_BY_MOVE, r.SOURCE_FORGOTTEN)
    world.put("h2", RUNNING, r.DESTINATION_RUNS)
    for _ in range(2):
        assert world.give(settle.settle_destination).kind is Kind.SETTLED
    assert world.done == ["destroy h1", "undefine h1"]


@pytest.mark.rule("R1")
@pytest.mark.parametrize("state", [PAUSED_BY_USER, OFF])
def test_the_source_is_kept_while_the_destinations_copy_does_not_run(world: World, state: list[int]) -> None:
    world.put("h1", PAUSED_BY_MOVE, r.SOURCE_FORGOTTEN)
    world.put("h2", state, r.DESTINATION_ARRIVED)
    assert world.give(settle.settle_destination).kind is Kind.CANNOT_SETTLE
    assert world.done == []


def off(world: World) -> None:
    world.operation.plan = replace(world.operation.plan, vm_state=VmState.OFF)
    world.put("h1", OFF)
    world.put("h2", OFF)


@pytest.mark.rule("R2")
def test_a_definition_that_was_copied_is_removed_once_the_source_takes_a_change(world: World) -> None:
    off(world)
    assert world.give(settle.settle_source).kind is Kind.SETTLED
    assert world.done == ["mark h1", "undefine h2"]


@pytest.mark.rule("R1")
def test_a_definition_whose_move_ends_late_is_not_removed_at_both_hosts(world: World) -> None:
    """A VM that is off shows no job: only its daemon, asked for a change, tells that one was under way."""

    def ends(host: str) -> None:
        del world.domains[host]
        raise libvirt.libvirtError("transient domains do not have any persistent config")

    off(world)
    world.marking = ends
    assert world.give(settle.settle_source).kind is Kind.CANNOT_SETTLE
    assert (list(world.domains), world.done) == (["h2"], [])


@pytest.mark.rule("R1")
def test_the_only_stored_definition_is_not_removed_beside_a_source_that_was_started(world: World) -> None:
    off(world)
    world.put("h1", RUNNING, r.BOOTED)
    world.domains["h1"].persistent = False
    assert world.give(settle.settle_source).kind is Kind.CANNOT_SETTLE
    assert world.done == []


@pytest.mark.rule("R16")
@pytest.mark.parametrize(("source", "opened"), [(r.SOURCE_WAITS, True), (r.SOURCE_BACK, False)])
def test_a_port_that_a_killed_conductor_left_shut_is_opened_though_the_source_cannot_be_settled(
    world: World, source: bytes, opened: bool
) -> None:
    """But never beside a source that runs: frames would come from two ports."""
    world.put("h1", PAUSED_BY_MOVE, source)
    world.put("h2", RUNNING, r.DESTINATION_RUNS)
    world.silent.add("h1")
    assert world.give(settle.settle_destination).kind is Kind.CANNOT_SETTLE
    assert (["nft", "flush table bridge refimpl_op"] in world.channels["h2"].commands) is opened


@pytest.mark.rule("R1")
def test_a_source_without_our_mark_is_not_removed(world: World) -> None:
    world.put("h1", RUNNING, r.SOURCE_BACK, operation="other")
    world.put("h2", RUNNING, r.DESTINATION_RUNS)
    assert world.give(settle.settle_destination).kind is Kind.CANNOT_SETTLE
    assert world.done == []


@pytest.mark.rule("R1")
@pytest.mark.parametrize(
    ("status", "kind"), [(r.SOURCE_BOUND, Kind.SETTLED), (None, Kind.SETTLED), (r.SOURCE_WAITS, Kind.CANNOT_SETTLE)]
)
def test_a_silent_source_is_harmless_only_when_bound(world: World, status: bytes | None, kind: Kind) -> None:
    world.put("h1", PAUSED_BY_MOVE, status)
    world.put("h2", RUNNING, r.DESTINATION_RUNS)
    world.silent.add("h1")
    assert world.give(settle.settle_destination).kind is kind
    assert world.done == []


@pytest.mark.rule("R1")
@pytest.mark.parametrize(("held", "kind"), [(True, Kind.SETTLED), (None, Kind.CANNOT_SETTLE)])
def test_a_source_of_which_nothing_is_seen_is_harmless_only_without_the_lease(
    world: World, monkeypatch: pytest.MonkeyPatch, held: bool | None, kind: Kind
) -> None:
    world.put("h2", RUNNING, r.DESTINATION_RUNS)
    world.silent.add("h1")
    world.channels["h1"].down = True
    monkeypatch.setattr(lease, "held", lambda channel, _path: held if channel is world.channels["h2"] else None)
    assert world.give(settle.settle_destination).kind is kind
    assert world.done == []


@pytest.mark.rule("R2")
@pytest.mark.parametrize(("before", "told"), [(True, ["autostart h1 1", "mark h1"]), (False, ["mark h1"])])
def test_after_a_roll_back_the_source_starts_the_vm_by_itself_as_before(
    world: World, before: bool, told: list[str]
) -> None:
    """The mark goes last: killed in between, all of it is done again."""
    world.operation.plan = replace(world.operation.plan, autostart=before)
    world.operation.ownership = OwnerRecord(r.PLAN.vm_id, "h1", 3, operation="op")
    world.put("h1", RUNNING, r.SOURCE_BACK)
    world.give(settle.clean_up)
    assert [step for step in world.done if "autostart" in step] == told[:-1]
    assert world.done.index(told[0]) <= len(world.done) - 2
    assert world.domains["h1"].starts_with_host == int(before)


@pytest.mark.rule("R1")
@pytest.mark.parametrize("record", [OwnerRecord(r.PLAN.vm_id, "h2", 3, operation="op"), None], ids=["moved", "unknown"])
def test_no_former_owner_starts_the_vm_by_itself_nor_does_the_new_one(world: World, record: OwnerRecord | None) -> None:
    """A source that came back late has its definition still, and somebody turned this on again."""
    world.operation.plan = replace(world.operation.plan, autostart=True)
    world.operation.ownership = record
    for host, state in (("h1", OFF), ("h2", RUNNING)):
        world.put(host, state)
        world.domains[host].starts_with_host = 1
    world.give(settle.clean_up)
    # Where the owner is known and has the VM, what the other one still has of it is only removed.
    left = {host: domain.starts_with_host for host, domain in world.domains.items()}
    assert left == ({"h2": 0} if record else {"h1": 0, "h2": 0})


@pytest.mark.rule("R1")
def test_what_has_arrived_is_not_removed_when_the_source_has_died_meanwhile(world: World) -> None:
    world.put("h1", OFF)
    world.put("h2", PAUSED_BY_USER)
    told = world.give(settle.settle_source)
    assert told.kind is Kind.CANNOT_SETTLE
    assert "is the only one" in told["problem"].values["detail"]
    assert world.done == []


def test_what_has_not_arrived_goes_though_the_source_has_died(world: World) -> None:
    world.put("h1", OFF)
    world.put("h2", PAUSED_BY_MOVE)
    assert world.give(settle.settle_source).kind is Kind.SETTLED
    assert world.done == ["destroy h2", "undefine h2"]


@pytest.mark.rule("R1")
@pytest.mark.parametrize(("work", "answer"), [(settle.settle_source, Kind.SETTLED), (settle.clean_up, Kind.CLEANED)])
def test_a_copy_that_its_own_daemon_ends_while_it_is_looked_at_is_gone_and_no_failure(
    world: World, monkeypatch: pytest.MonkeyPatch, work: Any, answer: Kind
) -> None:
    """A daemon that was killed at the switch and is back ends what it was receiving."""
    world.put("h1", RUNNING, r.SOURCE_BACK, operation=None)
    world.put("h2", PAUSED_BY_MOVE)

    def ended(*_: Any) -> Any:
        world.domains.pop("h2", None)
        gone = libvirt.libvirtError("Domain not found")
        gone.err = (libvirt.VIR_ERR_NO_DOMAIN, 10, "Domain not found", 2, "", "", "", -1, -1)
        raise gone

    for asked in ("XMLDesc", "isPersistent"):
        monkeypatch.setattr(world.domains["h2"], asked, ended)
    assert world.give(work).kind is answer
    assert list(world.domains) == ["h1"]
