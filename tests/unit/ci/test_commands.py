"""ci/test, ci/full, ci/demo and others: what they run, in which order; nothing failed or left out goes unnoticed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.ci.machine import ROOT

TOOLS = ("ruff", "mypy", "lint-imports", "shellcheck", "refimpl")
LOG = 'echo "${0##*/} $*" >>"$HOME/log"\n'
# Stands for pytest: exit code and number of tests are given per part of the suite.
PYTHON = f"""#!/bin/sh
case "$*" in
*figures.py*) exec {sys.executable} "$@" ;;
*unit.xml*) part=unit; status=$UNIT_STATUS ;;
*lab.xml*) part=lab; status=$LAB_STATUS ;;
*full.xml*) part=full; status=$LAB_STATUS ;;
*) part=other; status=$OTHER_STATUS ;;
esac
{LOG}
[ "$part" = other ] && exit "$status"
[ "$status" = 5 ] && tests=0 || tests=3
failures=$((status == 1))
echo "<testsuite tests='$tests' failures='$failures' errors='0' skipped='0'/>" >test-results/$part.xml
exit "$status"
"""


class Checkout:
    """A copy of the commands among tools that only write down how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "ci").mkdir()
        for name in ("test", "full", "demo", "bench", "model", "soak", "lib.sh", "figures.py"):
            shutil.copy(ROOT / "ci" / name, folder / "ci" / name)
        for name in ("setup", "bare-install"):
            self.tool(f"ci/{name}", LOG)
        for name in TOOLS:
            self.tool(f".venv/bin/{name}", LOG)
        self.tool(".venv/bin/python", PYTHON)

    def tool(self, path: str, body: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(body if body.startswith("#!") else f"#!/bin/sh\n{body}")
        file.chmod(0o755)

    def run(
        self, command: str, *arguments: str, uid: int = 0, unit: int = 0, lab: int = 0, other: int = 0
    ) -> subprocess.CompletedProcess[str]:
        self.tool("fakes/id", f"echo {uid}\n")
        environment = {
            "PATH": f"{self.folder}/fakes:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "UNIT_STATUS": str(unit),
            "LAB_STATUS": str(lab),
            "OTHER_STATUS": str(other),
        }
        (self.folder / "log").write_text("")
        return subprocess.run(
            [str(self.folder / "ci" / command), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=60,
        )

    def log(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_all_parts_run_in_order_and_the_totals_close_them(checkout: Checkout) -> None:
    done = checkout.run("test", "--yes")
    assert done.returncode == 0, done.stdout
    called = [line.split()[0] for line in checkout.log()]
    expected = ["setup", "ruff", "ruff", "mypy", "lint-imports", "shellcheck", "bare-install", "python", "python"]
    assert called == expected
    assert checkout.log()[0] == "setup --yes"
    assert "-m not lab and not full " in checkout.log()[-2]
    assert "-m lab and not full " in checkout.log()[-1]
    assert "\n6 passed, 0 failed, 0 skipped\n" in done.stdout


@pytest.mark.parametrize("tool", ["ruff", "mypy", "lint-imports", "shellcheck"])
def test_a_failed_part_fails_the_whole_but_stops_nothing(checkout: Checkout, tool: str) -> None:
    checkout.tool(f".venv/bin/{tool}", "exit 7\n")
    done = checkout.run("test")
    assert done.returncode == 1
    assert "FAILED with exit code 7" in done.stdout
    assert "failed: " in done.stdout.splitlines()[-1]
    assert checkout.log()[-1].startswith("python -m pytest -m lab")


@pytest.mark.parametrize(("unit", "lab"), [(1, 0), (0, 1), (5, 0), (0, 5)])
def test_a_failed_or_empty_part_of_the_suite_is_a_failure(checkout: Checkout, unit: int, lab: int) -> None:
    assert checkout.run("test", unit=unit, lab=lab).returncode == 1


def test_a_selection_may_leave_one_part_empty_but_not_both(checkout: Checkout) -> None:
    assert checkout.run("test", "tests/unit", lab=5).returncode == 0
    assert checkout.run("test", "tests/unit", unit=5, lab=5).returncode == 1


def test_marks_of_the_users_narrow_both_parts(checkout: Checkout) -> None:
    checkout.run("test", "-m", "rule or slow", "-k", "lease")
    unit, lab = checkout.log()[-2:]
    assert "-m not lab and not full and (rule or slow) " in unit
    assert "-m lab and not full and (rule or slow) " in lab
    assert unit.endswith(" -k lease")


def test_leaving_the_lab_out_is_said_and_needs_no_root(checkout: Checkout) -> None:
    done = checkout.run("test", "--no-lab", uid=1000)
    assert done.returncode == 0
    assert "NOT RUN" in done.stdout
    assert checkout.log()[0] == "setup --skip-packages"
    assert not [line for line in checkout.log() if "-m lab" in line]


def pythons(checkout: Checkout) -> list[str]:
    """What ci/full and the commands that it calls have run."""
    return [line for line in checkout.log() if line.startswith("python ")]


def test_in_full_the_tests_the_model_and_the_soak_run_and_it_says_so(checkout: Checkout) -> None:
    done = checkout.run("full", "--yes")
    assert done.returncode == 0, done.stdout
    assert checkout.log()[0] == "setup --yes"
    tests, model, real, virtual = pythons(checkout)
    assert "-m pytest -m (lab or full) " in tests
    assert model == "python -m tests.handover_model --quick"
    assert real == "python -m tests.soak --seed 1 --moves 20"
    assert virtual == "python -m tests.soak --backend simulated --seed 1 --moves 1000"
    assert "\n3 passed, 0 failed, 0 skipped\n" in done.stdout
    assert done.stdout.splitlines()[-1] == "== run: tests model soak"


def test_in_full_more_and_less_can_be_asked_for(checkout: Checkout) -> None:
    options = ("--seed", "7", "--moves", "3", "--schedules", "5", "--whole-model", "--only", "model", "--only", "soak")
    assert checkout.run("full", *options).returncode == 0
    assert pythons(checkout) == [
        "python -m tests.handover_model",
        "python -m tests.soak --seed 7 --moves 3",
        "python -m tests.soak --backend simulated --seed 7 --moves 5",
    ]
    checkout.run("full", "--only", "tests", "-m", "rule", "tests/lab/test_moves.py", "-k", "there")
    (tests,) = pythons(checkout)
    assert "-m (lab or full) and (rule) " in tests
    assert tests.endswith(" tests/lab/test_moves.py -k there")


def test_in_full_a_failed_part_fails_the_whole_but_stops_nothing(checkout: Checkout) -> None:
    done = checkout.run("full", lab=1)
    assert (done.returncode, len(pythons(checkout))) == (1, 4)
    assert "full: failed: lab tests, all; totals; " in done.stdout
    done = checkout.run("full", other=8)
    assert (done.returncode, len(pythons(checkout))) == (1, 4)
    assert "random moves, real: FAILED with exit code 8" in done.stdout


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (("--only", "test"), "--only needs one of: tests model soak; not 'test'"),
        (("--only",), "--only needs one of: tests model soak; not ''"),
        (("--moves", "-1"), "--moves needs a number from 1, not '-1'"),
        (("--seed",), "--seed needs a number from 1, not ''"),
        (("-m",), "-m needs an expression"),
    ],
)
def test_in_full_what_cannot_be_done_is_said_before_anything_is(
    checkout: Checkout, option: tuple[str, ...], says: str
) -> None:
    done = checkout.run("full", *option)
    assert done.returncode == 2
    assert says in done.stdout
    assert checkout.log() == []


@pytest.mark.parametrize("command", ["test", "full", "demo", "bench", "soak"])
def test_without_root_the_commands_say_what_to_run(checkout: Checkout, command: str) -> None:
    done = checkout.run(command, uid=1000)
    assert done.returncode == 8
    assert f"sudo {checkout.folder}/ci/{command}" in done.stdout
    assert checkout.log() == []


def test_the_demo_hands_its_arguments_on(checkout: Checkout) -> None:
    assert checkout.run("demo", "--yes", "--hosts", "3").returncode == 0
    assert checkout.log() == ["setup --yes", "refimpl demo --hosts 3"]


def test_the_simulated_demo_needs_neither_root_nor_packages(checkout: Checkout) -> None:
    assert checkout.run("demo", "--backend", "simulated", uid=1000).returncode == 0
    assert checkout.log() == ["setup --skip-packages", "refimpl demo --backend simulated"]


def test_the_help_of_the_demo_answers_at_once_and_makes_nothing(checkout: Checkout) -> None:
    done = checkout.run("demo", "--help", uid=1000)
    assert done.returncode == 0
    assert "Usage: ci/demo" in done.stdout
    assert checkout.log() == ["refimpl demo --help"]
    (checkout.folder / ".venv/bin/refimpl").unlink()
    done = checkout.run("demo", "--help", uid=1000)
    assert done.returncode == 0
    assert "once ci/setup has made the environment" in done.stdout
    assert checkout.log() == []


def test_the_bench_hands_its_arguments_on(checkout: Checkout) -> None:
    checkout.tool(".venv/bin/python", LOG)
    assert checkout.run("bench", "--yes", "--pairs", "3", "--only", "lab").returncode == 0
    assert checkout.log() == ["setup --yes", "python -m tests.bench --pairs 3 --only lab"]


def test_the_start_up_bench_needs_neither_root_nor_packages(checkout: Checkout) -> None:
    checkout.tool(".venv/bin/python", LOG)
    assert checkout.run("bench", "--only", "start-up", uid=1000).returncode == 0
    assert checkout.log() == ["setup --skip-packages", "python -m tests.bench --only start-up"]


def test_the_soak_hands_its_arguments_on(checkout: Checkout) -> None:
    checkout.tool(".venv/bin/python", LOG)
    assert checkout.run("soak", "--yes", "--seed", "3", "--moves", "4").returncode == 0
    assert checkout.log() == ["setup --yes", "python -m tests.soak --seed 3 --moves 4"]


@pytest.mark.parametrize("option", [("--backend", "simulated"), ("--backend=simulated",)])
def test_the_simulated_soak_needs_neither_root_nor_packages(checkout: Checkout, option: tuple[str, ...]) -> None:
    checkout.tool(".venv/bin/python", LOG)
    assert checkout.run("soak", *option, uid=1000).returncode == 0
    assert checkout.log() == ["setup --skip-packages", f"python -m tests.soak {' '.join(option)}"]


def test_the_help_of_the_bench_names_every_experiment(checkout: Checkout) -> None:
    from tests.bench.catalogue import EXPERIMENTS

    done = checkout.run("bench", "--help", uid=1000)
    assert done.returncode == 0
    assert checkout.log() == []
    assert all(name in done.stdout for name in EXPERIMENTS)
