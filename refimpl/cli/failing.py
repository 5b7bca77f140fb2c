"""Errors on the way out: each with its id, where it was seen, what the system below said, why it matters, its mend."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from refimpl.model.errors import Problem, RefimplError, error
from refimpl.model.phase import ExitCode

EXPECTED: tuple[type[Exception], ...] = (RefimplError, OSError)
"""The exceptions that mean something to a user; everything else is an internal error."""


def tell(failure: Exception) -> int:
    """Print an expected error on standard error and return its exit code."""
    for row in rows(failure):
        click.echo(problem_text(row), err=True)
    return exit_code(failure)


def rows(failure: Exception) -> list[dict[str, Any]]:
    """Return the findings of an expected error as plain values: those of `Problem.to_json`."""
    if isinstance(failure, RefimplError):
        return [p.to_json() for p in failure.problems]
    return rows(error("machine.failed", detail=str(failure) or type(failure).__name__))


def exit_code(failure: Exception) -> int:
    """Return the exit code of an expected error."""
    return failure.exit_code if isinstance(failure, RefimplError) else ExitCode.ENVIRONMENT


def problem_text(problem: Problem | dict[str, Any]) -> str:
    """Return a problem for a person: text and id, then where it was seen, what the system below said, why, mend."""
    row = problem.to_json() if isinstance(problem, Problem) else problem
    lines = [f"{row['text']} [{row['id']}]"]
    seen = _seen(row)
    if seen:
        lines.append(f"  seen:   {seen}")
    if row.get("native"):
        lines.append("  native: {domain} {code}: {text}".format_map(row["native"]))
    lines += [f"  {name + ':':<8}{row[name]}" for name in ("why", "mend") if row.get(name)]
    return "\n".join(lines)


def _seen(row: dict[str, Any]) -> str:
    parts = [f"in phase {row['phase']}"] if row.get("phase") else []
    if "(seen at the" in row["text"]:
        return ", ".join(parts)
    if row.get("side"):
        parts.append(f"at the {row['side']}")
    if row.get("host"):
        parts.append(f"on host {row['host']}")
    return ", ".join(parts)


@contextmanager
def errors_as_json(wanted: bool) -> Iterator[None]:
    """With `wanted`, print an expected error as one JSON line on standard output too, before it goes its way."""
    try:
        yield
    except EXPECTED as failure:
        if wanted:
            told = {"problems": rows(failure), "exit_code": int(exit_code(failure))}
            click.echo(json.dumps({"kind": "problems", **told}))
        raise


def own_command() -> str:
    """Return the command line by which this command was started, as root's shell would be given it."""
    program = Path(sys.argv[0])
    start = [sys.executable, "-m", "refimpl"] if program.suffix == ".py" else [str(program.absolute())]
    return shlex.join(["sudo", *start, *sys.argv[1:]])
