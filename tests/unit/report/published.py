"""Values held against the published schemas, more strictly than a reader would."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import click
import jsonschema

from refimpl.cli.context import JsonOption
from refimpl.cli.root import root
from refimpl.report import schemas


def strict(part: Any) -> Any:
    """A schema that also refuses what it does not name: readers ignore that, this project has to publish it."""
    if isinstance(part, list):
        return [strict(item) for item in part]
    if not isinstance(part, Mapping):
        return part
    made = {key: strict(value) for key, value in part.items()}
    named = isinstance(part.get("properties"), Mapping) and part.get("type") == "object"
    return {**made, "additionalProperties": made.get("additionalProperties", False)} if named else made


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    """What judges by the schema of that name; making it takes longer than a hundred judgements."""
    return jsonschema.Draft202012Validator(strict(schemas.SCHEMAS[name]()))


def problems_of(name: str, value: Any) -> list[str]:
    """What of a value is not as the schema of that name says."""
    return [f"{'/'.join(map(str, e.absolute_path))}: {e.message[:300]}" for e in validator(name).iter_errors(value)]


def schema_of(command: click.Command) -> str | None:
    """The schema that a verb names for its --json; None: its --json names none."""
    (option,) = [parameter for parameter in command.params if "--json" in parameter.opts]
    return option.schema if isinstance(option, JsonOption) else None


def unpublished(arguments: Sequence[str], out: str) -> list[str]:
    """What of the JSON lines that a command line has printed is not as published for its verb."""
    if not {"--json", "--jsonl"} & set(arguments):
        return []
    command: click.Command | None = root
    words = iter(arguments)
    while isinstance(command, click.Group):
        command = command.get_command(click.Context(command), next(words))
    assert command is not None
    name = "line" if "--jsonl" in arguments else schema_of(command)
    rows = [json.loads(line) for line in out.splitlines()]
    broken = [isinstance(row, dict) and row.get("kind") == "problems" and name != "line" for row in rows]
    return [
        text
        for row, wrong in zip(rows, broken, strict=True)
        for text in problems_of("problems" if wrong else str(name), row)
    ]
