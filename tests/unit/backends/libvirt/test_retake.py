"""A source that runs on without its lease when its move is rolled back, on hosts made of fakes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from refimpl.backends.libvirt import connection, retake, settle, stamp
from refimpl.backends.libvirt.operation import Operation, Reach
from refimpl.backends.libvirt.running import mending_xml
from refimpl.backends.libvirt.tap import Taps
from refimpl.model.events import Event, Kind
from refimpl.model.group import HostEntry
from refimpl.model.learning import record
from refimpl.model.ownership import OwnerRecord
from refimpl.model.phase import Phase
from tests.builders import destination, evidence, ledger, source
from tests.unit.backends.libvirt import recorded as r
from tests.unit.backends.libvirt.lease_host import BUSY, DAEMON, Host, without_lease
from tests.unit.backends.libvirt.mover import refusal

libvirt = pytest.importorskip("libvirt")

PLAN = replace(r.PLAN, vm="web")
AGAIN = ["file", "mark", "suspend", "resume", "unmark"]
LIBVIRTD = 60


class Domain:
    """The VM on the host under test, as libvirt gives it; the rest is the host's."""

    def __init__(self, host: Host, epoch: int) -> None:
        self._host, self._epoch = host, epoch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def state(self) -> list[int]:
        paused = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER]
        return [libvirt.VIR_DOMAIN_RUNNING, 1] if self._host.state == "running" else paused

    def XMLDesc(self, _flags: int) -> str:
        mark = stamp.to_xml(stamp.Stamp("op", PLAN, self._epoch))
        mark = mark.replace("<operation", f"<operation xmlns='{stamp.NAMESPACE}'", 1)
        return f"<domain><metadata>{mark}</metadata></domain>"


class Bench:
    """A source that runs without its lease, and a destination on which there is nothing."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host, self.there, self.events, self.epoch = host, Host(), [], 2
        self.events: list[Event] = []
        self.silent = False
        host.lock_daemon, host.ordered = True, True
        self.libvirtd_began(200)
        monkeypatch.setattr(connection, "fresh", self.fresh)
        monkeypatch.setattr(connection, "find", lambda name, _: Domain(host, self.epoch) if name == "h1" else None)
        monkeypatch.setattr(retake, "channel_for", lambda _: self.there)
        reach = Reach(r.GROUP, PLAN, connection.Connections(), Taps(lambda: 0))
        reach.source_channel, reach.destination_channel = host, self.there
        self.there.state = ""
        self.operation = Operation("op", PLAN, reach, self.events.append, lambda: 0)
        self.operation.ownership = OwnerRecord(r.VM_ID, "h1", 2, None, "op")

    def libvirtd_began(self, ticks: int) -> None:
        """Have the lock daemon begun at 100 and libvirtd then."""
        files = {"/run/virtlockd.pid": str(DAEMON), "/run/libvirtd.pid": str(LIBVIRTD)}
        for pid, began in ((DAEMON, 100), (LIBVIRTD, ticks)):
            files[f"/proc/{pid}/stat"] = f"{pid} (a (b) c) S {'0 ' * 18}{began} 0"
        self.host.files |= {path: text.encode() for path, text in files.items()}

    @contextmanager
    def fresh(self, host: HostEntry, timeout_s: float = 1) -> Iterator[str]:
        if self.silent and host.name == "h2":
            raise TimeoutError("host h2 does not answer")
        yield host.name

    def settled(self) -> Event:
        settle.settle_source(self.operation)
        return self.events[-1]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(without_lease(monkeypatch), monkeypatch)


@pytest.mark.rule("R1", "R2")
@pytest.mark.error("lease.taken_again")
def test_a_source_that_ran_on_by_itself_has_its_lease_again_when_the_move_is_undone(bench: Bench) -> None:
    told = bench.settled()
    assert bench.host.done == AGAIN
    assert (told.kind, told["lease_taken"], told["pause_ms"]) == (Kind.SETTLED, True, 24.0)
    before = record(ledger(), evidence(source(lease_held=False), destination()), Phase.RECONCILE)
    after = record(before, replace(told, host="a"), Phase.UNDOING)
    assert [w.id for w in before.warnings] == ["lease.not_taken"]
    assert [w.id for w in after.warnings] == ["lease.taken_again"]
    assert "24 ms" in after.warnings[0].text


def test_one_that_has_its_lease_does_not_stand_still(bench: Bench) -> None:
    bench.host.holder = DAEMON
    assert (bench.settled()["lease_taken"], bench.host.done) == (None, [])


@pytest.mark.rule("R1")
def test_it_runs_on_without_its_lease_where_it_could_not_be_resumed(bench: Bench) -> None:
    """libvirtd began before the lock daemon; or the lease is another host's; or the other host is silent."""
    bench.libvirtd_began(50)
    assert (bench.settled().kind, bench.host.done) == (Kind.SETTLED, [])
    bench.libvirtd_began(200)
    bench.there.holder = DAEMON
    assert (bench.settled().kind, bench.host.done) == (Kind.SETTLED, [])
    bench.there.holder, bench.silent = None, True
    assert (bench.settled().kind, bench.host.done) == (Kind.SETTLED, [])
    for path in ("/run/libvirtd.pid", "/run/virtlockd.pid"):
        bench.silent = False
        del bench.host.files[path]
        assert (bench.settled().kind, bench.host.done) == (Kind.SETTLED, [])


@pytest.mark.rule("R1")
def test_a_copy_that_was_taken_over_meanwhile_is_not_touched(bench: Bench) -> None:
    bench.epoch = 5
    assert (bench.settled().kind, bench.host.done) == (Kind.CANNOT_SETTLE, [])


@pytest.mark.rule("R2")
def test_one_that_stays_paused_for_it_is_said_and_the_next_recovery_resumes_it(bench: Bench) -> None:
    bench.host.raises["resume"] = refusal(BUSY)
    assert bench.settled().kind is Kind.CANNOT_SETTLE
    assert bench.host.state == "paused"
    assert bench.settled()["lease_taken"]
    assert bench.host.state == "running"


@pytest.mark.rule("R2")
def test_what_a_person_has_paused_stays_paused(bench: Bench) -> None:
    bench.host.state = "paused"
    assert (bench.settled().kind, bench.host.done) == (Kind.SETTLED, [])
    bench.host.setMetadata(0, mending_xml(99), "p", "urn:refimpl:lease:1", 0)
    bench.host.done.clear()
    assert (bench.settled().kind, bench.host.done) == (Kind.SETTLED, [])
