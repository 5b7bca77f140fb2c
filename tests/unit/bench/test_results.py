"""What a run leaves: every sample, every figure with its verdict, and what was not measured."""

from __future__ import annotations

import json

import pytest

from tests.bench import __main__ as command
from tests.bench import catalogue
from tests.bench.results import Figure, Recorder
from tests.bench.statistics import Verdict


@pytest.fixture
def recorder(tmp_path) -> Recorder:
    return Recorder(tmp_path / "out", {"text": "2 cores"}, "ci/bench --pairs 5")


def test_samples_are_lines_of_json_with_the_machine_first(recorder):
    recorder.sample("moves", pair=1, transfer_ms=3.5)
    lines = [json.loads(line) for line in recorder.samples.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["machine", "moves"]
    assert lines[1]["transfer_ms"] == 3.5


def test_the_table_has_command_and_machine_beside_each_figure(recorder):
    recorder.add("moves", Figure.of("ratio", [1.0] * 5, at_most=1.05), Figure.of("time", [250.0] * 5, "ms"))
    recorder.not_measured["lab"] = "it needs root"
    recorder.write()
    text = (recorder.directory / "bench.md").read_text()
    assert "| ratio | 1.000 | 1.000 to 1.000 | 5 | ≤ 1.050 | kept |" in text
    assert "| time | 250.0 ms | 250.0 to 250.0 ms | 5 |  | reported |" in text
    assert text.count("`ci/bench --pairs 5`; 2 cores") == 2
    assert "Not measured: it needs root" in text
    data = json.loads((recorder.directory / "results.json").read_text())
    assert data["figures"]["moves"][0]["verdict"] == Verdict.KEPT


def test_only_a_missed_bound_is_named_as_missed(recorder):
    recorder.add("moves", Figure.of("far", [2.0] * 5, at_most=1.0), Figure.of("open", [0.5, 2.0] * 5, at_most=1.0))
    assert recorder.missed == ["far"]


@pytest.fixture
def measured(monkeypatch, tmp_path):
    def run(experiment):
        monkeypatch.setitem(catalogue.EXPERIMENTS, "start-up", experiment)
        return command.main(["--only", "start-up", "--pairs", "2", "--output", str(tmp_path / "out")])

    return run


@pytest.mark.parametrize(("value", "code"), [(0.5, 0), (2.0, 1)], ids=["kept", "missed"])
def test_a_missed_bound_is_the_exit_code(measured, value, code, capsys):
    assert measured(lambda bench: bench.recorder.add("x", Figure.of("y", [value] * 5, at_most=1.0))) == code
    assert "| y |" in capsys.readouterr().out


def test_what_could_not_be_measured_is_said_and_is_no_success(measured, capsys):
    def broken(bench):
        raise RuntimeError("virsh migrate: no")

    assert measured(broken) == 8
    assert "Not measured: RuntimeError: virsh migrate: no" in capsys.readouterr().out


def test_without_root_what_needs_it_is_not_measured(monkeypatch, tmp_path):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert command.main(["--only", "payload", "--output", str(tmp_path / "out")]) == 8


@pytest.mark.parametrize("arguments", [["--pairs", "0"], ["--only", "nonsense"]], ids=" ".join)
def test_a_wrong_command_line_ends_with_2(arguments):
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
