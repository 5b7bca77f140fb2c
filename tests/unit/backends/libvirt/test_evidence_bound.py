"""What both hosts are seen to show, by recorded status files: most of all, when a source is said to be bound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from refimpl.backends.libvirt import connection, evidence, lease
from refimpl.backends.libvirt.operation import Operation, Reach
from refimpl.backends.libvirt.status import status_path
from refimpl.backends.libvirt.tap import Taps
from refimpl.model.events import Event
from refimpl.model.facts import CopySeen, Evidence, VmState
from refimpl.model.group import HostEntry
from tests.unit.backends.libvirt import recorded as r

libvirt = pytest.importorskip("libvirt")

NUMBERS = {
    VmState.RUNNING: [libvirt.VIR_DOMAIN_RUNNING, 1],
    VmState.PAUSED: [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER],
    VmState.OFF: [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED],
}
READS_NOTHING = "while a hand-over is being closed the daemon would not answer"


class Domain:
    def __init__(self, state: VmState) -> None:
        self._state = state

    def state(self) -> list[int]:
        return NUMBERS[self._state]

    def XMLDesc(self, _which: int) -> str:
        return "<domain/>"


class Hosts:
    """Two hosts by what is in their files, what their daemons say, and which daemons are silent."""

    def __init__(self) -> None:
        self.channels = {"h1": r.FakeChannel(), "h2": r.FakeChannel()}
        self.says: dict[str, VmState] = {}
        self.silent: set[str] = set()
        self.held: bool | None = None
        self.asked: list[str] = []
        self.events: list[Event] = []
        reach = Reach(r.GROUP, r.PLAN, connection.Connections(), Taps(lambda: 0))
        reach.source_channel, reach.destination_channel = self.channels["h1"], self.channels["h2"]
        self.operation = Operation("op", r.PLAN, reach, self.events.append, lambda: 0)

    def put(self, host: str, file: bytes, *, process: str | None = "S") -> None:
        """Have a status file there; `process`: the state of its QEMU, None when there is none any more."""
        files = self.channels[host].files
        files[status_path(r.PLAN.vm)] = file
        for pid in ("38", "54") if process else ():
            files[f"/proc/{pid}/stat"] = f"{pid} (qemu) {process}".encode()

    @contextmanager
    def fresh(self, host: HostEntry, timeout_s: float = 1) -> Iterator[str]:
        if host.name in self.silent:
            raise TimeoutError(f"host {host.name} does not answer")
        yield host.name

    def find(self, host: str, _id: str) -> Domain | None:
        self.asked.append(host)
        return Domain(self.says[host]) if host in self.says else None

    def seen(self) -> Evidence:
        evidence.inspect(self.operation)
        found = self.events[-1]["evidence"]
        assert isinstance(found, Evidence)
        return found

    @property
    def source(self) -> CopySeen:
        return self.seen().source

    @property
    def destination(self) -> CopySeen:
        return self.seen().destination


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    hosts = Hosts()
    monkeypatch.setattr(connection, "fresh", hosts.fresh)
    monkeypatch.setattr(connection, "find", hosts.find)
    monkeypatch.setattr(lease, "held", lambda *_: hosts.held)
    return hosts


@pytest.mark.rule("R1")
@pytest.mark.parametrize(
    ("file", "bound"),
    [
        (r.SOURCE_BEGINS, False),
        (r.SOURCE_SENDS, False),
        (r.SOURCE_STANDS, False),
        (r.SOURCE_WAITS, False),
        (r.SOURCE_DENIED, False),
        (r.SOURCE_BOUND, True),
    ],
    ids=["begins", "sends", "stands", "waits", "denied", "bound"],
)
def test_a_source_with_a_job_is_bound_only_when_it_is_to_end_its_copy(hosts: Hosts, file: bytes, bound: bool) -> None:
    hosts.put("h1", file)
    source = hosts.source
    assert (source.reachable, source.job_open, source.bound) == (True, True, bound)
    assert "h1" not in hosts.asked, READS_NOTHING


@pytest.mark.rule("R1")
@pytest.mark.parametrize(
    ("says", "bound"),
    [(VmState.RUNNING, False), (VmState.PAUSED, False), (VmState.OFF, True), (None, True)],
)
def test_a_source_without_a_job_is_bound_only_when_it_has_no_memory_left(
    hosts: Hosts, says: VmState | None, bound: bool
) -> None:
    if says in (VmState.RUNNING, VmState.PAUSED):
        hosts.put("h1", r.SOURCE_BACK)
    if says is not None:
        hosts.says["h1"] = says
    source = hosts.source
    assert (source.state, source.bound) == (says or VmState.ABSENT, bound)


@pytest.mark.rule("R1")
@pytest.mark.parametrize("process", ["Z", None])
def test_a_source_whose_process_is_gone_is_bound_whatever_its_file_says(hosts: Hosts, process: str | None) -> None:
    hosts.put("h1", r.SOURCE_STANDS, process=process)
    assert hosts.source.bound


@pytest.mark.rule("R1")
def test_a_source_whose_process_was_seen_to_end_is_bound_though_nothing_of_it_answers(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.channels["h1"].down = True
    assert (hosts.source.reachable, hosts.source.bound) == (False, False)
    monkeypatch.setattr(hosts.operation, "source_process_ended", lambda: True)
    assert (hosts.source.reachable, hosts.source.bound) == (False, True)


@pytest.mark.rule("R1")
@pytest.mark.parametrize(
    ("file", "state", "arrived"),
    [
        (r.DESTINATION_STARTS, VmState.PLANNED, False),
        (r.DESTINATION_RECEIVES, VmState.PLANNED, False),
        (r.DESTINATION_ARRIVED, VmState.PAUSED, True),
        (r.DESTINATION_RUNS, VmState.RUNNING, False),
    ],
    ids=["starts", "receives", "arrived", "runs"],
)
def test_a_destination_is_never_bound_and_arrives_when_all_of_the_vm_is_in_it(
    hosts: Hosts, file: bytes, state: VmState, arrived: bool
) -> None:
    hosts.put("h2", file)
    if state is not VmState.PLANNED:
        hosts.says["h2"] = state
    destination = hosts.destination
    assert (destination.state, destination.arrived, destination.bound) == (state, arrived, False)


@pytest.mark.rule("R1")
def test_a_copy_that_arrived_and_whose_process_has_died_has_not_arrived(hosts: Hosts) -> None:
    hosts.put("h2", r.DESTINATION_ARRIVED, process="Z")
    hosts.says["h2"] = VmState.PAUSED
    assert not hosts.destination.arrived


@pytest.mark.rule("R1")
@pytest.mark.parametrize("how", ["daemon", "host"])
def test_a_host_that_does_not_answer_is_not_reachable_and_its_copy_not_absent(hosts: Hosts, how: str) -> None:
    for name in ("h1", "h2"):
        if how == "daemon":
            hosts.silent.add(name)
        else:
            hosts.channels[name].down = True
    seen = hosts.seen()
    for copy in (seen.source, seen.destination):
        assert not copy.reachable
        assert copy.state is VmState.UNKNOWN
        assert not copy.bound


@pytest.mark.rule("R1")
@pytest.mark.parametrize("held", [True, False, None])
def test_the_lease_is_told_as_it_was_seen(hosts: Hosts, held: bool | None) -> None:
    hosts.held = held
    hosts.put("h1", r.SOURCE_BACK)
    hosts.says["h1"] = VmState.RUNNING
    assert hosts.source.lease_held is held


def test_a_guest_that_switched_itself_off_is_told_from_one_that_was_ended(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.says["h1"] = VmState.OFF
    assert not hosts.source.ended_by_guest
    monkeypatch.setitem(NUMBERS, VmState.OFF, [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN])
    assert hosts.source.ended_by_guest
