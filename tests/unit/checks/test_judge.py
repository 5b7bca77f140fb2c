"""Each check finds what it is for, with the measured values, and nothing else; all findings come at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from refimpl.checks.subject import subject
from refimpl.model.errors import Native
from refimpl.model.events import Kind
from refimpl.model.facts import DiskFact, Facts, LeaseFact, LeaseSpaceFact, VmState
from refimpl.model.ownership import OwnerRecord
from refimpl.model.phase import Side
from refimpl.model.request import PerformanceOption
from refimpl.model.settings import HostSettings, MigrationSubnet
from tests.builders import NOW_S, OPERATION, PATH, ROLES, certificate, facts, host, request, settings, vm
from tests.judging import found, judged, passed, seen


def test_a_healthy_pair_of_hosts_gives_a_plan() -> None:
    made = judged(facts())
    assert made.kind is Kind.CHECKS_PASSED
    plan = made.values["plan"]
    assert (plan.source, plan.destination, plan.vm_id) == ("a", "b", vm().id)
    assert plan.networks == ("10.1.0.2", "10.2.0.2")
    assert plan.memory_mib == 256


@pytest.mark.parametrize(("carried", "recorded", "highest"), [(3, 0, 3), (3, 5, 5), (6, 5, 6)])
def test_a_plan_knows_the_highest_epoch_that_a_copy_or_the_store_shows(
    carried: int, recorded: int, highest: int
) -> None:
    owners = {vm().id: OwnerRecord(vm().id, "a", recorded)} if recorded else {}
    shown = facts(host("a", vms=(vm(epoch=carried),)), host("b"), owners=owners)
    assert judged(shown).values["plan"].epoch == highest


@pytest.mark.error("vm.unknown")
def test_unknown_vm() -> None:
    problem = found(facts(), request(vm="db"))["vm.unknown"]
    assert "'db'" in problem.text
    assert "web" in problem.text


@pytest.mark.error("host.unknown")
def test_unknown_destination() -> None:
    problems = found(facts(), request(destination="c"))
    assert set(problems) == {"host.unknown"}
    assert problems["host.unknown"].side is Side.DESTINATION


@pytest.mark.error("host.unknown")
def test_unknown_source_is_not_also_an_unknown_vm() -> None:
    assert set(found(facts(), request(source="c"))) == {"host.unknown"}


@pytest.mark.error("host.same")
def test_destination_is_the_source() -> None:
    assert set(found(facts(), request(destination="a"))) == {"host.same"}


@pytest.mark.error("host.down")
@pytest.mark.rule("R19")
def test_destination_down_names_side_host_and_native_code() -> None:
    dead = replace(host("b"), reachable=False, native=Native("rpc", 38, "connection refused"), certificates=())
    problem = found(facts(host("a", vms=(vm(),)), dead))["host.down"]
    assert (problem.side, problem.host) == (Side.DESTINATION, "b")
    assert problem.native == Native("rpc", 38, "connection refused")
    assert "at the destination on host 'b'" in problem.text


@pytest.mark.error("host.down")
def test_source_down_hides_the_vm_and_is_the_only_finding_about_it() -> None:
    dead = replace(host("a"), reachable=False, certificates=())
    assert "host.down" in found(facts(dead, host("b")))


@pytest.mark.error("vm.not_running")
@pytest.mark.parametrize("state", [VmState.PLANNED, VmState.UNKNOWN])
def test_only_what_runs_or_is_paused_or_off_moves(state: VmState) -> None:
    assert state in found(seen(vm(state=state)))["vm.not_running"].text
    for fine in (VmState.PAUSED, VmState.OFF):
        assert passed(seen(vm(state=fine, lease=LeaseFact("/l", False))))


@pytest.mark.error("vm.several")
def test_vm_on_a_third_host_too() -> None:
    seen = facts(host("a", vms=(vm(),)), host("b"), host("c", vms=(vm(state=VmState.OFF),)))
    assert set(found(seen)) == {"vm.several"}


def test_a_planned_vm_is_not_the_source() -> None:
    coming = vm(state=VmState.PLANNED, operation=OPERATION)
    seen = facts(host("a", vms=(coming,)), host("b", vms=(vm(),)))
    looked = subject(request(destination="a"), OPERATION, "g", seen)
    assert looked.places == ("b", "a")
    assert looked.source is not None
    assert looked.source.name == "b"


@pytest.mark.rule("R10")
@pytest.mark.error("vm.stamped")
def test_vm_marked_by_another_operation() -> None:
    assert "vm.stamped" in found(facts(host("a", vms=(vm(operation="ffffffff"),)), host("b")))
    assert judged(facts(host("a", vms=(vm(operation=OPERATION),)), host("b"))).kind is Kind.CHECKS_PASSED


@pytest.mark.rule("R5")
@pytest.mark.error("vm.name_taken")
def test_name_taken_at_the_destination() -> None:
    other = vm(id="other", state=VmState.OFF)
    assert set(found(facts(host("a", vms=(vm(),)), host("b", vms=(other,))))) == {"vm.name_taken"}


@pytest.mark.rule("R5")
@pytest.mark.error("vm.id_taken")
def test_id_taken_at_the_destination() -> None:
    assert set(found(facts(host("a", vms=(vm(),)), host("b", vms=(vm(name="old"),))))) == {"vm.id_taken"}


@pytest.mark.error("host.twin")
def test_two_hosts_of_one_uuid_are_one_to_the_system_below() -> None:
    assert set(found(seen(uuid="uuid-a"))) == {"host.twin"}
    assert passed(seen(here={"uuid": ""}, uuid=""))


@pytest.mark.rule("R6", "R5")
@pytest.mark.error("memory.short")
def test_memory_to_the_last_mebibyte() -> None:
    assert judged(facts(host("a", vms=(vm(),)), host("b", memory_used_mib=1792))).kind is Kind.CHECKS_PASSED
    problems = found(facts(host("a", vms=(vm(),)), host("b", memory_used_mib=1793)))
    assert set(problems) == {"memory.short"}
    assert problems["memory.short"].values["free_mib"] == 255


@pytest.mark.rule("R5")
@pytest.mark.error("disk.missing", "disk.different")
def test_disk_not_the_same_from_both() -> None:
    here = host("a", vms=(vm(),))
    assert set(found(facts(here, host("b", disks={})))) == {"disk.missing"}
    unseen = {PATH: DiskFact(PATH, None)}
    assert set(found(facts(here, host("b", disks=unseen)))) == {"disk.missing"}
    other = {PATH: DiskFact(PATH, "fs7:43")}
    assert set(found(facts(here, host("b", disks=other)))) == {"disk.different"}


@pytest.mark.rule("R1", "R5")
@pytest.mark.error("lease.absent", "lease.unseen", "lease.not_held", "lock_daemon.down")
def test_lease_and_lock_daemon() -> None:
    def with_lease(lease: LeaseFact | None) -> set[str]:
        return set(found(seen(vm(lease=lease))))

    assert with_lease(None) == {"lease.absent"}
    assert with_lease(LeaseFact("/l", None)) == {"lease.unseen"}
    assert with_lease(LeaseFact("/l", False)) == {"lease.not_held"}
    assert set(found(facts(host("a", vms=(vm(),)), host("b", lock_daemon_alive=False)))) == {"lock_daemon.down"}


def bad_certificate(change: dict[str, object] | None, id: str) -> object:
    return pytest.param(change, id, marks=pytest.mark.error(id), id=id)


@pytest.mark.rule("R5")
@pytest.mark.parametrize(
    ("change", "id"),
    [
        bad_certificate({"not_after_s": NOW_S - 1}, "certificate.expired"),
        bad_certificate({"not_before_s": NOW_S + 1}, "certificate.expired"),
        bad_certificate({"names": ("c",)}, "certificate.wrong_name"),
        bad_certificate({"trusted": False}, "certificate.untrusted"),
        bad_certificate({"key_private": False}, "certificate.key_readable"),
        bad_certificate(None, "certificate.missing"),
    ],
)
def test_certificates(change: dict[str, object] | None, id: str) -> None:
    certificates = [certificate(role, "b") for role in ROLES]
    certificates[2:3] = [] if change is None else [certificate("migration-server", "b", **change)]
    seen = facts(host("a", vms=(vm(),)), host("b", certificates=tuple(certificates)))
    assert set(found(seen)) == {id}
    assert judged(seen, request(encryption=False)).kind is Kind.CHECKS_PASSED


@pytest.mark.rule("R1", "R5")
@pytest.mark.error("lease.unreachable", "lease.unshared")
def test_both_hosts_have_to_see_the_same_lease() -> None:
    def with_them(here: LeaseSpaceFact, there: LeaseSpaceFact) -> Facts:
        return seen(here={"lease_space": here}, lease_space=there)

    def with_spaces(here: LeaseSpaceFact, there: LeaseSpaceFact) -> list[tuple[str, str]]:
        return [(id, problem.text) for id, problem in found(with_them(here, there)).items()]

    good = LeaseSpaceFact("/leases/web", "fs:1", probed=True)
    bad = replace(good, identity=None, wrong="there is no such directory")
    assert passed(with_them(good, good))
    none_yet = replace(good, identity=None)
    assert passed(with_them(none_yet, none_yet))
    assert passed(with_them(replace(good, probed=None), replace(good, probed=None)))
    for here, there, place in ((good, bad, "'b'"), (bad, good, "'a'")):
        ((id, text),) = with_spaces(here, there)
        assert id == "lease.unreachable"
        assert f"on host {place}: there is no such directory" in text
    for other in (none_yet, replace(good, identity="fs:2"), replace(good, probed=False)):
        ((id, text),) = with_spaces(good, other)
        assert (id, "fs:1" in text) == ("lease.unshared", True)


@pytest.mark.rule("R1")
@pytest.mark.error("lease.absent")
def test_a_paused_vm_holds_no_lease_but_has_to_have_one_and_one_that_is_off_need_not() -> None:
    assert set(found(seen(vm(state=VmState.PAUSED, lease=None)))) == {"lease.absent"}
    assert passed(seen(vm(state=VmState.PAUSED, lease=LeaseFact("/l", None))))
    assert passed(seen(vm(state=VmState.OFF, lease=None)))


def with_settings(**by_host: HostSettings) -> object:
    return facts(settings={"a": settings(), "b": settings(), **by_host})


@pytest.mark.rule("R13", "R5")
@pytest.mark.error("network.none", "network.no_route")
def test_networks_are_the_destinations_and_need_a_route_from_the_source() -> None:
    listed = settings(networks=(MigrationSubnet("10.9.0.0/24"),))
    assert set(found(with_settings(b=listed))) == {"network.none"}
    assert passed(with_settings(a=listed))
    assert judged(with_settings(b=replace(listed, use_any_network=True))).values["plan"].networks == (
        "10.1.0.2",
        "10.2.0.2",
    )
    assert set(found(seen(here={"routes": ("192.168.0.0/16",)}))) == {"network.no_route"}
    assert judged(seen(here={"routes": ("10.2.0.0/24",)})).values["plan"].networks == ("10.2.0.2",)
    assert passed(seen(vm(state=VmState.OFF), addresses=()))


@pytest.mark.rule("R5", "R12")
@pytest.mark.error("migration.disabled")
@pytest.mark.parametrize("name", ["a", "b"])
def test_migration_has_to_be_enabled_at_both_ends(name: str) -> None:
    problem = found(with_settings(**{name: settings(migration_enabled=False)}))["migration.disabled"]
    assert (problem.host, problem.side) == (name, Side.SOURCE if name == "a" else Side.DESTINATION)


@pytest.mark.rule("R7", "R5", "R19")
@pytest.mark.error("limit.reached")
@pytest.mark.parametrize("name", ["a", "b"])
def test_a_host_at_its_limit_refuses_with_hyper_vs_text(name: str) -> None:
    assert passed(facts(moving={name: ("1",)}))
    problem = found(facts(moving={name: ("1", "2")}))["limit.reached"]
    assert "virtual machine migration limit '2' was reached" in problem.text
    assert problem.host == name


@pytest.mark.rule("R5", "R12")
@pytest.mark.error("compression.none")
def test_compression_needs_a_method_in_common() -> None:
    assert set(found(seen(compression=("qpl",)))) == {"compression.none"}
    assert judged(seen(compression=("xbzrle",))).values["plan"].compression == "xbzrle"
    assert passed(seen(vm(state=VmState.OFF), compression=()))


@pytest.mark.rule("R5")
def test_all_problems_come_at_once() -> None:
    shown = seen(vm(lease=None), disks={}, memory_used_mib=2048, addresses=(), switches=frozenset())
    assert set(found(shown)) == {"lease.absent", "disk.missing", "memory.short", "network.none", "switch.missing"}


@pytest.mark.rule("R8", "R12")
def test_the_sources_bounds_stand_where_the_request_names_none() -> None:
    shown = with_settings(a=settings(pass_limit=9, unexpected_blackout_ms=70), b=settings(pass_limit=3))
    plan = judged(shown).values["plan"]
    assert (plan.pass_limit, plan.unexpected_blackout_ms) == (9, 70)
    assert judged(shown, request(pass_limit=2)).values["plan"].pass_limit == 2


@pytest.mark.rule("R12")
def test_the_sources_performance_option_decides_unless_the_request_names_one() -> None:
    plain, packed = (settings(performance_option=o) for o in (PerformanceOption.TCPIP, PerformanceOption.COMPRESSION))
    for here, there, wish, method in (
        (plain, packed, None, ""),
        (packed, plain, None, "zstd"),
        (packed, plain, PerformanceOption.TCPIP, ""),
        (plain, packed, PerformanceOption.COMPRESSION, "zstd"),
    ):
        plan = judged(with_settings(a=here, b=there), request(performance_option=wish)).values["plan"]
        assert plan.performance_option is (wish or here.performance_option)
        assert plan.compression == method


@pytest.mark.rule("R13")
def test_networks_come_by_priority_and_the_listed_ones_before_all_others() -> None:
    def tried(**there: object) -> tuple[str, ...]:
        networks: tuple[str, ...] = judged(with_settings(b=settings(**there))).values["plan"].networks
        return networks

    first, second = MigrationSubnet("10.1.0.0/24", 2), MigrationSubnet("10.2.0.0/24", 1)
    assert tried(networks=(first, second)) == ("10.2.0.2", "10.1.0.2")
    assert tried(networks=(second,)) == ("10.2.0.2",)
    assert tried(networks=(second,), use_any_network=True) == ("10.2.0.2", "10.1.0.2")
