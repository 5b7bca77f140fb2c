"""Whole moves by the libvirt backend in a lab: order of events, hand-over, encryption, networks, passes, cancel."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from refimpl.backends.libvirt import connection, stamp
from refimpl.backends.libvirt.domain import VmSpec
from refimpl.backends.libvirt.status import read_status
from refimpl.hosts.factory import channel_for
from refimpl.lab import Lab
from refimpl.lab.host import LIBVIRTD
from refimpl.meter.lines import JoinedLog, join
from refimpl.model.events import Kind
from refimpl.model.facts import Scope, VmState
from refimpl.model.group import Group, HostEntry
from refimpl.model.phase import Side
from refimpl.model.request import CommandKind
from tests.lab.bed import Bed
from tests.lab.lab_support import put, runner
from tests.lab.libvirt_support import (
    Driver,
    driven,
    host_of,
    line_bytes,
    lines,
    made_vm,
    plan_of,
    until,
    wait_for_lines,
)

pytestmark = pytest.mark.lab

LIMIT_BYTES = 2200 << 20
"""Enough for QEMU itself, not for a guest of 2 GiB beside it."""

ORDER = [
    Kind.PREPARED,
    Kind.TRANSFER_STARTED,
    Kind.MEMORY_SEEN,
    Kind.SOURCE_STOPPED,
    Kind.SWITCH_SEEN,
    Kind.DESTINATION_ARRIVED,
    Kind.DESTINATION_RAN,
    Kind.CALL_RETURNED,
    Kind.SETTLED,
    Kind.CLEANED,
]


@contextmanager
def certificate_of(host: HostEntry, other: HostEntry) -> Iterator[None]:
    """Have the migration channel of a host show another host's certificate."""
    channel, there = channel_for(host), channel_for(other)
    pki = "/etc/pki/qemu"
    kept = {name: channel.read(f"{pki}/{name}") for name in ("server-cert.pem", "server-key.pem")}
    for name in kept:
        put(channel, f"{pki}/{name}", there.read(f"{pki}/{name}"))
    try:
        yield
    finally:
        for name, data in kept.items():
            put(channel, f"{pki}/{name}", data)


@contextmanager
def memory_limited(lab: Lab, host: str, limit_bytes: int) -> Iterator[None]:
    """Have a host's daemon, and what it starts, get no more address space than this."""
    init = host_of(lab.group, host).channel.init
    daemon = runner(lab, host).find_daemon(init, LIBVIRTD)
    assert daemon is not None
    before = resource.prlimit(daemon.pid, resource.RLIMIT_AS, (limit_bytes, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(daemon.pid, resource.RLIMIT_AS, before)


@pytest.mark.rule("R18")
def test_a_vm_moves_there_and_back_and_its_guest_loses_nothing(bed: Bed, group: Group, spec: VmSpec) -> None:
    here, there = bed.place(), bed.other()
    before = joined(group, spec)
    for source, destination, compression in ((here, there, "zstd"), (there, here, "xbzrle")):
        plan = plan_of(group, spec, source, destination, compression=compression)
        with driven(group, replace(plan, network=len(plan.networks) - 1)) as driver:
            returned = driver.move()
            assert returned["ok"]
            assert returned["sent_bytes"] > 16 << 20
            assert driver.kinds(without=(Kind.PROGRESS, Kind.PASS_ENDED, Kind.BINDING_SEEN)) == ORDER
            (stopped,), (ran,) = driver.seen(Kind.SOURCE_STOPPED), driver.seen(Kind.DESTINATION_RAN)
            assert (stopped.side, ran.side) == (Side.SOURCE, Side.DESTINATION)
            assert stopped.at_ns < ran.at_ns
            assert ran.at_ns % 1000 == 0, "QEMU tells microseconds"
            facts = driver.backend.observe(Scope(vm=spec.name))
            assert facts.hosts[source].vm(spec.name) is None
            vm = facts.hosts[destination].vm(spec.name)
            assert vm is not None
            assert (vm.state, vm.operation) == (VmState.RUNNING, None)
            assert vm.lease is not None
            assert vm.lease.held
        wait_for_lines(host_of(group, destination), spec.name, 20)
    after, boot = joined(group, spec), before.boots[-1]
    assert after.boots == before.boots
    first, last = before.last_sequence(boot), after.last_sequence(boot)
    assert set(range(first, last + 1)) <= {line.sequence for line in after.lines if line.boot == boot}


def joined(group: Group, spec: VmSpec) -> JoinedLog:
    """Return what the guest has said on both hosts, joined."""
    return join({host.name: line_bytes(host, spec.name) for host in group.hosts})


@pytest.mark.rule("R1")
def test_the_destination_waits_until_it_is_let_run(driver: Driver) -> None:
    driver.prepare()
    driver.give(CommandKind.START_TRANSFER)
    driver.wait_for(Kind.CALL_RETURNED)
    assert driver.seen(Kind.DESTINATION_ARRIVED)
    before = lines(driver.destination, driver.plan.vm)
    evidence = driver.evidence()
    assert (evidence.source.state, evidence.source.bound) == (VmState.ABSENT, True)
    assert (evidence.destination.state, evidence.destination.job_open) == (VmState.PAUSED, False)
    assert evidence.destination.operation == driver.operation
    assert lines(driver.destination, driver.plan.vm) == before
    driver.bind_and_run()
    driver.finish()
    wait_for_lines(driver.destination, driver.plan.vm, 20)


def test_mark_and_reserved_memory_stand_in_the_definition_only_on_the_way(driver: Driver) -> None:
    driver.hold()
    lv = connection.module()
    with connection.fresh(driver.source) as fresh:
        inactive = fresh.lookupByName(driver.plan.vm).XMLDesc(lv.VIR_DOMAIN_XML_INACTIVE)
        assert stamp.from_domain_xml(inactive) == stamp.Stamp(driver.operation, driver.plan)
    seen = read_status(channel_for(driver.destination), driver.plan.vm)
    assert seen is not None
    status = channel_for(driver.destination).read(f"/proc/{seen.pid}/status").decode()
    resident_kib = int(status.partition("VmRSS:")[2].split()[0])
    assert resident_kib > driver.plan.memory_mib << 10, "the memory is there before its pages are sent"
    driver.give(CommandKind.STEER_SWITCH)
    driver.hand_over()
    driver.finish()
    with connection.fresh(driver.destination) as fresh:
        domain = fresh.lookupByName(driver.plan.vm)
        assert (domain.isPersistent(), domain.autostart()) == (1, 0)
        for which in (0, lv.VIR_DOMAIN_XML_INACTIVE):
            assert stamp.NAMESPACE not in domain.XMLDesc(which)
        assert "immediate" not in domain.XMLDesc(lv.VIR_DOMAIN_XML_INACTIVE)


@pytest.mark.rule("R13")
def test_a_network_that_does_not_connect_is_told_and_nothing_else_is_tried(driver: Driver) -> None:
    driver.plan = replace(driver.plan, networks=("203.0.113.9", *driver.plan.networks))
    failed = driver.ask(CommandKind.PREPARE, Kind.NETWORK_FAILED, Kind.PREPARED, Kind.PREPARE_FAILED)
    assert (failed.kind, failed["address"]) == (Kind.NETWORK_FAILED, "203.0.113.9")
    assert failed["problem"].native.text
    assert driver.evidence().source.operation is None
    driver.plan = replace(driver.plan, network=1)
    driver.prepare()
    assert driver.evidence().source.operation == driver.operation


def test_the_migration_channel_refuses_a_peer_that_names_another_host(driver: Driver) -> None:
    plain = driver.plan
    with certificate_of(driver.destination, driver.source):
        for compression in ("", "zstd"):
            driver.operation, driver.events = f"tls{compression}", []
            driver.plan = replace(plain, compression=compression)
            driver.prepare()
            returned = driver.ask(CommandKind.START_TRANSFER, Kind.CALL_RETURNED)
            assert not returned["ok"]
            assert "ertificate does not match the hostname" in returned["problem"].native.text
            driver.roll_back()
        driver.operation, driver.events = "unencrypted", []
        driver.plan = replace(plain, encryption=False)
        assert driver.move()["ok"], "without encryption nobody looks at the certificate"


@pytest.mark.rule("R6")
@pytest.mark.error("memory.not_reserved")
def test_a_destination_without_the_memory_refuses_before_a_page_is_sent(lab: Lab, group: Group) -> None:
    with made_vm(group, "h1", "large", memory_mib=2048, works=False) as spec, memory_limited(lab, "h2", LIMIT_BYTES):
        with driven(group, plan_of(group, spec, "h1", "h2")) as driver:
            driver.prepare()
            refused = driver.ask(CommandKind.START_TRANSFER, Kind.NATIVE_REFUSAL, Kind.MEMORY_SEEN)
            assert (refused.kind, refused.side) == (Kind.NATIVE_REFUSAL, Side.DESTINATION)
            problem = refused["problem"]
            assert (problem.id, problem.host, problem.values["needed_mib"]) == ("memory.not_reserved", "h2", 2048)
            assert "Cannot allocate memory" in problem.text
            driver.roll_back()
            evidence = driver.evidence()
            assert (evidence.source.state, evidence.destination.state) == (VmState.RUNNING, VmState.ABSENT)


@pytest.mark.rule("R16")
@pytest.mark.error("port.rejected")
def test_a_switch_that_takes_no_port_is_told_before_anything_is_touched(lab: Lab, driver: Driver) -> None:
    channel, switch = channel_for(driver.destination), driver.destination.virtual_switch
    rename = ("ip", "link", "set", "dev")
    assert channel.run([*rename, switch, "name", "elsewhere"]).status == 0
    try:
        failed = driver.ask(CommandKind.PREPARE, Kind.PREPARE_FAILED, Kind.PREPARED)
        assert (failed.kind, failed.side) == (Kind.PREPARE_FAILED, Side.DESTINATION)
        assert (failed["problem"].id, failed["problem"].host) == ("port.rejected", driver.plan.destination)
        assert switch in failed["problem"].text
        assert driver.evidence().source.operation is None
    finally:
        assert channel.run([*rename, "elsewhere", "name", switch]).status == 0
    driver.roll_back()
    assert "rp" + driver.operation not in channel.run(["ip", "link"]).stdout


@pytest.mark.rule("R8")
def test_passes_are_counted_and_the_switch_can_be_forced(driver: Driver) -> None:
    driver.hold(bandwidth_mib_s=12)
    while driver.wait_for(Kind.PASS_ENDED)["number"] < 3:
        pass
    driver.give(CommandKind.STEER_SWITCH)
    assert driver.hand_over()["ok"]
    driver.finish()
    numbers = [event["number"] for event in driver.seen(Kind.PASS_ENDED)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert driver.seen(Kind.STEERED)
    kinds = driver.kinds(without=())
    assert Kind.PROGRESS in kinds
    assert Kind.PROGRESS not in kinds[kinds.index(Kind.SWITCH_SEEN) :]
    sample = driver.seen(Kind.PROGRESS)[-1]
    assert 0 < sample["remaining_bytes"] <= sample["total_bytes"]


@pytest.mark.rule("R2", "R4")
def test_a_cancel_in_the_memory_phase_leaves_the_vm_where_it_was(driver: Driver) -> None:
    driver.hold()
    driver.give(CommandKind.REQUEST_CANCEL)
    returned = driver.wait_for(Kind.CALL_RETURNED)
    assert driver.seen(Kind.CANCEL_ACCEPTED)
    assert not returned["ok"]
    assert (returned["problem"].id, returned["problem"].native.code) == ("transfer.cancelled", 78)
    evidence = driver.evidence()
    assert (evidence.source.state, evidence.destination.state) == (VmState.RUNNING, VmState.ABSENT)
    assert evidence.source.lease_held
    assert not evidence.destination.lease_held
    for _ in range(2):
        driver.roll_back()
    assert driver.evidence().source.operation is None
    wait_for_lines(driver.source, driver.plan.vm, 20)


def test_a_cancel_that_comes_before_there_is_a_job_is_not_lost(driver: Driver) -> None:
    driver.plan = replace(driver.plan, bandwidth_mib_s=3)
    driver.prepare()
    driver.give(CommandKind.START_TRANSFER)
    driver.give(CommandKind.REQUEST_CANCEL)
    returned = driver.wait_for(Kind.CALL_RETURNED)
    assert driver.seen(Kind.CANCEL_ACCEPTED)
    assert (returned["ok"], returned["problem"].id) == (False, "transfer.cancelled")
    assert driver.evidence().source.state is VmState.RUNNING
    driver.roll_back()


def test_a_vm_that_was_switched_off_meanwhile_is_not_given_to_libvirt(driver: Driver) -> None:
    """That it was refused would be no word for it: the evidence has to say what has become of the VM."""
    driver.prepare()
    with connection.fresh(driver.source) as fresh:
        fresh.lookupByName(driver.plan.vm).destroy()
    returned = driver.ask(CommandKind.START_TRANSFER, Kind.NATIVE_REFUSAL, Kind.CALL_RETURNED)
    assert (returned.kind, returned["ok"]) == (Kind.CALL_RETURNED, False)
    # When QEMU's own word of its end was heard first, that is the reason, and the evidence says which.
    problem = returned["problem"]
    assert problem is None or f"off on host {driver.plan.source} and not running any more" in problem.text
    assert not driver.seen(Kind.TRANSFER_STARTED)
    driver.roll_back()


def test_facts_name_disks_by_their_files_leases_certificates_and_memory(driver: Driver) -> None:
    facts = driver.backend.observe(Scope(vm=driver.plan.vm))
    source, destination = facts.hosts[driver.plan.source], facts.hosts[driver.plan.destination]
    vm = source.vm(driver.plan.vm)
    assert vm is not None
    (disk,) = vm.disks
    assert disk.identity is not None
    assert destination.disks[disk.path] == disk
    assert vm.lease is not None
    assert vm.lease.held
    assert (source.lock_daemon_alive, destination.lock_daemon_alive) == (True, True)
    assert (source.memory_used_mib, destination.memory_used_mib) == (128, 0)
    for host in (source, destination):
        roles = {c.role: c for c in host.certificates}
        assert set(roles) == {"control-server", "control-client", "migration-server", "migration-client"}
        assert all(c.trusted and c.key_private and host.name in c.names for c in roles.values())
        assert all(c.not_before_s < facts.now_s < c.not_after_s for c in roles.values())
        assert host.addresses
        assert host.versions["libvirt"]
    with replaced_by_a_twin(Path(disk.path)):
        again = driver.backend.observe(Scope(vm=driver.plan.vm)).hosts[driver.plan.destination].disks[disk.path]
    assert again.size_bytes == disk.size_bytes
    assert again.identity != disk.identity, "an unlike disk on the same path"


@contextmanager
def replaced_by_a_twin(path: Path) -> Iterator[None]:
    """Have another file with the same content under a file's name."""
    twin, kept = path.with_suffix(".twin"), path.with_suffix(".kept")
    twin.write_bytes(path.read_bytes())
    path.rename(kept)
    twin.rename(path)
    try:
        yield
    finally:
        kept.rename(path)


def test_a_stop_by_a_person_before_the_transfer_is_no_switch(driver: Driver) -> None:
    driver.prepare()
    with connection.fresh(driver.source) as fresh:
        domain = fresh.lookupByName(driver.plan.vm)
        domain.suspend()
        domain.resume()
    until(lambda: driver.evidence().source.state is VmState.RUNNING, "running again")
    assert not driver.seen(Kind.SOURCE_STOPPED)
