from __future__ import annotations

from refimpl.meter.memory import memory_verdict
from refimpl.meter.verdict import State
from refimpl.meter.watch import whole_check_after
from tests.unit.meter.guest_lines import BOOT, log_of, said


def test_a_whole_check_after_the_move_is_ok():
    log = log_of(
        a=said("check-start 1", "beat 1"), b=said("check-end 1 16 0 -", "check-start 2", "check-end 2 16 0 -", first=3)
    )
    verdict = memory_verdict(log, BOOT, 2)
    assert (verdict.state, verdict.figures["pages"], verdict.figures["whole_checks"]) == (State.OK, 16, 1)
    assert whole_check_after(BOOT, 2)(log)


def test_a_check_begun_before_the_move_does_not_count():
    log = log_of(a=said("check-start 1", "beat 1"), b=said("check-end 1 16 0 -", "check-start 2", first=3))
    assert memory_verdict(log, BOOT, 2).state is State.NOT_MEASURED
    assert not whole_check_after(BOOT, 2)(log)


def test_bad_pages_in_a_check_are_bad():
    verdict = memory_verdict(log_of(b=said("check-start 1", "check-end 1 16 2 5")), BOOT, 0)
    assert (verdict.state, verdict.figures["bad_pages"]) == (State.BAD, 2)
    assert "page 5" in verdict.text


def test_one_bad_page_is_bad_before_the_check_has_ended():
    verdict = memory_verdict(log_of(b=said("check-start 1", "bad-page 5 7 500000006 7ff000")), BOOT, 0)
    assert (verdict.state, verdict.figures["bad_pages"]) == (State.BAD, 1)
    assert "guest-physical 7ff000" in verdict.text


def test_a_bad_page_from_before_the_move_is_not_the_move_s():
    log = log_of(
        a=said("check-start 1", "bad-page 5 7 500000006 7ff000", "check-end 1 16 1 5"),
        b=said("check-start 2", "check-end 2 16 0 -", first=4),
    )
    assert memory_verdict(log, BOOT, 3).state is State.OK


def test_another_boot_s_checks_do_not_count():
    assert (
        memory_verdict(log_of(b=said("check-start 1", "check-end 1 16 0 -")), "ffffff", 0).state is State.NOT_MEASURED
    )
