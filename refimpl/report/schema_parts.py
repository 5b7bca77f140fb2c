"""What published schemas are put together from: plain parts, and types that are printed as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from refimpl.model.errors import Problem
from refimpl.model.outcome import SCHEMA_VERSION as OUTCOME_VERSION
from refimpl.model.outcome import Outcome
from refimpl.model.phase import ExitCode

Schema = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_BASE = "urn:refimpl:schema"
TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
YES_NO: Schema = {"type": "boolean"}


def object_of(_text: str = "", /, **properties: Schema) -> Schema:
    """Return the schema of an object that has all of these values."""
    described = {"description": _text} if _text else {}
    return {"type": "object", **described, "properties": properties, "required": list(properties)}


def list_of(items: Schema) -> Schema:
    """Return the schema of an array."""
    return {"type": "array", "items": items}


def or_null(schema: Schema) -> Schema:
    """Return the schema of a value that may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def one_of(names: type[Any]) -> Schema:
    """Return the schema of one of an enumeration's values."""
    return {"enum": [member.value for member in names]}


class Definitions:
    """Collects what is referred to from several places of one schema."""

    def __init__(self) -> None:
        self.found: dict[str, Schema] = {}

    def of(self, type_: Any, prefix: str = "") -> Schema:
        """Return a reference to the schema of a type. All its values are always there, those with defaults too."""
        name = prefix + str(type_.__name__)
        if name not in self.found:
            template = "#/$defs/" + prefix + "{model}"
            made = TypeAdapter(type_).json_schema(mode="serialization", ref_template=template)
            parts = {prefix + key: part for key, part in made.pop("$defs", {}).items()}
            self.found |= {key: _complete(part, key) for key, part in {**parts, name: made}.items()}
        return {"$ref": f"#/$defs/{name}"}

    def document(self, name: str, version: int, title: str, schema: Schema) -> Schema:
        """Return the whole schema."""
        head = {"$schema": _DIALECT, "$id": f"{_BASE}:{name}:{version}", "title": title}
        return {**head, **schema, **({"$defs": dict(sorted(self.found.items()))} if self.found else {})}


def _complete(part: Schema, name: str) -> Schema:
    if "properties" not in part:
        return part
    properties = {key: _plain(value) for key, value in part["properties"].items()}
    if name == Problem.__name__:
        properties |= {"text": TEXT, "why": TEXT, "mend": TEXT}
    if name == Outcome.__name__:
        properties |= {"schema": {"const": OUTCOME_VERSION}, "exit_code": one_of(ExitCode), "sentence": TEXT}
    return {**part, "properties": properties, "required": list(properties)}


def _plain(value: Schema) -> Schema:
    return {key: item for key, item in value.items() if key not in ("default", "title")}


def closed(part: Any) -> Any:
    """Return a schema that also refuses every value that it does not name, at any depth."""
    if isinstance(part, list):
        return [closed(item) for item in part]
    if not isinstance(part, Mapping):
        return part
    made = {key: closed(value) for key, value in part.items()}
    named = part.get("type") == "object" and isinstance(part.get("properties"), Mapping)
    return {**made, "additionalProperties": made.get("additionalProperties", False)} if named else made
