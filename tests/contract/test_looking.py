"""OBSERVE and INSPECT: they look, change nothing, and a host that does not answer is a fact."""

from __future__ import annotations

import pytest

from refimpl.model.events import Kind
from refimpl.model.facts import Scope, VmState
from refimpl.model.request import CommandKind as C
from tests.contract.harness import OPERATION, Bench


def test_observe_answers_once_with_all_hosts(bench: Bench) -> None:
    facts = bench.ask(C.OBSERVE, Kind.FACTS_SEEN)["facts"]
    bench.barrier()
    assert bench.count(Kind.FACTS_SEEN) == 1
    assert {bench.h.source, bench.h.destination} <= set(facts.hosts)


def test_observe_shows_the_vm_where_it_is(bench: Bench) -> None:
    plan = bench.h.plan()
    facts = bench.h.backend.observe(Scope(vm=plan.vm))
    vm = facts.hosts[plan.source].vm(plan.vm)
    assert vm is not None
    assert (vm.id, vm.state, vm.operation) == (plan.vm_id, VmState.RUNNING, None)
    assert vm.memory_mib > 0
    assert facts.hosts[plan.source].memory_used_mib >= vm.memory_mib
    assert facts.hosts[plan.destination].vm(plan.vm) is None
    assert facts.now_s > 0


def test_observe_is_free_of_side_effects(bench: Bench) -> None:
    before = bench.evidence()
    first = bench.h.backend.observe(Scope()).hosts
    bench.ask(C.OBSERVE, Kind.FACTS_SEEN)
    again = bench.h.backend.observe(Scope()).hosts
    assert {n: (h.vms, h.memory_used_mib) for n, h in first.items()} == {
        n: (h.vms, h.memory_used_mib) for n, h in again.items()
    }
    assert bench.evidence() == before


def test_observe_only_the_hosts_in_the_scope(bench: Bench) -> None:
    assert set(bench.h.backend.observe(Scope(hosts=(bench.h.destination,))).hosts) == {bench.h.destination}


def test_observe_leaves_out_a_host_that_the_group_does_not_know(bench: Bench) -> None:
    assert "no-such-host" not in bench.h.backend.observe(Scope(hosts=("no-such-host", bench.h.source))).hosts


def test_observe_of_an_unknown_vm_is_no_error(bench: Bench) -> None:
    facts = bench.h.backend.observe(Scope(vm="no-such-vm"))
    assert all(host.reachable and host.vm("no-such-vm") is None for host in facts.hosts.values())


def test_observe_of_a_host_that_is_down_says_so(bench: Bench) -> None:
    bench.needs("host_down")
    bench.h.host_down(bench.h.destination)
    hosts = bench.h.backend.observe(Scope()).hosts
    assert not hosts[bench.h.destination].reachable
    assert hosts[bench.h.destination].native is not None
    assert hosts[bench.h.source].reachable


def test_inspect_answers_once(bench: Bench) -> None:
    bench.barrier()
    assert bench.count(Kind.EVIDENCE_SEEN) == 2


def test_inspect_before_a_move_shows_the_vm_at_the_source(bench: Bench) -> None:
    seen = bench.evidence()
    assert (seen.source.state, seen.destination.state) == (VmState.RUNNING, VmState.ABSENT)
    assert not seen.source.job_open
    assert not seen.destination.job_open
    assert not seen.source.bound


def test_inspect_shows_the_mark_of_the_operation(bench: Bench) -> None:
    bench.prepare()
    assert bench.evidence().source.operation == OPERATION


@pytest.mark.parametrize("side", ["source", "destination"])
def test_inspect_of_a_host_that_is_down_says_not_reachable(bench: Bench, side: str) -> None:
    bench.needs("host_down")
    bench.h.host_down(getattr(bench.h, side))
    seen = bench.evidence()
    other = "destination" if side == "source" else "source"
    assert not getattr(seen, side).reachable
    assert getattr(seen, side).state is VmState.UNKNOWN
    assert getattr(seen, other).reachable


def test_inspect_during_a_transfer_shows_an_open_job(bench: Bench) -> None:
    bench.start_held()
    seen = bench.evidence()
    assert seen.source.job_open
    assert not seen.source.bound
    assert seen.source.state is VmState.RUNNING


def test_inspect_after_a_move_shows_it_at_the_destination(bench: Bench) -> None:
    bench.move()
    seen = bench.evidence()
    assert seen.destination.state is VmState.RUNNING
    assert seen.source.state in (VmState.ABSENT, VmState.OFF)
    assert not seen.source.job_open
    assert not seen.destination.job_open
    assert seen.source.bound
