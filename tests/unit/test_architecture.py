"""Rules of the design that text can prove: who decides by phase, and what the core needs to be imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import refimpl

PACKAGE = Path(refimpl.__file__).parent
CORE = ("model", "policy", "checks", "engine")
DECIDING = ("policy", "checks", "engine", "backends", "hosts")
BEGINS_WITH = {"engine/conductor.py": {"NEW"}}
"""A conductor that is given no phase begins with NEW; nothing else names one."""


def named_phases(path: Path) -> set[str]:
    """Return the members of Phase that a file names, under whatever name it imported Phase."""
    tree = ast.parse(path.read_text("utf-8"))
    aliases = {
        a.asname or a.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for a in node.names
        if a.name == "Phase"
    }
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases
    }


def test_only_the_table_decides_by_phase() -> None:
    found = {}
    for part in DECIDING:
        for path in (PACKAGE / part).rglob("*.py"):
            name = path.relative_to(PACKAGE).as_posix()
            phases = named_phases(path) - BEGINS_WITH.get(name, set())
            if phases and name != "engine/phases.py":
                found[name] = phases
    assert found == {}
    assert len(named_phases(PACKAGE / "engine" / "phases.py")) > 10


def test_the_ledger_knows_no_phase() -> None:
    assert named_phases(PACKAGE / "model" / "ledger.py") == set()


@pytest.mark.parametrize("part", CORE)
def test_the_core_needs_the_standard_library_only(part: str) -> None:
    """In an interpreter without site-packages, every module of the core can be imported."""
    modules = [
        ".".join(("refimpl", *path.relative_to(PACKAGE).with_suffix("").parts))
        for path in (PACKAGE / part).rglob("*.py")
        if path.name != "__init__.py"
    ]
    assert modules
    program = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})\n" + "".join(f"import {m}\n" for m in modules)
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_core_knows_no_clock() -> None:
    """Time is injected (rule 8): no module of the core imports one that tells it or waits."""
    clocks = {"time", "sched", "asyncio"}
    found = [
        path.relative_to(PACKAGE).as_posix()
        for part in CORE
        for path in (PACKAGE / part).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (isinstance(node, ast.Import) and {a.name for a in node.names} & clocks)
        or (isinstance(node, ast.ImportFrom) and node.module in clocks)
    ]
    assert found == []
