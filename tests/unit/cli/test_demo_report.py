"""The demo's report: the table, what is not green, exit codes, leftovers."""

from __future__ import annotations

import re
from dataclasses import replace

import click
import pytest

from refimpl.app.demo import DemoReport, WatchedMove
from refimpl.app.machine import Machine
from refimpl.cli.demo import problems, report_text
from refimpl.meter.blackout import blackout
from refimpl.meter.verdict import State, Verdict, not_measured
from refimpl.model.events import Kind
from refimpl.model.phase import Phase
from tests.unit.cli.fakes import NOW_NS, outcome

MACHINE = Machine(2, 4096, 50.0, "Linux 6", "3.11")
GAP = {"outside_gap_ms": 99.5, "period_ms": 10, "before_median_ms": 10.1, "before_p99_ms": 13.9, "before_max_ms": 20.5}
GOOD = (
    Verdict("blackout", State.OK, "", {"blackout_ms": 45.6}),
    Verdict("outside gap", State.OK, "", GAP),
    Verdict("heartbeat", State.OK, "", {"beats": 206, "beats_missing": 0, "duplicated": 0}),
    Verdict("disk", State.OK, "", {"acknowledged": 9}),
    Verdict("memory", State.OK, "", {"pages": 2048}),
    Verdict("tcp stream", State.OK, "", {"longest_pause_ms": 219.04}),
    Verdict("switch", State.OK, "", {"mac_relearned_ms": 0.23, "told_by": "rarp"}),
    Verdict("wire", State.OK, "", {"memory_markers": 0}),
)


def move(*verdicts: Verdict, end: Phase = Phase.COMPLETED) -> WatchedMove:
    replaced = {verdict.name: verdict for verdict in (*GOOD, *verdicts)}
    return WatchedMove("h1", "h2", outcome(end), tuple(replaced.values()))


def report(*moves: WatchedMove, left: list[str] | None = None) -> DemoReport:
    return DemoReport("libvirt", MACHINE, "tcg: no KVM", "abc123", {"lab up": 1.0}, list(moves), left or [])


def text(found: DemoReport) -> str:
    return click.unstyle(report_text(found))


def rows(found: DemoReport, *words: str) -> list[list[str]]:
    """Return the rows of the table whose head has these words, cells apart by two blanks."""
    lines = text(found).splitlines()
    at = next(n for n, line in enumerate(lines) if all(word in line for word in words))
    return [re.split(r"  +", line) for line in lines[at + 1 : at + 1 + len(found.moves)]]


def test_two_green_moves_and_nothing_left_are_green():
    found = report(move(), move())
    assert (found.green, found.exit_code) == (True, 0)
    assert "demo: GREEN" in text(found)
    assert "nothing left" in text(found)
    engine, observers = rows(found, "BLACKOUT"), rows(found, "OUTSIDE GAP")
    mode = ["TCPIP, encrypted", "h1 to h2"]
    assert engine == [[*mode, "completed", "1234.5 ms", "45.6 ms", "38.0 ms", "3.0 MiB", "2"]] * 2
    assert observers == [[*mode, "99.5 ms", "20.5 ms", "0", "219.0 ms", "0.2 ms", "0", "8 of 8 ok"]] * 2


def test_each_mode_has_its_rows_and_all_of_them_are_wanted():
    plain = replace(move(), outcome=outcome(encryption=False, performance_option="Compression", compression="zstd"))
    found = report(move(), plain)
    assert [row[0] for row in rows(found, "BLACKOUT")] == ["TCPIP, encrypted", "Compression, PLAIN"]
    found.planned = 8
    assert not found.green


@pytest.mark.error("demo.not_green")
@pytest.mark.parametrize(
    "name", ["blackout", "outside gap", "heartbeat", "disk", "memory", "tcp stream", "switch", "wire"]
)
@pytest.mark.parametrize("state", [State.BAD, State.NOT_MEASURED])
def test_one_verdict_that_is_not_good_makes_it_not_green(name, state):
    found = report(move(), move(Verdict(name, state, "the reason")))
    assert (found.green, found.exit_code) == (False, 8)
    assert "demo: NOT GREEN" in text(found)
    assert "the reason" in text(found)
    assert [problem.values["verdict"] for problem in problems(found)] == [name]


def test_what_was_not_measured_has_no_figure():
    found = report(move(not_measured("outside gap", "no heartbeat")), move())
    assert [row[2] for row in rows(found, "OUTSIDE GAP")] == ["not measured", "99.5 ms"]
    assert [row[-1] for row in rows(found, "OUTSIDE GAP")] == ["7 of 8 ok, OUTSIDE GAP not measured", "8 of 8 ok"]


def test_a_move_that_failed_gives_its_exit_code():
    found = report(move(), move(end=Phase.FAILED))
    assert (found.green, found.exit_code) == (False, 4)


def test_one_move_alone_is_not_green():
    assert report(move()).exit_code == 8


@pytest.mark.error("demo.leftovers")
def test_a_leftover_makes_it_not_green():
    found = report(move(), move(), left=["link x"])
    assert found.exit_code == 8
    assert "refimpl lab reap abc123" in text(found)


def test_a_kept_lab_is_no_leftover():
    found = report(move(), move())
    found.left = None
    assert found.green
    assert "kept" in text(found)


def test_the_blackout_is_the_observers_own_reading_of_the_events():
    events = [
        {"kind": Kind.SOURCE_STOPPED, "host": "h1", "at_ns": NOW_NS},
        {"kind": Kind.DESTINATION_RAN, "host": "h2", "at_ns": NOW_NS + 25_000_000},
    ]
    assert blackout(events, "h1", "h2").figures["blackout_ms"] == 25.0
    assert blackout(events[:1], "h1", "h2").state is State.NOT_MEASURED
