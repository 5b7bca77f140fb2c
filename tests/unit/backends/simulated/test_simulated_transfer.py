"""The model of a transfer: passes, convergence, bandwidth, and what each side does by itself when something breaks."""

from __future__ import annotations

from typing import Any

import pytest

from refimpl.backends.simulated import World
from refimpl.model.events import Event, Kind
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from refimpl.model.request import HandOver, MigrationRequest
from tests.contract.benches import world
from tests.moves import Rig

MIB = 1 << 20
LINK = 117_000_000


def moved(request: MigrationRequest | None = None, **changes: Any) -> tuple[Rig, Outcome]:
    rig = Rig(world(**changes), request or MigrationRequest("web", "b"))
    outcome = rig.start()
    assert outcome is not None
    return rig, outcome


def pass_bytes(rig: Rig) -> list[int]:
    """Return how much each pass has sent."""
    totals, last = [], 0
    for event in rig.events:
        if event.kind is Kind.PROGRESS:
            last = event["sent_bytes"]
        elif event.kind is Kind.PASS_ENDED:
            totals.append(last - sum(totals))
    return totals


def first(rig: Rig, kind: Kind) -> Event:
    return next(event for event in rig.events if event.kind is kind)


def test_the_first_pass_sends_all_and_each_further_one_what_was_written_meanwhile() -> None:
    rig, _ = moved()
    sent = pass_bytes(rig)
    assert sent[0] == 256 * MIB
    assert sent[1] == pytest.approx(256 * MIB / LINK * 20_000_000, rel=0.01)


def test_a_pass_never_sends_more_than_the_working_set() -> None:
    rig, outcome = moved(dirty=900_000_000)
    assert pass_bytes(rig)[1:] == [200 * MIB] * 4
    assert outcome.end is Phase.COMPLETED


def test_an_idle_guest_needs_one_pass() -> None:
    _, outcome = moved(dirty=0)
    assert outcome.passes == 1
    assert outcome.sent_bytes == 256 * MIB


def test_it_switches_when_the_rest_fits_into_the_downtime_limit() -> None:
    _, short = moved(downtime_limit_ms=1, dirty=60_000_000)
    _, long = moved(downtime_limit_ms=2000, dirty=60_000_000)
    assert short.passes > long.passes
    assert (long.blackout_ms or 0) > (short.blackout_ms or 0)


@pytest.mark.rule("R8")
@pytest.mark.parametrize("limit", [1, 3, 5])
def test_the_pass_limit_bounds_a_pre_copy_that_never_converges(limit: int) -> None:
    _, outcome = moved(MigrationRequest("web", "b", pass_limit=limit), dirty=900_000_000)
    assert outcome.passes == limit
    assert outcome.end is Phase.COMPLETED


def test_a_bandwidth_limit_below_the_link_slows_the_move() -> None:
    rig, _ = moved(MigrationRequest("web", "b", bandwidth_mib_s=10))
    assert first(rig, Kind.PROGRESS)["bytes_s"] == 10 * MIB
    rig, _ = moved(MigrationRequest("web", "b", bandwidth_mib_s=10_000))
    assert first(rig, Kind.PROGRESS)["bytes_s"] == LINK


def test_three_figures_are_three_figures() -> None:
    _, outcome = moved()
    assert outcome.blackout_ms is not None
    assert outcome.qemu_downtime_ms is not None
    assert outcome.qemu_downtime_ms < outcome.blackout_ms


def test_a_dirty_rate_follows_its_curve() -> None:
    spec = world().spec
    vm = spec.vms[0].model_copy(update={"dirty_bytes_s": ((0.0, 1000), (10.0, 3000)), "working_set_mib": 64})
    one = World(spec)
    one.clock.advance_to(one.start_ns + 12_000_000_000)
    assert one.dirtied_bytes(vm, one.start_ns) == 10 * 1000 + 2 * 3000
    assert one.dirtied_bytes(vm, one.start_ns + 9_000_000_000) == 1000 + 2 * 3000
    assert one.dirtied_bytes(vm, one.start_ns + 11_500_000_000) == 1500


def freeze(during: str, for_ms: int, host: str = "b") -> dict[str, Any]:
    return {"faults": [{"kind": "host-freezes", "host": host, "during": during, "for_ms": for_ms}]}


def test_a_freeze_shorter_than_the_keepalive_is_waited_out() -> None:
    _, outcome = moved(**freeze("arrived", 3_000))
    assert outcome.end is Phase.COMPLETED
    assert (outcome.blackout_ms or 0) > 3_000


def test_a_link_that_comes_back_in_time_is_waited_out() -> None:
    drop = {"kind": "link-drops", "network": "migration", "during": "memory", "for_ms": 3_000}
    _, outcome = moved(faults=[drop])
    assert outcome.end is Phase.COMPLETED
    assert (outcome.total_ms or 0) >= (moved()[1].total_ms or 0) + 3_000


def test_a_source_that_is_slow_after_the_arrival_finds_the_reply() -> None:
    rig, outcome = moved(**freeze("arrived", 30_000, host="a"))
    assert outcome.completed
    assert rig.copies() == {"b": "running"}


@pytest.mark.rule("R1")
@pytest.mark.parametrize("hand_over", [HandOver.STRICT, HandOver.DELEGATED])
@pytest.mark.parametrize("during", ["switch", "arrived"])
def test_with_leases_no_freeze_leaves_two_running_copies(hand_over: HandOver, during: str) -> None:
    rig, _ = moved(hand_over=hand_over, **freeze(during, 20_000))
    rig.world.clock.advance_to(rig.world.now_ns() + 60_000_000_000)
    assert [state for state in rig.copies().values() if state == "running"] == ["running"]


def test_without_leases_a_delegated_hand_over_leaves_two_running_copies() -> None:
    """The world shows the measured danger (libvirt-qemu 3.3, S2): without it nothing would prove the lease."""
    rig, _ = moved(hand_over=HandOver.DELEGATED, leases=False, **freeze("arrived", 20_000))
    rig.world.clock.advance_to(rig.world.now_ns() + 60_000_000_000)
    assert rig.copies() == {"a": "running", "b": "running"}


@pytest.mark.rule("R1")
def test_without_leases_a_strict_hand_over_leaves_one_running_copy() -> None:
    rig, outcome = moved(leases=False, **freeze("arrived", 20_000))
    rig.world.clock.advance_to(rig.world.now_ns() + 60_000_000_000)
    assert rig.copies() == {"a": "running", "b": "paused"}
    assert outcome.end is Phase.FAILED


@pytest.mark.rule("R6")
def test_the_whole_memory_is_reserved_in_set_up() -> None:
    rig = Rig(world())
    rig.start(kill_at=Phase.MEMORY.value)
    assert rig.world.memory_used_mib("b") == 256


@pytest.mark.rule("R2")
@pytest.mark.parametrize(
    ("kind", "during"),
    [("host-dies", during) for during in ("prepare", "start", "memory", "switch", "arrived")]
    + [("destination-dies", during) for during in ("memory", "switch", "arrived")],
)
def test_a_destination_that_dies_before_commit_leaves_the_vm_at_the_source(kind: str, during: str) -> None:
    named = {"host": "b"} if kind == "host-dies" else {}
    rig, outcome = moved(faults=[{"kind": kind, "during": during, **named}])
    assert rig.copies()["a"] == "running"
    assert rig.copies().get("b") in (None, "off")
    assert outcome.end is Phase.FAILED


@pytest.mark.parametrize("during", ["memory", "switch", "arrived", "bound", "ran"])
def test_a_source_host_that_dies_never_makes_two(during: str) -> None:
    rig, outcome = moved(faults=[{"kind": "host-dies", "host": "a", "during": during}])
    assert list(rig.copies().values()).count("running") <= 1
    if during in ("memory", "switch", "arrived"):
        assert outcome.end in (Phase.INDETERMINATE, Phase.LOST)


def test_a_fault_at_a_pass_and_one_at_a_time() -> None:
    rig, outcome = moved(faults=[{"kind": "call-fails", "on_pass": 2}])
    assert (outcome.end, outcome.passes) == (Phase.FAILED, 2)
    rig, outcome = moved(faults=[{"kind": "source-dies", "at_s": 1.5}])
    gone = first(rig, Kind.SOURCE_GONE)
    assert gone.at_ns == rig.world.start_ns + 1_500_000_000
    assert outcome.end is Phase.LOST
