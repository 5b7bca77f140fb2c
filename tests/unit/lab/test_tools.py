"""What a lab needs is checked all at once, from one list; tools are run in their own environment; steps are timed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from refimpl.lab import LabError, create, requirements, tools
from refimpl.lab.requirements import Finding
from refimpl.lab.steps import Steps


def found_on(root: Path) -> dict[str, Finding]:
    return {found.name: found for found in requirements.requirements(root)}


@pytest.mark.error("lab.requirements")
def test_all_that_is_missing_is_named_at_once_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(requirements, "SEARCH_PATH", str(tmp_path))
    monkeypatch.setenv("REFIMPL_CACHE", str(tmp_path))
    root = tmp_path / "with space"
    with pytest.raises(LabError) as caught:
        create(root=root)
    said = str(caught.value)
    assert caught.value.id == "lab.requirements"
    for word in ("root (", "ip (not installed)", "libvirtd (", "gcc (", "qemu-system-x86_64 (", "plain"):
        assert word in said
    assert "ci/setup" in said
    assert not root.exists()


def test_a_state_directory_with_too_long_a_path_is_refused() -> None:
    assert not found_on(Path("/" + "x" * 70))["state directory"].ok
    assert found_on(Path("/" + "x" * 20))["state directory"].ok


def test_an_init_program_that_was_made_before_needs_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFIMPL_CACHE", str(tmp_path))
    monkeypatch.setattr(requirements, "SEARCH_PATH", str(tmp_path))
    assert not found_on(tmp_path)["gcc"].ok
    tools.init_path().write_text("compiled")
    assert "gcc" not in found_on(tmp_path)
    assert tools.build_init("abc123") == tools.init_path()


def test_without_the_certificate_package_the_lab_can_still_say_what_is_missing() -> None:
    """In an interpreter in which nothing can import it."""
    program = (
        "import importlib.util, pathlib, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name == 'cryptography' else find(name)\n"
        "sys.modules['cryptography'] = None\n"
        "from refimpl.app import doctor\n"
        "from refimpl.lab.requirements import requirements\n"
        "print([f.name for f in requirements(pathlib.Path('/x')) if not f.ok])\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "'python cryptography'" in shown.stdout


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
    shown = tools.run_tool("env", lab_id="feed42")
    assert "REFIMPL_LAB=feed42\n" in shown
    assert "SECRET_OF_CALLER" not in shown


def test_steps_are_told_in_order_and_a_failed_one_is_not() -> None:
    told: list[str] = []
    steps = Steps(lambda name, seconds: told.append(name) if seconds >= 0 else None)
    with steps.step("one"):
        pass
    with pytest.raises(KeyError), steps.step("two"):
        raise KeyError
    assert told == ["one"]
