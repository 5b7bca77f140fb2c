"""`doctor --mend`: what it will do is said before, nothing is done without consent, and each end is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from refimpl.app import doctor, mending
from refimpl.app.mending import Repair, carry_out, repairs
from refimpl.cli import main
from refimpl.lab.requirements import Finding

GOOD = Finding("ip", True, "there")
PACKAGE = Finding("gcc", False, "not installed", "ci/setup", "packages")
BY_HAND = Finding("operations", False, "interrupted: 1", "refimpl recover")


@pytest.fixture
def setup(tmp_path: Path) -> Path:
    script = tmp_path / "setup"
    script.write_text('#!/bin/sh\necho "$@" >> "$0.log"\n[ ! -e "$0.fails" ]\n')
    script.chmod(0o755)
    return script


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch, setup: Path) -> Callable[..., None]:
    """Let the doctor find these things at his first look and at his second."""
    monkeypatch.setattr("refimpl.cli.context.is_root", lambda: True)
    monkeypatch.setattr(mending, "repairs", lambda found: repairs(found, setup))

    def looks(*found: list[Finding]) -> None:
        waiting = list(found)
        monkeypatch.setattr(doctor, "examine", lambda _: iter(waiting.pop(0)))

    return looks


def log(setup: Path) -> list[str]:
    path = Path(f"{setup}.log")
    return path.read_text().splitlines() if path.exists() else []


def test_each_thing_is_done_once_and_in_order(setup: Path) -> None:
    found = [
        Finding("labs", False, "half-made", "", "labs"),
        Finding("guest", True, "not built", "", "guest"),
        Finding("a", False, "", "", "python:jinja2"),
        Finding("tun", False, "", "", "module:tun"),
        PACKAGE,
        Finding("b", False, "", "", "python:pycdlib"),
        PACKAGE,
        BY_HAND,
        GOOD,
    ]
    planned = repairs(found, setup)
    assert [repair.name for repair in planned] == ["packages", "module:tun", "python", "guest", "labs"]
    assert "jinja2 pycdlib" in planned[2].does
    assert repairs([BY_HAND, GOOD], setup) == ()


def test_where_there_is_no_set_up_script_packages_are_a_persons_affair(tmp_path: Path) -> None:
    assert repairs([PACKAGE], tmp_path / "none") == ()


def test_one_that_fails_does_not_keep_the_others_from_being_done() -> None:
    done: list[str] = []

    def broken() -> str | None:
        raise OSError("no such program")

    planned = [Repair("a", "", broken), Repair("b", "", lambda: "said no"), Repair("c", "", lambda: done.append("c"))]  # type: ignore[func-returns-value]
    assert [(m.name, m.ok, m.said) for m in carry_out(planned)] == [
        ("a", False, "no such program"),
        ("b", False, "said no"),
        ("c", True, ""),
    ]
    assert done == ["c"]


def test_with_yes_it_is_done_and_looked_at_again(examined, setup: Path, capsys) -> None:
    examined([PACKAGE, BY_HAND], [GOOD])
    assert main(["doctor", "--mend", "--yes"]) == 0
    assert log(setup) == ["--packages-only --yes"]
    said = capsys.readouterr().out
    assert said.index("To be done:") < said.index(f"{setup} --packages-only") < said.index("done: install packages")
    assert "by hand: operations: refimpl recover" in said
    assert said.rstrip().endswith("Everything is in order.")


def test_without_consent_nothing_is_done(examined, setup: Path, capsys, monkeypatch) -> None:
    for answer in ("n", None):
        monkeypatch.setattr("click.termui.visible_prompt_func", lambda _, a=answer: a or raise_end())
        examined([PACKAGE])
        assert main(["doctor", "--mend"]) == 8
        assert "Nothing was changed" in capsys.readouterr().out
    assert log(setup) == []


def raise_end() -> str:
    raise EOFError


def test_what_fails_is_said_and_ends_with_8(examined, setup: Path, capsys) -> None:
    Path(f"{setup}.fails").touch()
    examined([PACKAGE], [PACKAGE])
    assert main(["doctor", "--mend", "--yes"]) == 8
    assert "FAILED: install packages" in capsys.readouterr().out


def test_json_has_what_was_mended_and_cannot_ask(examined, setup: Path, capsys) -> None:
    examined([PACKAGE])
    assert main(["doctor", "--mend", "--json"]) == 2
    examined([PACKAGE], [GOOD])
    capsys.readouterr()
    assert main(["doctor", "--mend", "--json", "--yes"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(m["name"], m["ok"]) for m in told["mended"]] == [("packages", True)]


def test_nothing_to_mend_is_said(examined, setup: Path, capsys) -> None:
    examined([GOOD])
    assert main(["doctor", "--mend"]) == 0
    assert "Nothing here can be mended" in capsys.readouterr().out


@pytest.mark.error("root.needed")
def test_only_root_mends(monkeypatch, capsys) -> None:
    monkeypatch.setattr("refimpl.cli.context.is_root", lambda: False)
    assert main(["doctor", "--mend"]) == 8
    assert "root.needed" in capsys.readouterr().err
