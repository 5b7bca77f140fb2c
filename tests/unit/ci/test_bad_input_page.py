"""The page of what can be wrong: each error that it names is one, and each test that it names is there."""

from __future__ import annotations

import re

import pytest

from refimpl.model.errors import catalogue
from tests.unit.ci.machine import ROOT

PAGE = ROOT / "docs" / "bad-input.md"
_ERROR = re.compile(r"`([a-z_]+\.[a-z_]+)`")
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def rows() -> list[list[str]]:
    """Return the cells of all rows that say something."""
    lines = [line.strip("| ").split(" | ") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    return [cells for cells in lines if cells[0] not in ("what", "---")]


def test_every_row_has_an_error_or_an_end_and_a_test() -> None:
    assert len(rows()) > 30
    for cells in rows():
        assert len(cells) == 3, cells
        assert cells[1], cells
        assert _TEST.search(cells[2]), cells


@pytest.mark.parametrize("id", sorted(set(_ERROR.findall(PAGE.read_text("utf-8")))))
def test_an_error_that_is_named_is_one(id: str) -> None:
    assert id in catalogue()


@pytest.mark.parametrize(("file", "name"), sorted(set(_TEST.findall(PAGE.read_text("utf-8")))))
def test_a_test_that_is_named_is_there(file: str, name: str) -> None:
    text = (ROOT / file).read_text("utf-8")
    assert not name or f"\ndef {name}(" in text
