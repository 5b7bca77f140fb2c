"""Native events in, events of the seam out: order, once each, QEMU's own times."""

from __future__ import annotations

from typing import Any

import pytest

from refimpl.backends.libvirt.watch import NativeEvent, Watch
from refimpl.model.events import Event, Kind
from refimpl.model.phase import Side
from tests.unit.backends.libvirt.recorded import PLAN

S, D = Side.SOURCE, Side.DESTINATION


def qmp(name: str, at_ns: int = 1, **details: Any) -> NativeEvent:
    return NativeEvent("qmp", at_ns, name=name, details=details)


def status(name: str, at_ns: int = 1) -> NativeEvent:
    return qmp("MIGRATION", at_ns, status=name)


def lifecycle(event: int, detail: int, at_ns: int = 1) -> NativeEvent:
    return NativeEvent("lifecycle", at_ns, event=event, detail=detail)


RECORDED = [
    (D, status("setup", 10)),
    (D, lifecycle(2, 1, 11)),
    (S, status("setup", 20)),
    (D, status("active", 21)),
    (S, qmp("MIGRATION_PASS", 22, **{"pass": 1})),
    (S, status("active", 23)),
    (S, qmp("MIGRATION_PASS", 30, **{"pass": 2})),
    (S, qmp("STOP", 31)),
    (S, lifecycle(3, 1, 32)),
    (S, status("pre-switchover", 33)),
    (S, status("device", 34)),
    (S, qmp("MIGRATION_PASS", 35, **{"pass": 3})),
    (D, status("completed", 40)),
    (S, status("completed", 41)),
    (D, lifecycle(0, 0, 42)),
    (D, lifecycle(3, 0, 43)),
    (D, qmp("RESUME", 50)),
    (D, lifecycle(4, 0, 51)),
    (S, qmp("SHUTDOWN", 60, guest=False)),
    (S, lifecycle(6, 2, 61)),
    (S, lifecycle(5, 3, 62)),
    (S, NativeEvent("job", 63, details={"downtime": 248, "memory_processed": 98264430})),
]


def watching() -> Watch:
    watch = Watch(PLAN, "job")
    watch.following = True
    return watch


def tell(watch: Watch, *told: tuple[Side, NativeEvent]) -> list[Event]:
    return [event for side, native in told for event in watch.tell(side, native)]


@pytest.mark.rule("R18")
def test_a_recorded_move_is_told_in_the_words_of_the_seam() -> None:
    watch = watching()
    events = tell(watch, *RECORDED)
    assert [(e.kind, e.at_ns, e.side) for e in events] == [
        (Kind.TRANSFER_STARTED, 20, S),
        (Kind.MEMORY_SEEN, 23, S),
        (Kind.PASS_ENDED, 30, S),
        (Kind.SOURCE_STOPPED, 31, S),
        (Kind.SWITCH_SEEN, 31, S),
        (Kind.DESTINATION_ARRIVED, 43, D),
        (Kind.DESTINATION_RAN, 50, D),
    ]
    assert [e.host for e in events if e.side is D] == ["h2", "h2"]
    assert watch.statistics["downtime"] == 248


def test_what_happens_before_the_transfer_is_not_part_of_it() -> None:
    watch = Watch(PLAN, "job")
    before = [(S, qmp("STOP")), (S, qmp("RESUME")), (S, lifecycle(5, 0)), (D, lifecycle(3, 0))]
    assert tell(watch, *before) == []


@pytest.mark.rule("R18")
def test_a_source_that_resumes_is_told_only_after_its_stop() -> None:
    watch = watching()
    assert tell(watch, (S, qmp("RESUME"))) == []
    kinds = [e.kind for e in tell(watch, (S, qmp("STOP", 5)), (S, qmp("RESUME", 6)), (S, qmp("STOP", 7)))]
    assert kinds == [Kind.SOURCE_STOPPED, Kind.SWITCH_SEEN, Kind.SOURCE_RESUMED]


@pytest.mark.rule("R18")
def test_a_stop_because_of_the_disk_is_no_switch() -> None:
    watch = watching()
    assert tell(watch, (S, qmp("BLOCK_IO_ERROR", action="stop")), (S, qmp("STOP"))) == []
    assert not watch.switched
    events = tell(watch, (S, qmp("RESUME")), (S, qmp("STOP")))
    assert [e.kind for e in events] == [Kind.SOURCE_STOPPED, Kind.SWITCH_SEEN]


@pytest.mark.rule("R8")
def test_passes_are_counted_from_the_first_of_this_transfer() -> None:
    watch = watching()
    numbers = [e["number"] for n in (4, 5, 5, 7) for e in tell(watch, (S, qmp("MIGRATION_PASS", **{"pass": n})))]
    assert numbers == [1, 3]


@pytest.mark.rule("R8")
def test_an_adopted_transfer_counts_from_qemus_first_pass() -> None:
    watch = Watch(PLAN, "job")
    watch.adopt()
    assert [e["number"] for e in watch.passes(4, 9)] == [3]


@pytest.mark.parametrize(("event", "detail", "gone"), [(5, 0, True), (5, 5, True), (8, 0, True), (5, 3, False)])
def test_the_source_is_gone_when_it_ends_without_a_finished_hand_over(event: int, detail: int, gone: bool) -> None:
    kinds = [e.kind for e in tell(watching(), (S, lifecycle(event, detail)))]
    assert kinds == ([Kind.SOURCE_GONE] if gone else [])


def test_a_source_that_ends_after_the_destination_ran_is_not_missed() -> None:
    assert [e.kind for e in tell(watching(), (D, qmp("RESUME")), (S, lifecycle(5, 1)))] == [Kind.DESTINATION_RAN]


def test_the_memory_phase_ends_with_anything_of_the_switch() -> None:
    for side, native in ((S, status("device")), (S, qmp("STOP")), (D, lifecycle(3, 0)), (D, qmp("RESUME"))):
        watch = watching()
        tell(watch, (S, status("active")))
        assert watch.in_memory_phase
        tell(watch, (side, native))
        assert not watch.in_memory_phase
        assert watch.switched


@pytest.mark.parametrize(("end", "panicked"), [("SHUTDOWN", False), ("GUEST_PANICKED", True)])
def test_a_guest_that_ends_by_itself_is_no_switch(end: str, panicked: bool) -> None:
    watch = watching()
    told = ((S, status("active")), (S, qmp(end, guest=True)), (S, qmp("STOP")), (S, lifecycle(5, 0)))
    assert [e.kind for e in tell(watch, *told)] == [Kind.TRANSFER_STARTED, Kind.MEMORY_SEEN, Kind.SOURCE_GONE]
    assert watch.panicked is panicked
    assert not watch.switched
