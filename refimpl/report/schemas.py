"""JSON Schemas of what refimpl prints and keeps, made from the types that are printed.

Every schema has a version in its `$id`; it is raised when something is taken away or changes its meaning. Values may be
added within a version, so readers have to ignore what they do not know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter

from refimpl.meter.verdict import Verdict
from refimpl.model.compatibility import OPERATION_TYPE, Checked
from refimpl.model.compatibility import SCHEMA_VERSION as REPORT_VERSION
from refimpl.model.compatibility import Verdict as Comparison
from refimpl.model.errors import Problem
from refimpl.model.events import FIELDS, SCHEMA_VERSION, Kind
from refimpl.model.facts import Evidence, Facts
from refimpl.model.outcome import SCHEMA_VERSION as OUTCOME_VERSION
from refimpl.model.outcome import Outcome
from refimpl.model.phase import ExitCode, Phase, Side
from refimpl.model.request import CommandKind, MigrationRequest, Plan, VmState

Schema = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_BASE = "urn:refimpl:schema"
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_YES_NO: Schema = {"type": "boolean"}


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


class _Definitions:
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
        properties |= {"text": _TEXT, "why": _TEXT, "mend": _TEXT}
    if name == Outcome.__name__:
        properties |= {"schema": {"const": OUTCOME_VERSION}, "exit_code": one_of(ExitCode), "sentence": _TEXT}
    return {**part, "properties": properties, "required": list(properties)}


def _plain(value: Schema) -> Schema:
    return {key: item for key, item in value.items() if key not in ("default", "title")}


def _values(known: _Definitions) -> Mapping[str, Schema]:
    """Return what each value of an event may be; every one may also be null or left out."""
    problem = known.of(Problem)
    return {
        "address": _TEXT,
        "bound": _YES_NO,
        "bytes_s": {**_NUMBER, "description": "bytes per second that are sent"},
        "checked": list_of(known.of(Checked, "checks.")),
        "command": object_of(kind=one_of(CommandKind), step=_COUNT),
        "cost_ms": _NUMBER,
        "dirty_bytes_s": {**_NUMBER, "description": "bytes per second that the guest writes"},
        "evidence": known.of(Evidence),
        "facts": known.of(Facts, "facts."),
        "items": list_of(_TEXT),
        "mib_s": _COUNT,
        "name": _TEXT,
        "number": _COUNT,
        "ok": _YES_NO,
        "passes": _COUNT,
        "phase": one_of(Phase),
        "plan": known.of(Plan),
        "port_ms": _NUMBER,
        "problem": problem,
        "problems": list_of(problem),
        "qemu_downtime_ms": {**_NUMBER, "description": "QEMU's own figure; not the blackout"},
        "reason": _TEXT,
        "reference": _TEXT,
        "remaining_bytes": _NUMBER,
        "request": known.of(MigrationRequest),
        "sent_bytes": _NUMBER,
        "state": one_of(VmState),
        "total_bytes": _NUMBER,
        "warnings": list_of(problem),
        "what": _TEXT,
        "why": _TEXT,
    }


def _event(known: _Definitions) -> Schema:
    types = _values(known)
    native = object_of(domain=_TEXT, code={"type": ["integer", "string"]}, text=_TEXT)
    base = object_of(
        "One event of a move. Which values it carries depends on its kind.",
        schema={"const": SCHEMA_VERSION},
        kind=one_of(Kind),
        origin={"enum": ["wish", "fact", "decision", "note"]},
        at_ns={**_COUNT, "description": "nanoseconds since the epoch by the clock of the host, or the engine's"},
        side=or_null(one_of(Side)),
        host=or_null(_TEXT),
        values={"type": "object"},
        native=or_null(native),
    )
    return {**base, "allOf": [_of_kind(kind, types) for kind in Kind]}


def _of_kind(kind: Kind, types: Mapping[str, Schema]) -> Schema:
    carried = {name: or_null(types[name]) for name in FIELDS.get(kind, ())}
    values = {"type": "object", "properties": carried, "additionalProperties": False}
    return {"if": {"properties": {"kind": {"const": kind.value}}}, "then": {"properties": {"values": values}}}


def _event_schema() -> Schema:
    known = _Definitions()
    return known.document("event", SCHEMA_VERSION, "An event of a move: a line of --jsonl", _event(known))


def _outcome_schema() -> Schema:
    known = _Definitions()
    return known.document("outcome", OUTCOME_VERSION, "How a move ended", known.of(Outcome))


def _line_schema() -> Schema:
    known = _Definitions()
    lines = [_event(known), *_endings(known)]
    title = "A line of --jsonl, or the value of --json, of the verbs that move VMs"
    return known.document("line", SCHEMA_VERSION, title, {"oneOf": lines})


def _endings(known: _Definitions) -> list[Schema]:
    detached = object_of(operation=_TEXT, exit_code={"const": int(ExitCode.DETACHED)})
    problems = object_of(kind={"const": "problems"}, problems=list_of(known.of(Problem)), exit_code=one_of(ExitCode))
    problems["properties"]["operation"] = {**_TEXT, "description": "of which operation, where there are several"}
    return [
        object_of("The end of a move.", kind={"const": "outcome"}, outcome=known.of(Outcome)),
        object_of(
            "What observers saw of a move (--watch), and where their samples are.",
            kind={"const": "verdicts"},
            verdicts=list_of(known.of(Verdict)),
            directory=_TEXT,
        ),
        object_of("The command let the move go on.", kind={"const": "detached"}, detached=detached),
        {**problems, "description": "Why the command did not come to an end."},
        object_of("The end of a step of the demo.", kind={"const": "step"}, step=_TEXT, took_s=_NUMBER),
        object_of("The end of the demo.", kind={"const": "report"}, report=_demo(known)),
    ]


def _demo(known: _Definitions) -> Schema:
    verdicts = list_of(known.of(Verdict))
    move = object_of(source=_TEXT, destination=_TEXT, green=_YES_NO, outcome=known.of(Outcome), verdicts=verdicts)
    machine = object_of(cores=_COUNT, memory_mib=_COUNT, loop_ms=_NUMBER, system=_TEXT, python=_TEXT)
    return object_of(
        backend={"enum": ["libvirt", "simulated"]},
        virtual_time=_YES_NO,
        green=_YES_NO,
        machine=machine,
        accelerator=_TEXT,
        lab=_TEXT,
        steps_s={"type": "object", "additionalProperties": _NUMBER},
        moves=list_of(move),
        left=or_null(list_of(_TEXT)),
        exit_code=one_of(ExitCode),
    )


def _demo_schema() -> Schema:
    known = _Definitions()
    whole = object_of(kind={"const": "report"}, report=_demo(known))
    return known.document("demo-report", SCHEMA_VERSION, "What refimpl demo --json prints", whole)


def _operations_schema() -> Schema:
    row = object_of(
        operation=_TEXT,
        lab=or_null(_TEXT),
        began={**or_null(_TEXT), "description": "in UTC, ISO 8601"},
        vm=or_null(_TEXT),
        source=or_null(_TEXT),
        destination=or_null(_TEXT),
        phase=or_null(one_of(Phase)),
        state={**_TEXT, "description": "running, interrupted, lab gone, or the phase that is its end"},
        needs_recovery=_YES_NO,
        exit_code=or_null(one_of(ExitCode)),
    )
    row["properties"]["controller"] = {**_TEXT, "description": "the home of another controller, whose move it is"}
    unreadable = object_of(operation=_TEXT, state={"const": "unreadable"}, problem=_TEXT)
    whole = object_of(operations=list_of({"oneOf": [row, unreadable]}))
    return _Definitions().document("operations-list", 1, "What refimpl operations list --json prints", whole)


def _verdicts_schema() -> Schema:
    known = _Definitions()
    verdicts = list_of(known.of(Verdict))
    whole = object_of(schema={"const": 1}, vm=_TEXT, source=_TEXT, destination=_TEXT, verdicts=verdicts)
    return known.document("verdicts", 1, "What observers found: observed/verdicts.json of an operation", whole)


def _check_schema() -> Schema:
    known = _Definitions()
    native = object_of(domain=_TEXT, code={"type": ["integer", "string"]}, text=_TEXT)
    entry = object_of(
        "One finding, with Hyper-V's fields first.",
        Message=_TEXT,
        MessageId={**or_null(_COUNT), "description": "Hyper-V's, where it is known"},
        Source=object_of(Type=_TEXT, Name=_TEXT),
        id=_TEXT,
        why=_TEXT,
        mend=_TEXT,
        phase=or_null(one_of(Phase)),
        side=or_null(one_of(Side)),
        host=or_null(_TEXT),
        values={"type": "object"},
        native=or_null(native),
    )
    paths = dict.fromkeys(("Path", "SnapshotPath", "VhdDestinationPath", "VhdSourcePath"), or_null(_TEXT))
    whole = object_of(
        schema={"const": REPORT_VERSION},
        VM=object_of(Name=_TEXT, Id=or_null(_TEXT)),
        OperationType={"const": OPERATION_TYPE},
        Destination=_TEXT,
        **paths,
        Incompatibilities=list_of(entry),
        Warnings=list_of(entry),
        Compatible=_YES_NO,
        SourceHost=or_null(_TEXT),
        Group=_TEXT,
        ComparedAt={**_NUMBER, "description": "seconds since the epoch"},
        Choices=known.of(MigrationRequest),
        Checked=list_of(object_of(Family=_TEXT, Verdict=one_of(Comparison), Text=_TEXT)),
    )
    return known.document("check", REPORT_VERSION, "A compatibility report, as of Compare-VM", whole)


SCHEMAS: Mapping[str, Callable[[], Schema]] = {
    "event": _event_schema,
    "outcome": _outcome_schema,
    "line": _line_schema,
    "check": _check_schema,
    "operations-list": _operations_schema,
    "demo-report": _demo_schema,
    "verdicts": _verdicts_schema,
}
"""Published schemas by name."""


def text(name: str) -> str:
    """Return a schema as it is published; KeyError for one that is not."""
    return json.dumps(SCHEMAS[name](), indent=1, ensure_ascii=False) + "\n"
