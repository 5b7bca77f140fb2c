"""Putting things into words and columns: bytes, times, tables in plain text that are readable anywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

NOT_MEASURED = "not measured"
_MIB = 1024 * 1024


def mib(count: float | None) -> str:
    """Return bytes as MiB with one digit, or that they were not measured."""
    return NOT_MEASURED if count is None else f"{count / _MIB:.1f} MiB"


def milliseconds(value: float | None) -> str:
    """Return milliseconds with one digit, or that they were not measured."""
    return NOT_MEASURED if value is None else f"{value:.1f} ms"


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in plain text; the last column is not padded."""
    table = [head, *rows] if head else list(rows)
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = []
    for number, row in enumerate(table):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        line = "  ".join(cells).rstrip()
        lines.append(click.style(line, bold=True) if head and number == 0 else line)
    return "\n".join(lines)


def as_json(data: Any) -> None:
    """Print one JSON value on a line of its own."""
    click.echo(json.dumps(data, ensure_ascii=False))
