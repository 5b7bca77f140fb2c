"""The command line as a whole: help, bad input, errors, what is imported when."""

from __future__ import annotations

import json
import re
import sys

import click
import pytest

import refimpl
from refimpl.cli import main
from refimpl.cli.root import VERBS, say_internal_error
from refimpl.lab import LabState, LabSummary
from tests.unit.cli.commands import HEAVY, all_commands, command_of, run_python


def test_help_imports_nothing_heavy():
    code = (
        f"import sys; from refimpl.cli import main; main(['--help']); print([m for m in {HEAVY} if m in sys.modules])"
    )
    assert run_python(code).stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", VERBS)
def test_the_one_line_help_in_the_table_is_the_verbs_own(name):
    assert command_of(name).get_short_help_str(200) == VERBS[name][1]


@pytest.mark.parametrize(("name", "command"), all_commands(), ids=[name for name, _ in all_commands()])
def test_every_verb_tells_its_cmdlet_and_an_example(name, command):
    text = command.help or ""
    if not isinstance(command, click.Group):
        assert re.search(r"[Cc]orresponds to", text)
        assert f"refimpl {name}" in text.split("Example")[1]


def test_version(capsys):
    assert main(["--version"]) == 0
    assert refimpl.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["migrate", "web"],
        ["migrate", "web", "h2", "--pass-limit", "0"],
        ["migrate", "web", "h2", "--bandwidth", "-1"],
        ["migrate", "web", "h2", "--performance-option", "RDMA"],
        ["migrate", "web", "h2", "--world", "w.toml"],
        ["migrate", "web", "h2", "--backend", "simulated", "--detach"],
        ["migrate", "web", "h2", "--detach", "--watch"],
        ["migrate", "demo", "b", "--backend", "simulated", "--watch"],
        ["demo", "--world", "w.toml"],
        ["demo", "--backend", "simulated", "--keep"],
        ["vm", "create", "web", "--memory", "96", "--working-set", "90"],
        ["lab", "up", "--hosts", "0"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_ends_with_2_and_says_what_is_wrong(arguments, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert "Error: " in captured.err
    assert captured.out == ""


@pytest.mark.error("root.needed")
@pytest.mark.parametrize(
    "arguments", [["migrate", "web", "h2"], ["lab", "up"], ["vm", "list"], ["recover"], ["demo"]], ids=" ".join
)
def test_without_root_the_exact_command_is_told(arguments, monkeypatch, capsys):
    monkeypatch.setattr("refimpl.cli.context.is_root", lambda: False)
    monkeypatch.setattr(sys, "argv", ["/opt/x/bin/refimpl", *arguments])
    monkeypatch.setattr(sys, "platform", "linux")
    assert main(arguments) == 8
    assert f"mend:   sudo /opt/x/bin/refimpl {' '.join(arguments)}" in capsys.readouterr().err


@pytest.mark.error("root.needed")
@pytest.mark.parametrize("arguments", [["lab", "list"], ["host", "get"], ["network", "list"]], ids=" ".join)
def test_what_only_root_may_look_at_names_the_command_too(arguments, monkeypatch, capsys):
    def closed() -> None:
        raise PermissionError(13, "Permission denied", "/labs/00/registry.jsonl")

    monkeypatch.setattr("refimpl.lab.list_labs", closed)
    monkeypatch.setattr("refimpl.cli.context.is_root", lambda: False)
    monkeypatch.setattr(sys, "argv", ["/opt/x/bin/refimpl", *arguments])
    assert main(arguments) == 8
    err = capsys.readouterr().err
    assert f"refimpl {' '.join(arguments)} needs root rights" in err
    assert f"mend:   sudo /opt/x/bin/refimpl {' '.join(arguments)}" in err


def labs_found(monkeypatch, *found: tuple[str, LabState]) -> None:
    summaries = tuple(LabSummary(f"00000{i}", name, state, True, None) for i, (name, state) in enumerate(found))  # type: ignore[arg-type]
    monkeypatch.setattr("refimpl.lab.list_labs", lambda: summaries)
    monkeypatch.setattr("refimpl.cli.context.is_root", lambda: True)


@pytest.mark.error("lab.none_up")
def test_without_a_lab_that_is_up_the_others_are_named(monkeypatch, capsys):
    labs_found(monkeypatch, ("old", LabState.OFF))
    assert main(["lab", "status"]) == 8
    assert "old (off)" in capsys.readouterr().err


@pytest.mark.error("lab.several_up")
def test_with_several_labs_up_one_has_to_be_named(monkeypatch, capsys):
    labs_found(monkeypatch, ("one", LabState.UP), ("two", LabState.DEGRADED), ("three", LabState.OFF))
    assert main(["vm", "list"]) == 2
    err = capsys.readouterr().err
    assert "one, two" in err
    assert "three" not in err


def test_an_error_is_json_too_when_json_was_asked_for(monkeypatch, capsys):
    labs_found(monkeypatch)
    assert main(["lab", "status", "--json"]) == 8
    told = json.loads(capsys.readouterr().out)
    assert (told["exit_code"], told["problems"][0]["id"]) == (8, "lab.none_up")


@pytest.mark.error("operation.unknown")
@pytest.mark.parametrize("verb", [["attach"], ["cancel"], ["operations", "show"]], ids=" ".join)
def test_an_unknown_operation_is_refused(verb, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("REFIMPL_HOME", str(tmp_path))
    assert main([*verb, "abcd"]) == 3
    assert "[operation.unknown]" in capsys.readouterr().err


def test_an_internal_error_is_one_line_and_ends_with_1():
    code = "import sys; from refimpl.cli import main, root; root.root.main = lambda **_: 1 / 0; sys.exit(main([]))"
    short = run_python(code, REFIMPL_DEBUG="")
    assert short.returncode == 1
    assert "internal error: ZeroDivisionError" in short.stderr
    assert "Traceback" not in short.stderr
    assert "Traceback" in run_python(code, REFIMPL_DEBUG="1").stderr


def test_the_internal_error_tells_how_to_see_more(capsys):
    say_internal_error(ValueError, ValueError("x"), None)
    assert "REFIMPL_DEBUG=1" in capsys.readouterr().err


def test_ctrl_c_outside_a_move_ends_with_130(monkeypatch, capsys):
    def interrupted() -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("refimpl.cli.context.is_root", interrupted)
    assert main(["lab", "status"]) == 130
