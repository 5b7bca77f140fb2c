"""An operation is named by its id, by the beginning of it, or by the VM that it moves now."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from refimpl.app.home import Home, write_json
from refimpl.app.naming import named
from refimpl.app.operations import Operation
from refimpl.cli import main
from refimpl.hosts.process import here
from refimpl.model.errors import RefimplError
from refimpl.model.phase import Phase
from tests.unit.cli.kept import operation


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("REFIMPL_HOME", str(tmp_path))
    monkeypatch.setattr("refimpl.cli.operations.is_root", lambda: False)
    return Home(tmp_path)


def running(home: Home, id: str, vm: str = "web") -> None:
    """An operation whose conductor, this process, lives."""
    directory = operation(home, id, None)
    of_vm(home, id, vm)
    write_json(directory / "process.json", here(os.getpid()).to_json())


def of_vm(home: Home, id: str, vm: str) -> None:
    spec = home.operations / id / "spec.json"
    told = json.loads(spec.read_text("utf-8"))
    spec.write_text(json.dumps(told | {"request": told["request"] | {"vm": vm}}), "utf-8")


def test_a_vm_stands_for_the_move_of_it_that_runs(home: Home) -> None:
    operation(home, "11111111", Phase.COMPLETED)
    operation(home, "22222222", None)
    running(home, "33333333")
    running(home, "44444444", "mail")
    assert named(home, "web").id == "33333333"
    assert named(home, "mail").id == "44444444"
    assert named(home, "1").id == "11111111"


def test_an_id_comes_before_a_vm_and_a_vm_before_the_beginning_of_an_id(home: Home) -> None:
    operation(home, "abcd0001", Phase.COMPLETED)
    running(home, "22222222", "abcd0001")
    running(home, "33333333", "abc")
    assert named(home, "abcd0001").id == "abcd0001"
    assert named(home, "abc").id == "33333333"
    of_vm(home, "33333333", "mail")
    assert named(home, "abc").id == "abcd0001"


@pytest.mark.error("operation.several_run")
def test_several_moves_of_vms_of_one_name_are_not_guessed_among(home: Home) -> None:
    running(home, "11111111")
    running(home, "22222222")
    with pytest.raises(RefimplError, match=r"operation\.several_run") as caught:
        named(home, "web")
    assert "11111111, 22222222" in caught.value.problems[0].text


@pytest.mark.error("operation.none_runs")
@pytest.mark.parametrize("verb", [["attach"], ["cancel"], ["operations", "show"]], ids=" ".join)
@pytest.mark.parametrize(("end", "state"), [(Phase.FAILED, "failed"), (None, "interrupted")])
def test_a_vm_whose_move_does_not_run_is_told_with_its_last_one(home: Home, verb, end, state, capsys) -> None:
    operation(home, "11111111", end)
    assert main([*verb, "web"]) == 3
    err = capsys.readouterr().err
    assert f"the last one was operation 11111111 ({state}). [operation.none_runs]" in err
    assert "refimpl operations show 11111111" in err


def test_what_cannot_be_read_stands_for_no_vm(home: Home, capsys) -> None:
    (operation(home, "11111111", None) / "spec.json").write_text("{", "utf-8")
    assert main(["attach", "web"]) == 3
    assert "[operation.unknown]" in capsys.readouterr().err


def test_the_verbs_take_a_vm(home: Home, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    operation(home, "11111111", Phase.COMPLETED)
    running(home, "22222222")
    asked: list[str] = []
    monkeypatch.setattr(Operation, "set_bandwidth", lambda self, mib_s: asked.append(f"{self.id} {mib_s}"))
    monkeypatch.setattr(Operation, "cancel", lambda self: asked.append(f"{self.id} cancel"))
    monkeypatch.setattr(Operation, "events", lambda self: iter(()))
    assert main(["operations", "set", "web", "--bandwidth", "5"]) == 0
    assert main(["operations", "show", "web"]) == 0
    assert main(["cancel", "web"]) == 6
    assert main(["attach", "web"]) == 6
    assert asked == ["22222222 5", "22222222 cancel"]
    assert "Operation 22222222: VM 'web'" in capsys.readouterr().out
