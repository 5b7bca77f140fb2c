"""What a lab needs is checked all at once; stop points stop only where a test asked; steps are timed and told."""

from __future__ import annotations

from pathlib import Path

import pytest

from refimpl.lab import LabError, create, tools
from refimpl.lab.steps import Steps


@pytest.mark.error("lab.requirements")
def test_all_that_is_missing_is_named_at_once_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(tools, "SEARCH_PATH", str(tmp_path))
    monkeypatch.setenv("REFIMPL_CACHE", str(tmp_path))
    root = tmp_path / "with space"
    with pytest.raises(LabError) as caught:
        create(root=root)
    said = str(caught.value)
    assert caught.value.id == "lab.requirements"
    for word in ("root rights", "program ip", "program libvirtd", "program gcc", "qemu-system-x86_64", "plain"):
        assert word in said
    assert "ci/setup" in said
    assert not root.exists()


def test_a_state_directory_with_too_long_a_path_is_refused() -> None:
    assert any("at most 60" in m for m in tools.missing_requirements(Path("/" + "x" * 70)))
    assert not any("at most 60" in m for m in tools.missing_requirements(Path("/" + "x" * 20)))


def test_an_init_program_that_was_made_before_needs_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFIMPL_CACHE", str(tmp_path))
    monkeypatch.setattr(tools, "SEARCH_PATH", str(tmp_path))
    tools.init_path().write_text("compiled")
    assert "program gcc" not in tools.missing_requirements(tmp_path)
    assert tools.build_init("abc123") == tools.init_path()


@pytest.mark.error("lab.command_failed")
def test_a_command_that_fails_says_what_it_was_and_what_it_said() -> None:
    with pytest.raises(LabError, match="no luck") as caught:
        tools.run_tool("sh", "-c", "echo no luck >&2; exit 7")
    assert caught.value.values["status"] == "7"
    with pytest.raises(LabError) as caught:
        tools.run_tool("/nonexistent/program")
    assert caught.value.id == "lab.command_failed"


def test_a_tool_carries_the_labs_id_and_nothing_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_CALLER", "x")
    shown = tools.run_tool("env", lab_id="abc123")
    assert "REFIMPL_LAB=abc123\n" in shown
    assert "SECRET_OF_CALLER" not in shown


def test_steps_are_told_in_order_and_a_failed_one_is_not() -> None:
    told: list[str] = []
    steps = Steps(lambda name, seconds: told.append(name) if seconds >= 0 else None)
    with steps.step("one"):
        pass
    with pytest.raises(KeyError), steps.step("two"):
        raise KeyError
    assert told == ["one"]
