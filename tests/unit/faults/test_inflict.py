"""A fault is registered before it acts and undone whatever happens; what a killed process left, anybody undoes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from refimpl.faults import FAULTS, Inflicted, Target, inflicted
from refimpl.faults.strikes import STRIKES, Strike
from refimpl.faults.target import Place
from refimpl.hosts.process import alive
from refimpl.hosts.wait import until
from refimpl.lab.errors import LabError
from refimpl.lab.faultbook import FaultBook, FaultRecord, Undo, UndoKind, mounts_tagged, unmount_for_removal
from refimpl.lab.host import LIBVIRTD, VIRTLOCKD
from refimpl.lab.links import Direction, LinkState
from refimpl.lab.undoing import undo, undo_abandoned
from refimpl.model.group import ProcessRef
from tests.unit.faults.stand_in import StandInLab, running, state_of

H1 = Target(host="h1", vm="web", network="migration")
GONE = ProcessRef(1, 1, "another-boot")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[StandInLab]:
    with running() as (_, init):
        yield StandInLab(tmp_path, init)


def struck(lab: StandInLab, name: str, target: Target = H1):
    return inflicted(lab, FAULTS[name], target)  # type: ignore[arg-type]


@pytest.mark.parametrize("daemon", [LIBVIRTD, VIRTLOCKD])
def test_what_is_frozen_stands_still_and_runs_again(lab: StandInLab, daemon: str) -> None:
    with running() as (process, ref):
        lab.daemons["h1", daemon] = ref
        with struck(lab, f"freeze-{daemon}"):
            assert state_of(process.pid) == "T"
            assert [r.fault for r in FaultBook(lab.paths).standing()] == [f"freeze-{daemon}"]
        assert until(lambda: state_of(process.pid) != "T", 10, 0.01)
    assert FaultBook(lab.paths).standing() == ()


def test_a_killed_libvirtd_is_started_again(lab: StandInLab) -> None:
    with running() as (_, ref):
        lab.daemons["h1", LIBVIRTD] = ref
        with struck(lab, "kill-libvirtd"):
            assert not alive(ref)
            del lab.daemons["h1", LIBVIRTD]
    assert lab.done == ["stop libvirtd", "start"]


def test_after_virtlockd_libvirtd_is_started_anew_too_and_in_this_order(lab: StandInLab) -> None:
    with running() as (_, ref), running() as (_, other):
        lab.daemons |= {("h1", VIRTLOCKD): ref, ("h1", LIBVIRTD): other}
        with struck(lab, "kill-virtlockd"):
            del lab.daemons["h1", VIRTLOCKD]
    assert lab.done == ["stop libvirtd", "stop virtlockd", "start"]


def test_a_daemon_that_was_aimed_at_and_not_struck_is_left_alone(lab: StandInLab) -> None:
    with running() as (process, ref):
        lab.daemons["h1", LIBVIRTD] = ref
        with Inflicted(lab, FAULTS["kill-libvirtd"], H1) as fault:  # type: ignore[arg-type]
            fault.aim()
            assert len(FaultBook(lab.paths).standing()) == 1
        assert process.poll() is None
    assert lab.done == []
    assert FaultBook(lab.paths).standing() == ()


@pytest.mark.parametrize(
    ("name", "during"),
    [("link-down", LinkState(False, 7)), ("link-slow", LinkState(True, 3))],
)
def test_a_link_is_as_it_was_before(lab: StandInLab, name: str, during: LinkState) -> None:
    with struck(lab, name, Target(host="h1", network="migration", rate_mbit_s=3)):
        assert lab.the_link.now == during
    assert lab.the_link.now == LinkState(True, 7)


def test_a_link_is_cut_one_way_and_not_any_more(lab: StandInLab) -> None:
    with struck(lab, "link-one-way", Target(host="h1", network="migration", direction=Direction.FROM)):
        assert lab.the_link.lost is Direction.FROM
    assert lab.the_link.lost is None


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_it_is_undone_whatever_happens_inside(lab: StandInLab, failure: type[BaseException]) -> None:
    with pytest.raises(failure), struck(lab, "link-down"):
        raise failure
    assert lab.the_link.now.up
    assert FaultBook(lab.paths).standing() == ()


def of_the_test(act: Callable[[], None]) -> Callable[..., Strike]:
    values = {"host": "h1", "network": "migration", "up": True, "rate_mbit_s": 9}
    return lambda _lab, _target, _id: Strike("a link", act, (Undo(UndoKind.LINK, values),))


def test_it_is_registered_before_it_acts_and_undone_when_the_act_fails_half_way(
    lab: StandInLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def act() -> None:
        seen.append(len(FaultBook(lab.paths).standing()))
        lab.the_link.cut()
        raise OSError("half-way")

    monkeypatch.setitem(STRIKES, "link-down", of_the_test(act))  # type: ignore[misc]
    with pytest.raises(OSError, match="half-way"), struck(lab, "link-down"):
        raise AssertionError("not reached")
    assert seen == [1]
    assert lab.the_link.now == LinkState(True, 9)
    assert FaultBook(lab.paths).standing() == ()


def test_it_strikes_once_and_not_after_its_end(lab: StandInLab, monkeypatch: pytest.MonkeyPatch) -> None:
    acts: list[int] = []
    monkeypatch.setitem(STRIKES, "link-down", of_the_test(lambda: acts.append(1)))  # type: ignore[misc]
    fault = Inflicted(lab, FAULTS["link-down"], H1)  # type: ignore[arg-type]
    with fault:
        threads = [threading.Thread(target=fault.strike) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    fault.strike()
    assert acts == [1]
    late = Inflicted(lab, FAULTS["link-down"], H1)  # type: ignore[arg-type]
    with late:
        pass
    late.strike()
    assert acts == [1]


@pytest.mark.error("fault.stands")
def test_the_same_fault_twice_at_once_is_refused_and_the_first_stays(lab: StandInLab) -> None:
    with struck(lab, "link-down"):
        with pytest.raises(LabError, match=r"fault\.stands"), struck(lab, "link-down"):
            raise AssertionError("not reached")
        assert not lab.the_link.now.up
    assert lab.the_link.now.up


@pytest.mark.error("fault.no_process")
@pytest.mark.parametrize("name", ["kill-libvirtd", "freeze-virtlockd"])
def test_a_daemon_that_does_not_run_cannot_be_struck(lab: StandInLab, name: str) -> None:
    with pytest.raises(LabError, match=r"fault\.no_process"), struck(lab, name):
        raise AssertionError("not reached")
    assert FaultBook(lab.paths).standing() == ()


@pytest.mark.error("fault.no_move")
def test_where_no_move_runs_there_is_no_conductor(lab: StandInLab) -> None:
    with pytest.raises(LabError, match=r"fault\.no_move"), struck(lab, "kill-conductor"):
        raise AssertionError("not reached")


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("kill-qemu", Target(host="h1")),
        ("kill-libvirtd", Target()),
        ("link-down", Target(host="h1")),
        ("disk-full", Target(place=Place.SHARED)),
        ("disk-full", Target(place=Place.HOME)),
    ],
)
def test_a_target_that_lacks_something_is_refused(lab: StandInLab, name: str, target: Target) -> None:
    with pytest.raises(ValueError, match=f"{name} needs"):
        Inflicted(lab, FAULTS[name], target)  # type: ignore[arg-type]


def left(lab: StandInLab, by: ProcessRef = GONE, **values: object) -> FaultRecord:
    """Leave a fault as a process that was killed does."""
    link = {"host": "h1", "network": "migration", "up": True, "rate_mbit_s": 7, **values}
    record = FaultRecord("0a0a0a", "link-down", "a link", by, (Undo(UndoKind.LINK, link),))
    FaultBook(lab.paths).write(record)
    lab.the_link.cut()
    return record


def test_what_a_killed_process_left_is_undone_by_whoever_comes(lab: StandInLab) -> None:
    record = left(lab)
    assert record.abandoned
    assert undo_abandoned(lab) == (record,)  # type: ignore[arg-type]
    assert lab.the_link.now.up
    assert undo_abandoned(lab) == ()  # type: ignore[arg-type]


def test_a_fault_of_a_process_that_lives_is_left_to_it(lab: StandInLab) -> None:
    with running() as (_, ref):
        left(lab, by=ref)
        assert undo_abandoned(lab) == ()  # type: ignore[arg-type]
        assert not lab.the_link.now.up
        assert len(undo_abandoned(lab, everything=True)) == 1  # type: ignore[arg-type]


@pytest.mark.error("fault.not_undone")
def test_what_cannot_be_undone_is_said_and_stays_on_record(lab: StandInLab, monkeypatch: pytest.MonkeyPatch) -> None:
    record = left(lab)

    def refuse(_state: LinkState) -> None:
        raise OSError("no such link")

    monkeypatch.setattr(lab.the_link, "restore", refuse)
    with pytest.raises(LabError, match="no such link"):
        undo(lab, record)  # type: ignore[arg-type]
    assert FaultBook(lab.paths).standing() == (record,)


def test_undoing_twice_is_undoing_once(lab: StandInLab) -> None:
    record = left(lab)
    undo(lab, record)  # type: ignore[arg-type]
    undo(lab, record)  # type: ignore[arg-type]
    assert lab.the_link.now == LinkState(True, 7)


def test_a_record_is_read_back_and_a_damaged_one_is_passed_over(lab: StandInLab) -> None:
    record = left(lab)
    (FaultBook(lab.paths).directory / "ffffff.json").write_text("{")
    assert FaultBook(lab.paths).standing() == (record,)


def test_mounts_are_found_by_the_name_that_they_carry() -> None:
    text = (
        "347 314 0:87 / /a/disk rw,relatime - tmpfs refimpl-abc123-1 rw\n"
        "350 314 0:88 / /a/with\\040space rw shared:1 - overlay refimpl-abc123-1 rw,lowerdir=/x\n"
        "351 314 0:89 / /b rw - overlay refimpl-abc123-12 rw\n"
        "352 314 0:90 / /refimpl-abc123-1 rw - ext4 /dev/sda1 rw\n"
    )
    assert mounts_tagged("refimpl-abc123-1", text) == ["/a/with space", "/a/disk"]


def test_removing_a_lab_without_faults_unmounts_nothing(lab: StandInLab) -> None:
    left(lab)
    assert unmount_for_removal(lab.paths) == []
