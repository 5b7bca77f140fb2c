"""What a compatibility report says that it is about."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from refimpl.model.compatibility import CompatibilityReport
from tests.builders import NOW_S, request

MOVE = "MoveVirtualMachine"
SCHEMA = Path(__file__).parents[3] / "docs" / "schemas" / "check.json"


@pytest.mark.rule("R11")
def test_the_operation_of_a_report_is_a_move() -> None:
    """The word is written here as a program outside reads it: reports that were kept have it, and so has the schema."""
    data = CompatibilityReport("lab", request(), None, None, NOW_S, (), ()).to_json()
    assert data["OperationType"] == MOVE
    assert json.loads(SCHEMA.read_text("utf-8"))["properties"]["OperationType"]["const"] == MOVE
    assert CompatibilityReport.from_json(data).request == request()


@pytest.mark.rule("R11")
@pytest.mark.parametrize("other", ["ImportVirtualMachine", "", None])
def test_a_report_of_anything_else_is_not_read(other: str | None) -> None:
    data = CompatibilityReport("lab", request(), None, None, NOW_S, (), ()).to_json()
    with pytest.raises(ValueError, match="no report of a move"):
        CompatibilityReport.from_json(data | {"OperationType": other})
