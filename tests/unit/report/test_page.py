"""The page: well made, complete for every end, equal to the outcome, and safe whatever names hold."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest

from refimpl.checks.families import FAMILIES
from refimpl.model.errors import Problem
from refimpl.model.events import Kind
from refimpl.model.phase import Side
from refimpl.report import story
from refimpl.report.data import State, Track
from refimpl.report.words import duration, size
from tests.unit.report.pages import FAULTS, Page, ended, moved

ENDS = [*FAULTS, "cancelled"]
SECTIONS = ("phases", "checks", "evidence", "settings", "environment", "again", "events")


@pytest.mark.parametrize("end", ENDS)
def test_a_page_of_every_end_is_whole(end, tmp_path):
    data = ended(tmp_path, end)
    assert data.outcome is not None
    assert data.outcome.end == end
    page = Page(data)
    assert data.outcome.sentence in page.text()
    for name in SECTIONS:
        assert page.section(name)
    for problem in (*data.outcome.problems, *data.outcome.warnings):
        said = page.section("findings")
        assert problem.id in said
        assert problem.mend in said
        assert problem.why in said
    assert len(page.all("h1")) == 1


def test_a_warning_whose_text_names_its_host_has_no_empty_line(tmp_path):
    data = ended(tmp_path, "completed")
    warning = Problem("source.ended", {"vm": "web", "host": "a", "operation": "0a1b"}, side=Side.SOURCE, host="a")
    assert data.outcome is not None
    page = Page(replace(data, outcome=replace(data.outcome, warnings=(warning,))))
    assert warning.text in page.text()
    assert all("".join(line.itertext()).strip() for line in page.all("dd"))


def test_nothing_is_fetched_and_nothing_runs(tmp_path):
    page = Page(ended(tmp_path, "completed"))
    assert page.all("script") == []
    assert page.all("link") == page.all("img") == page.all("iframe") == []
    for element in page.tree.iter():
        for name, value in element.attrib.items():
            assert not name.startswith("on"), name
            if name.rpartition("}")[2] in ("href", "src"):
                assert value.startswith("#")
    assert not re.search(r"url\(|@import|https?://", page.html)


def test_figures_are_those_of_the_outcome(tmp_path):
    data = ended(tmp_path, "completed")
    end, shown = data.outcome, Page(data).figures()
    assert end is not None
    assert shown["blackout"] == duration(end.blackout_ms)
    assert shown["total"] == duration(end.total_ms)
    assert shown["sent"] == size(end.sent_bytes)
    assert shown["passes"] == str(end.passes)
    assert shown["QEMU's figure"] == duration(end.qemu_downtime_ms)
    assert shown["encryption"] == "on"


@pytest.mark.parametrize("state", ["off", "paused"])
def test_a_vm_that_did_not_run_has_no_blackout(state, tmp_path):
    data = moved(tmp_path, vm_state=state)
    assert data.outcome is not None
    assert data.outcome.completed
    assert Page(data).figures()["blackout"] == "none"


def test_the_magnified_blackout_is_that_of_the_outcome(tmp_path):
    data = ended(tmp_path, "completed")
    (still,) = story.stand_stills(data.events)
    assert data.outcome is not None
    assert still.moved
    assert still.ms == pytest.approx(data.outcome.blackout_ms)
    assert still.marks[0].text == "the VM stands still at the source"
    assert still.marks[-1].text == "the VM runs at the destination"
    assert f"Magnified: blackout {duration(still.ms)}" in Page(data).section("phases")


def test_phases_follow_each_other_without_holes_and_add_up(tmp_path):
    data = ended(tmp_path, "completed")
    found = story.spans(data.events)
    assert [span.name for span in found] == ["check", "setup", "memory", "switch", "committed", "reconcile", "cleanup"]
    assert all(a.end_ms == b.begin_ms for a, b in itertools.pairwise(found))
    assert data.outcome is not None
    assert sum(span.ms for span in found) == pytest.approx(data.outcome.total_ms)


def test_the_time_in_which_no_conductor_ran_is_no_phase(tmp_path):
    events = [dict(event) for event in ended(tmp_path, "completed").events]
    at = next(n for n, e in enumerate(events) if e["kind"] == Kind.SWITCH_SEEN)
    pause_ns = 5_000_000_000
    wished = {**events[at], "kind": Kind.RECOVER_WISHED, "values": {}, "at_ns": events[at]["at_ns"] + pause_ns}
    later = [{**e, "at_ns": e["at_ns"] + pause_ns} for e in events[at:]]
    found = {span.name: span for span in story.spans([*events[:at], wished, *later])}
    assert found[story.UNATTENDED].ms == pytest.approx(5000, abs=300)
    assert list(found)[2:4] == ["memory", story.UNATTENDED]


NASTY = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style></title><b>", "{{ 7*7 }}", "ü 名 'x'"]


@pytest.mark.parametrize("name", NASTY)
def test_names_stay_names(name, tmp_path):
    data = replace(moved(tmp_path), said=())
    harmless = Page(data)
    request = {**data.request, "vm": name}
    assert data.outcome is not None
    hostile = Page(replace(data, request=request, outcome=replace(data.outcome, vm=name), environment=((name, name),)))
    assert [e.tag for e in hostile.tree.iter()].count("{http://www.w3.org/1999/xhtml}b") == 0
    assert hostile.all("script") == hostile.all("img") == []
    assert len(hostile.all("title")) == len(harmless.all("title"))
    assert name in hostile.text()


def test_a_track_shows_every_sample_and_its_hole(tmp_path):
    data = ended(tmp_path, "completed")
    zero = story.begin_ns(data.events)
    times = [zero + n * 10_000_000 for n in range(-50, 1200) if not 300 <= n < 330]
    page = Page(replace(data, tracks=(Track("heartbeats", tuple(times)),)))
    whole, near = (e for e in page.all("svg") if e.get("class") == "strip")
    (drawn,) = (e for e in whole.iter() if e.get("class") == "beat")
    assert (drawn.get("d") or "").count("M") == len(times) == 1220
    assert "silence 310.0 ms" in page.text(near)
    assert f"{len(times)} heartbeats" in page.section("heard")


def test_observers_verdicts_are_shown_with_their_figures(tmp_path):
    figures = {"outside_gap_ms": 63.21}
    verdicts = (
        {"name": "outside gap", "state": "ok", "text": "63.2 ms of silence", "figures": figures},
        {"name": "disk", "state": "bad", "text": "3 blocks lost", "figures": {}},
        {"name": "wire", "state": "not measured", "text": "nobody listened", "figures": {}},
    )
    page = Page(replace(ended(tmp_path, "completed"), verdicts=verdicts))
    for verdict in verdicts:
        assert f"{verdict['state']} {verdict['name']} {verdict['text']}" in page.section("verdicts")
    assert page.figures()["outside gap"] == "63.2 ms"


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (State.RUNNING, "is being moved"),
        (State.INTERRUPTED, "refimpl recover simulated"),
        (State.LAB_GONE, "its lab was taken away"),
        (State.ENDED, "how it ended was not kept"),
    ],
)
def test_a_move_without_an_end_says_so(state, said, tmp_path):
    data = ended(tmp_path, "completed")
    at = next(n for n, e in enumerate(data.events) if e["kind"] == Kind.PASS_ENDED)
    page = Page(replace(data, events=data.events[:at], said=data.said[:at], outcome=None, state=state))
    assert said in page.text()
    assert "so far" in page.section("phases")
    assert "runs there" not in page.text()


def test_encryption_off_is_said_aloud(tmp_path):
    assert "Encryption was off" in Page(moved(tmp_path, encryption=False)).text()
    assert "Encryption was off" not in Page(moved(tmp_path)).text()


def test_a_simulated_move_says_that_nothing_was_moved(tmp_path):
    data = moved(tmp_path)
    assert "No VM was moved" in Page(data).text()
    assert "No VM was moved" not in Page(replace(data, simulated=False)).text()


def test_rates_have_axes_units_and_words_for_those_who_do_not_see(tmp_path):
    page = Page(ended(tmp_path, "completed"))
    assert "Rates, MiB/s" in page.section("rates")
    assert "Left to send, MiB" in page.section("rates")
    plots = [e for e in page.all("svg") if e.get("role") == "img"]
    assert len(plots) == 4
    for plot in plots:
        title, desc = list(plot)[:2]
        assert page.text(title)
        assert page.text(desc)


def test_one_reading_is_no_line(tmp_path):
    data = ended(tmp_path, "completed")
    readings = [e for e in data.events if e["kind"] == Kind.PROGRESS]
    rest = tuple(e for e in data.events if e["kind"] != Kind.PROGRESS or e is readings[0])
    page = Page(replace(data, events=rest, said=()))
    assert "too short for a line" in page.section("rates")
    assert [e for e in page.all("svg") if e.get("class") == "plot"] == []


def test_settings_say_where_they_came_from(tmp_path):
    events = [dict(event) for event in moved(tmp_path, pass_limit=3).events]
    for event in events:
        if event["kind"] == Kind.CHECKS_PASSED:
            plan = {**event["values"]["plan"], "origins": {"pass_limit": "request", "performance_option": "host a"}}
            event["values"] = {"plan": plan}
    page = Page(replace(moved(tmp_path), events=tuple(events)))
    assert "pre-copy pass limit 3 request" in page.section("settings")
    assert re.search(r"performance option \w+ host a", page.section("settings"))


@pytest.mark.parametrize(("vm", "word"), [("web", "ok"), ("nobody", "refused")])
def test_every_family_of_checks_says_what_it_saw(vm, word, tmp_path):
    data = moved(tmp_path, request_vm=vm)
    (*_, last) = (e for e in data.events if e["kind"] in (Kind.CHECKS_PASSED, Kind.CHECKS_REFUSED))
    checked = last["values"]["checked"]
    assert [row["family"] for row in checked] == [family.name for family in FAMILIES]
    assert checked[0]["verdict"] == word
    said = Page(data).section("checks")
    for row in checked:
        assert f"{row['verdict']} {row['text']}" in said


def test_several_moves_share_a_page(tmp_path):
    page = Page(ended(tmp_path, "completed"), ended(tmp_path, "failed"))
    targets = {e.get("id") for e in page.tree.iter()}
    assert {e.get("href") for e in page.all("a")} - {"#main"} == {"#move1", "#move2"} <= {f"#{t}" for t in targets}
    assert page.section("phases", 1)
    assert page.section("phases", 2)
    ids = [e.get("id") for e in page.tree.iter() if e.get("id")]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, "not measured"),
        (0.0, "0.0 ms"),
        (0.4321, "0.43 ms"),
        (41.33, "41.3 ms"),
        (1540.4, "1.54 s"),
        (125_000, "2 min 05 s"),
    ],
)
def test_times_are_told_in_a_unit_that_fits(ms, text):
    assert duration(ms) == text
