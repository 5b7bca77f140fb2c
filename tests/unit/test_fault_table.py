"""The records of the fault tables: no row is missing, and a test takes the end of each case from there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from refimpl.faults import FAULTS
from refimpl.model.errors import catalogue
from refimpl.model.events import Kind
from refimpl.model.outcome import outcome
from refimpl.model.phase import Phase
from tests.builders import ledger
from tests.fault_table import CASES, ROWS, TESTS, At, as_told, cases_here, shown_by
from tests.lab.striking import DEEDS

ROOT = Path(__file__).parents[2]
MEASURED = "S1 S2 S2L S3 S4 S4L S5 S6 K1 K2 K3 K4 K5 K6 N1 A1 T4 T11 T12"
"""The rows of libvirt-qemu 3.3 that are not of post-copy."""


def functions(path: str) -> dict[str, ast.FunctionDef]:
    body = ast.parse((ROOT / path).read_text("utf-8")).body
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


def test_every_measured_row_is_there() -> None:
    assert set(MEASURED.split()) <= set(ROWS)
    assert all(row.cases for row in ROWS.values())
    assert len(CASES) == sum(len(row.cases) for row in ROWS.values())


@pytest.mark.parametrize("id", CASES)
def test_what_a_case_names_exists(id: str) -> None:
    case = CASES[id]
    assert {blow.does for blow in case.blows} <= {*FAULTS, *DEEDS}
    assert {*case.problems, *case.warnings} <= set(catalogue())
    assert not case.then or case.vm_at is not None or case.end is Phase.LOST


def marks(function: ast.FunctionDef, id: str) -> Iterator[str]:
    """Return the marks of a test, and those of its parameters that have this id."""
    for mark in function.decorator_list:
        if "parametrize" not in ast.unparse(mark):
            yield ast.unparse(mark)
            continue
        calls = (
            call for call in ast.walk(mark) if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.param"
        )
        yield from (ast.unparse(call) for call in calls if repr(id) in ast.unparse(call))


@pytest.mark.parametrize("id", CASES)
def test_the_test_that_shows_a_case_exists_and_takes_its_end_from_here(id: str) -> None:
    path, _, name = shown_by(id).partition("::")
    function = functions(path)[name.partition("[")[0]]
    if not CASES[id].test:
        assert path == TESTS
        return
    shown = name.partition("[")[2].rstrip("]") or id
    assert shown in CASES
    assert any("full" in mark for mark in marks(function, id)) is CASES[id].full
    if path != TESTS:
        assert f'"{id}"' in (ROOT / path).read_text("utf-8")
        assert "as_told(" in ast.unparse(function)


def test_the_tables_own_tests_can_hold_their_moments() -> None:
    blows = [blow for _, case in cases_here() for blow in case.blows]
    assert {blow.at for blow in blows} <= set(At) - {At.BOUND}


def judged(id: str, end: Phase, kind: Kind, why: str) -> None:
    seen = {"kind": "evidence-seen", "at_ns": 1, "values": {"evidence": {"source": {}, "destination": {}}}}
    as_told(id, outcome(ledger(), end), [seen, {"kind": str(kind), "at_ns": 2, "values": {"why": why}}])


def test_another_end_verdict_or_reason_than_a_cases_is_none_of_it() -> None:
    there = "runs at the destination, source absent"
    judged("T11-strict", Phase.COMPLETED, Kind.DESTINATION_OWNS, there)
    for told in (
        (Phase.FAILED, Kind.DESTINATION_OWNS, there),
        (Phase.COMPLETED, Kind.SOURCE_OWNS, there),
        (Phase.COMPLETED, Kind.DESTINATION_OWNS, "running at the source"),
    ):
        with pytest.raises(AssertionError):
            judged("T11-strict", *told)
