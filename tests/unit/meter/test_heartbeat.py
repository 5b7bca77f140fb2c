from __future__ import annotations

from refimpl.meter.heartbeat import continuity, heartbeat_verdict
from refimpl.meter.verdict import State
from tests.unit.meter.guest_lines import BOOT, beats, line, log_of, said


def test_nothing_missing_over_two_hosts_is_ok():
    verdict = heartbeat_verdict(log_of(a=beats(1, 50), b=beats(51, 90)), BOOT, "b")
    assert (verdict.state, verdict.figures["beats"]) == (State.OK, 90)


def test_lines_that_were_lost_at_the_switch_are_counted():
    verdict = heartbeat_verdict(log_of(a=beats(1, 50), b=beats(54, 90)), BOOT, "b")
    assert verdict.state is State.BAD
    assert (verdict.figures["lines_missing"], verdict.figures["first_missing"]) == (3, 51)


def test_lines_lost_at_the_very_beginning_are_counted():
    assert continuity(log_of(a=beats(3, 9)), BOOT).lines_missing == 2


def test_heartbeats_never_sent_are_told_from_lines_lost():
    found = continuity(log_of(a=[line(1, "beat 1"), line(2, "beat 5")]), BOOT)
    assert (found.lines_missing, found.beats_missing) == (0, 3)
    assert heartbeat_verdict(log_of(a=said("beat 1", "beat 5")), BOOT, "a").state is State.BAD


def test_two_running_copies_show_as_doubles():
    verdict = heartbeat_verdict(log_of(a=beats(1, 60), b=beats(51, 90)), BOOT, "b")
    assert (verdict.state, verdict.figures["duplicated"]) == (State.BAD, 10)


def test_lines_out_of_order_are_bad():
    lines = beats(1, 10)
    lines[4], lines[5] = lines[5], lines[4]
    verdict = heartbeat_verdict(log_of(a=lines), BOOT, "a")
    assert (verdict.state, verdict.figures["reordered"]) == (State.BAD, 1)


def test_a_guest_that_was_started_again_did_not_survive():
    again = said("boot time_s=900", "beat 1", boot="ffffff")
    verdict = heartbeat_verdict(log_of(a=[*said("boot time_s=100"), *beats(2, 9)], b=again), BOOT, "a")
    assert (verdict.state, "started again" in verdict.text) == (State.BAD, True)


def test_a_destination_that_is_not_heard_is_not_measured():
    assert heartbeat_verdict(log_of(a=beats(1, 50), b=[]), BOOT, "b").state is State.NOT_MEASURED
    assert heartbeat_verdict(log_of(a=[]), BOOT, "b").state is State.NOT_MEASURED


def test_there_and_back_is_heard_on_the_first_host():
    log = log_of(a=[*beats(1, 50), *beats(71, 90)], b=beats(51, 70))
    assert heartbeat_verdict(log, BOOT, "a").state is State.OK
    assert heartbeat_verdict(log, BOOT, "b").state is State.NOT_MEASURED
