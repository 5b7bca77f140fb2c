"""The totals that ci/test prints are those of the JUnit files, and no test at all is a failure."""

import os
import subprocess
import sys
from pathlib import Path

from refimpl.app.machine import machine
from tests.unit.ci.machine import ROOT


def figures(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "ci/figures.py"), *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.strip()


def totals(folder: Path) -> tuple[int, str]:
    return figures("totals", str(folder))


def suite(tests: int, failures: int = 0, errors: int = 0, skipped: int = 0) -> str:
    counts = f'tests="{tests}" failures="{failures}" errors="{errors}" skipped="{skipped}"'
    return f"<testsuites><testsuite {counts}/></testsuites>"


def test_totals_add_up_over_the_files(tmp_path: Path) -> None:
    (tmp_path / "unit.xml").write_text(suite(10, skipped=2))
    (tmp_path / "lab.xml").write_text(suite(3))
    assert totals(tmp_path) == (0, "11 passed, 0 failed, 2 skipped")


def test_a_failure_or_an_error_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "unit.xml").write_text(suite(10, failures=1, errors=2))
    assert totals(tmp_path) == (1, "7 passed, 3 failed, 0 skipped")


def test_no_test_at_all_is_a_failure(tmp_path: Path) -> None:
    assert totals(tmp_path) == (1, "0 passed, 0 failed, 0 skipped")
    (tmp_path / "unit.xml").write_text(suite(4, skipped=4))
    assert totals(tmp_path) == (1, "0 passed, 0 failed, 4 skipped")


def test_the_machine_is_described_as_the_demo_describes_it() -> None:
    status, said = figures("machine")
    known = machine().text.partition("calibration loop")[0]
    assert (status, said.startswith(known), "KVM" in said) == (0, True, True)
