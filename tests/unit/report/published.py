"""Values held against the published schemas, more strictly than a reader would."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema

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
