"""The error data is complete, its texts can be filled, and every id is met by a test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from refimpl.model.errors import Native, Problem, RefimplError, catalogue, error
from refimpl.model.phase import ExitCode, Phase, Side

TESTS = Path(__file__).parents[2]


def marked_ids() -> set[str]:
    """Return the ids named by `error` marks in all test files, by reading their text."""
    found: set[str] = set()
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("pytest.mark.error", "bad_certificate"):
                found |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return found


def test_every_error_has_a_test_that_meets_it() -> None:
    assert sorted(set(catalogue()) - marked_ids()) == []


def test_no_mark_names_an_error_that_does_not_exist() -> None:
    assert sorted(marked_ids() - set(catalogue())) == []


@pytest.mark.parametrize("id", sorted(catalogue()))
def test_texts(id: str) -> None:
    entry = catalogue()[id]
    assert re.fullmatch(r"[a-z_]+\.[a-z_]+", id)
    assert entry.text.endswith(".")
    assert entry.why.endswith(".")
    assert entry.mend
    Problem(id=id).text.format()


def of_hyper_v(id: str, code: str | int, rule: str) -> object:
    return pytest.param(id, code, marks=pytest.mark.rule(rule), id=id)


@pytest.mark.parametrize(
    ("id", "code"),
    [
        of_hyper_v("limit.reached", "21501", "R7"),
        of_hyper_v("blackout.unexpected", "20417", "R8"),
        of_hyper_v("memory.short", "0x800705AA", "R6"),
        of_hyper_v("switch.missing", 33012, "R11"),
        of_hyper_v("media.missing", 40010, "R11"),
    ],
)
def test_hyper_vs_own_code_where_it_is_known(id: str, code: str | int) -> None:
    found = catalogue()[id]
    assert code in (found.hyperv, found.message_id)


def test_an_unknown_id_is_a_defect() -> None:
    with pytest.raises(KeyError):
        Problem(id="no.such")


@pytest.mark.rule("R19")
def test_a_problem_reads_back_from_json() -> None:
    problem = Problem(
        id="host.down",
        values={"host": "b", "detail": "x"},
        phase=Phase.CHECK,
        side=Side.DESTINATION,
        host="b",
        native=Native("rpc", 38, "refused"),
    )
    assert Problem.from_json(problem.to_json()) == problem
    assert problem.to_json()["native"] == {"domain": "rpc", "code": 38, "text": "refused"}


def test_an_error_ends_with_the_exit_code_of_its_first_problem() -> None:
    failure = error("store.failed", path="/x", detail="full")
    assert isinstance(failure, RefimplError)
    assert failure.exit_code is ExitCode.ENVIRONMENT
    assert "store.failed" in str(failure)


def test_the_host_of_a_finding_is_a_value_of_its_texts() -> None:
    (problem,) = error("network.listed", host="h 1", subnet="10.0.0.0/24").problems
    assert problem.text.startswith("Host 'h 1' has 10.0.0.0/24")
    assert problem.mend == "refimpl network set 'h 1' 10.0.0.0/24 --priority N"
