"""`refimpl report` and `--report`: a page of whatever operation there is, and plain words where there is none."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from refimpl.app.home import Home
from refimpl.app.report import command, operation_report
from refimpl.cli import main
from refimpl.meter.samples import Samples
from refimpl.model.phase import Phase
from refimpl.report.data import State
from tests.unit.cli.kept import REQUEST, operation


@pytest.fixture
def home(tmp_path, monkeypatch) -> Home:
    monkeypatch.setenv("REFIMPL_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return Home(tmp_path / "home")


def test_the_latest_operation_is_reported_into_a_file_of_its_name(home, capsys):
    operation(home, "11111111", Phase.COMPLETED)
    operation(home, "22222222", Phase.FAILED)
    assert main(["report", "--open", "no"]) == 0
    assert capsys.readouterr().out == "report: refimpl-report-22222222.html\n"
    assert "failed; it is on h1 as before" in Path("refimpl-report-22222222.html").read_text("utf-8")


def test_an_operation_by_the_beginning_of_its_id_on_standard_output(home, capsys):
    operation(home, "11111111", Phase.COMPLETED)
    assert main(["report", "1111", "-o", "-"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("<!DOCTYPE html>")
    assert "11111111" in out
    assert list(Path().iterdir()) == []


def test_an_interrupted_one_says_how_to_recover_it(home, capsys):
    operation(home, "33333333", None)
    assert main(["report", "-o", "page.html", "--open", "no"]) == 0
    assert "refimpl recover 33333333" in Path("page.html").read_text("utf-8")


@pytest.mark.error("report.no_operation")
def test_without_operations_it_says_how_to_get_one(home, capsys):
    assert main(["report"]) == 2
    assert "refimpl migrate" in capsys.readouterr().err


@pytest.mark.error("operation.unknown")
def test_an_unknown_operation_is_named(home, capsys):
    assert main(["report", "abc"]) == main(["operations", "show", "abc"]) != 0
    assert "[operation.unknown]" in capsys.readouterr().err


@pytest.mark.error("report.no_library")
def test_without_jinja2_it_says_what_to_install(home, capsys, monkeypatch):
    operation(home, "11111111", Phase.COMPLETED)
    monkeypatch.setattr("refimpl.app.report.find_spec", lambda name: None)
    assert main(["report", "-o", "page.html"]) == 8
    assert "refimpl[report]" in capsys.readouterr().err
    assert not Path("page.html").exists()


def test_latest_and_an_operation_do_not_go_together(home):
    assert main(["report", "1111", "--latest"]) == 2


def test_what_observers_kept_is_in_the_data(home):
    directory = operation(home, "11111111", Phase.COMPLETED)
    observed = directory / "observed"
    observed.mkdir()
    verdict = {"name": "disk", "state": "ok", "text": "fine", "figures": {}, "samples": None}
    kept = {"schema": 1, "vm": "web", "source": "h1", "destination": "h2", "verdicts": [verdict]}
    (observed / "verdicts.json").write_text(json.dumps(kept), "utf-8")
    with (observed / "heartbeat.jsonl").open("w", encoding="utf-8") as output:
        samples = Samples(output, "heartbeat")
        for number in range(3):
            samples.add("beat", 1000 + number, boot="b", number=number)
    data = operation_report(home.find("11111111"))
    assert data.verdicts == (verdict,)
    assert [(track.name, track.times_ns) for track in data.tracks] == [("heartbeats", (1000, 1001, 1002))]
    assert data.state is State.ENDED


def test_observers_files_that_cannot_be_read_are_named_and_do_not_hide_the_move(home):
    observed = operation(home, "11111111", Phase.COMPLETED) / "observed"
    observed.mkdir()
    (observed / "verdicts.json").write_text('{"schema": 1, "verd', "utf-8")
    (observed / "heartbeat.jsonl").write_text('{"schema": 99}\n{"kind":"beat"}\n', "utf-8")
    data = operation_report(home.find("11111111"))
    assert (data.verdicts, data.tracks) == ((), ())
    assert [name for name, _ in data.environment][-2:] == ["verdicts.json", "heartbeat.jsonl"]
    assert main(["report", "-o", "page.html"]) == 0
    assert "cannot be read" in Path("page.html").read_text("utf-8")


def test_the_command_asks_for_the_same_again():
    asked = {"vm": "-a b", "destination": "h2", "source": "h1", "encryption": False, "pass_limit": 3}
    asked |= {
        "performance_option": None,
        "bandwidth_mib_s": 0,
        "cancel_if_blackout_exceeds_ms": 90,
        "hand_over": "delegated",
    }
    words = shlex.split(command(asked, ("--lab", "my lab")))
    assert words[:4] == ["refimpl", "migrate", "--lab", "my lab"]
    assert words[-3:] == ["--", "-a b", "h2"]
    assert "--performance-option" not in words
    assert words[words.index("--pass-limit") + 1] == "3"
    assert words[words.index("--encryption") + 1] == "off"
    assert words[words.index("--cancel-if-blackout-exceeds") + 1] == "90"
    assert words[words.index("--hand-over") + 1] == "delegated"


def test_the_command_of_a_simulated_move_runs_and_moves_the_same(home, capsys):
    """The command on the page is tried: it makes a move with the same end and figures."""
    asked = ["demo", "b", "--backend", "simulated", "--pass-limit", "2"]
    assert main(["migrate", *asked, "--report", "one.html", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    request = {**REQUEST.to_json(), "vm": "demo", "destination": "b", "source": None, "pass_limit": 2}
    words = shlex.split(command(request, ("--backend", "simulated")))
    assert "refimpl migrate --backend simulated --pass-limit 2 -- demo b" in Path("one.html").read_text("utf-8")
    assert main([words[1], "--json", *words[2:]]) == 0
    assert json.loads(capsys.readouterr().out) == first


def test_a_demo_writes_both_moves_on_one_page(home, capsys):
    assert main(["demo", "--backend", "simulated", "--report", "demo.html"]) == 0
    page = Path("demo.html").read_text("utf-8")
    assert "VM &#39;demo&#39; moved from a to b and runs there." in page
    assert "VM &#39;demo&#39; moved from b to a and runs there." in page


def test_a_refused_move_has_a_page_too(home, capsys):
    assert main(["migrate", "nobody", "b", "--backend", "simulated", "--report", "page.html"]) == 3
    assert "vm.unknown" in Path("page.html").read_text("utf-8")


@pytest.mark.parametrize("verb", [["demo"], ["migrate", "demo", "b"]])
def test_a_file_that_cannot_be_written_is_refused_before_anything_moves(verb, home, capsys):
    assert main([*verb, "--backend", "simulated", "--report", "missing/page.html"]) == 2
    captured = capsys.readouterr()
    assert "missing" in captured.err
    assert "phase" not in captured.out


def test_a_detached_move_is_reported_later(home, capsys):
    assert main(["migrate", "web", "h2", "--detach", "--report", "page.html"]) == 2
    assert "refimpl report" in capsys.readouterr().err


def test_an_operation_that_has_no_journal_yet_has_a_page(home, capsys):
    directory = operation(home, "11111111", None)
    (directory / "journal.db").unlink()
    assert main(["report", "-o", "page.html"]) == 0
    assert "No phase was entered" in Path("page.html").read_text("utf-8")
