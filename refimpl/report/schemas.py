"""JSON Schemas of what refimpl prints and keeps, made from the types that are printed.

Every schema has a version in its `$id`; it is raised when something is taken away or changes its meaning. Values may be
added within a version, so readers have to ignore what they do not know; only a schema that refuses what it does not
name (`additionalProperties`) gets a new version for an addition too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from refimpl.meter.verdict import Verdict
from refimpl.model.compatibility import OPERATION_TYPE, Checked
from refimpl.model.compatibility import SCHEMA_VERSION as REPORT_VERSION
from refimpl.model.compatibility import Verdict as Comparison
from refimpl.model.errors import Problem
from refimpl.model.events import FIELDS, SCHEMA_VERSION, Kind
from refimpl.model.facts import Evidence, Facts
from refimpl.model.outcome import SCHEMA_VERSION as OUTCOME_VERSION
from refimpl.model.outcome import Outcome
from refimpl.model.ownership import OwnerRecord
from refimpl.model.phase import ExitCode, Phase, Side
from refimpl.model.request import CommandKind, MigrationRequest, Plan, VmState
from refimpl.report import schemas_verbs
from refimpl.report.schema_parts import (
    COUNT,
    NUMBER,
    TEXT,
    YES_NO,
    Definitions,
    Schema,
    closed,
    list_of,
    object_of,
    one_of,
    or_null,
)


def _values(known: Definitions) -> Mapping[str, Schema]:
    """Return what each value of an event may be; every one may also be null or left out."""
    problem = known.of(Problem)
    return {
        "address": TEXT,
        "bound": YES_NO,
        "bytes_s": {**NUMBER, "description": "bytes per second that are sent"},
        "checked": list_of(known.of(Checked, "checks.")),
        "command": object_of(kind=one_of(CommandKind), step=COUNT),
        "cost_ms": NUMBER,
        "disks_remaining_bytes": NUMBER,
        "disks_sent_bytes": NUMBER,
        "disks_total_bytes": NUMBER,
        "detail": TEXT,
        "dirty_bytes_s": {**NUMBER, "description": "bytes per second that the guest writes"},
        "evidence": known.of(Evidence),
        "facts": known.of(Facts, "facts."),
        "host": TEXT,
        "items": list_of(TEXT),
        "kept": list_of(TEXT),
        "lease_taken": {**YES_NO, "description": "the copy ran without its lease, which was taken again"},
        "mib_s": COUNT,
        "may_have_run": {**YES_NO, "description": "nobody heard whether the destination was let run before"},
        "name": TEXT,
        "number": COUNT,
        "ok": YES_NO,
        "older": {**YES_NO, "description": "the source has a copy, older than what ran at the destination"},
        "ownership": known.of(OwnerRecord),
        "passes": COUNT,
        "path": TEXT,
        "pause_ms": {**NUMBER, "description": "how long the copy stood still for its lease"},
        "force": YES_NO,
        "phase": one_of(Phase),
        "proof": TEXT,
        "stood": or_null(YES_NO),
        "plan": known.of(Plan),
        "port_ms": NUMBER,
        "problem": problem,
        "problems": list_of(problem),
        "qemu_downtime_ms": {**NUMBER, "description": "QEMU's own figure; not the blackout"},
        "reason": TEXT,
        "silent_ms": COUNT,
        "reference": TEXT,
        "remaining_bytes": NUMBER,
        "request": known.of(MigrationRequest),
        "sent_bytes": NUMBER,
        "state": one_of(VmState),
        "total_bytes": NUMBER,
        "warnings": list_of(problem),
        "what": TEXT,
        "why": TEXT,
    }


def _event(known: Definitions) -> Schema:
    types = _values(known)
    native = object_of(domain=TEXT, code={"type": ["integer", "string"]}, text=TEXT)
    base = object_of(
        "One event of a move. Which values it carries depends on its kind.",
        schema={"const": SCHEMA_VERSION},
        kind=one_of(Kind),
        origin={"enum": ["wish", "fact", "decision", "note"]},
        at_ns={**COUNT, "description": "nanoseconds since the epoch by the clock of the host, or the engine's"},
        side=or_null(one_of(Side)),
        host=or_null(TEXT),
        values={"type": "object"},
        native=or_null(native),
    )
    return {**base, "allOf": [_of_kind(kind, types) for kind in Kind]}


def _of_kind(kind: Kind, types: Mapping[str, Schema]) -> Schema:
    carried = {name: or_null(types[name]) for name in FIELDS.get(kind, ())}
    values = {"type": "object", "properties": carried, "additionalProperties": False}
    return {"if": {"properties": {"kind": {"const": kind.value}}}, "then": {"properties": {"values": values}}}


def _event_schema() -> Schema:
    known = Definitions()
    return known.document("event", SCHEMA_VERSION, "An event of a move: a line of --jsonl", _event(known))


def _outcome_schema() -> Schema:
    known = Definitions()
    return known.document("outcome", OUTCOME_VERSION, "How a move ended", known.of(Outcome))


def _line_schema() -> Schema:
    known = Definitions()
    lines = [_event(known), *_endings(known)]
    title = "A line of --jsonl, or the value of --json, of the verbs that move VMs"
    return known.document("line", SCHEMA_VERSION, title, {"oneOf": lines})


def _endings(known: Definitions) -> list[Schema]:
    detached = object_of(operation=TEXT, exit_code={"const": int(ExitCode.DETACHED)})
    problems = object_of(kind={"const": "problems"}, problems=list_of(known.of(Problem)), exit_code=one_of(ExitCode))
    problems["properties"]["operation"] = {**TEXT, "description": "of which operation, where there are several"}
    return [
        object_of("The end of a move.", kind={"const": "outcome"}, outcome=known.of(Outcome)),
        object_of(
            "What observers saw of a move (--watch), and where their samples are.",
            kind={"const": "verdicts"},
            verdicts=list_of(known.of(Verdict)),
            directory=TEXT,
        ),
        object_of("The command let the move go on.", kind={"const": "detached"}, detached=detached),
        {**problems, "description": "Why the command did not come to an end."},
        object_of("The end of a step of the demo.", kind={"const": "step"}, step=TEXT, took_s=NUMBER),
        object_of("The end of the demo.", kind={"const": "report"}, report=_demo(known)),
    ]


def _demo(known: Definitions) -> Schema:
    verdicts = list_of(known.of(Verdict))
    move = object_of(source=TEXT, destination=TEXT, green=YES_NO, outcome=known.of(Outcome), verdicts=verdicts)
    machine = object_of(cores=COUNT, memory_mib=COUNT, loop_ms=NUMBER, system=TEXT, python=TEXT)
    return object_of(
        backend={"enum": ["libvirt", "simulated"]},
        virtual_time=YES_NO,
        green=YES_NO,
        machine=machine,
        accelerator=TEXT,
        lab=TEXT,
        steps_s={"type": "object", "additionalProperties": NUMBER},
        moves=list_of(move),
        left=or_null(list_of(TEXT)),
        exit_code=one_of(ExitCode),
    )


def _demo_schema() -> Schema:
    known = Definitions()
    whole = object_of(kind={"const": "report"}, report=_demo(known))
    return known.document("demo-report", SCHEMA_VERSION, "What refimpl demo --json prints", whole)


def _row() -> Schema:
    return object_of(
        operation=TEXT,
        lab=or_null(TEXT),
        began={**or_null(TEXT), "description": "in UTC, ISO 8601"},
        vm=or_null(TEXT),
        source=or_null(TEXT),
        destination=or_null(TEXT),
        phase=or_null(one_of(Phase)),
        state={**TEXT, "description": "running, interrupted, lab gone, or the phase that is its end"},
        needs_recovery=YES_NO,
        exit_code=or_null(one_of(ExitCode)),
    )


def _operations_schema() -> Schema:
    row = _row()
    row["properties"]["controller"] = {**TEXT, "description": "the home of another controller, whose move it is"}
    unreadable = object_of(operation=TEXT, state={"const": "unreadable"}, problem=TEXT)
    whole = object_of(operations=list_of({"oneOf": [row, unreadable]}))
    return Definitions().document("operations-list", 1, "What refimpl operations list --json prints", whole)


def _operation_schema() -> Schema:
    known = Definitions()
    whole = object_of(
        **_row()["properties"],
        events=list_of(_event(known)),
        phases=list_of(object_of(phase=one_of(Phase), ms={**or_null(NUMBER), "description": "null: the last one"})),
        intentions=list_of(object_of(step=COUNT, phase=one_of(Phase), kind=one_of(CommandKind))),
        job=_job(known),
        outcome=or_null(known.of(Outcome)),
    )
    made: Schema = closed(known.document("operation", 1, "What refimpl operations show --json prints", whole))
    return made


def _job(known: Definitions) -> Schema:
    return object_of(
        "The move as Hyper-V's Msvm_MigrationJob shows one.",
        VirtualSystemName=TEXT,
        DestinationHost=TEXT,
        JobState=COUNT,
        JobStatus=TEXT,
        JobType=COUNT,
        MigrationType=COUNT,
        PercentComplete={**COUNT, "minimum": 0, "maximum": 100},
        Cancellable=YES_NO,
        ErrorCode={**COUNT, "description": "an HRESULT; 0: none"},
        ErrorDescription=TEXT,
        Errors=list_of(known.of(Problem)),
    )


def _verdicts_schema() -> Schema:
    known = Definitions()
    verdicts = list_of(known.of(Verdict))
    whole = object_of(schema={"const": 1}, vm=TEXT, source=TEXT, destination=TEXT, verdicts=verdicts)
    return known.document("verdicts", 1, "What observers found: observed/verdicts.json of an operation", whole)


def _check_schema() -> Schema:
    known = Definitions()
    native = object_of(domain=TEXT, code={"type": ["integer", "string"]}, text=TEXT)
    entry = object_of(
        "One finding, with Hyper-V's fields first.",
        Message=TEXT,
        MessageId={**or_null(COUNT), "description": "Hyper-V's, where it is known"},
        Source=object_of(Type=TEXT, Name=TEXT),
        id=TEXT,
        why=TEXT,
        mend=TEXT,
        phase=or_null(one_of(Phase)),
        side=or_null(one_of(Side)),
        host=or_null(TEXT),
        values={"type": "object"},
        native=or_null(native),
    )
    paths = dict.fromkeys(("Path", "SnapshotPath", "VhdDestinationPath", "VhdSourcePath"), or_null(TEXT))
    whole = object_of(
        schema={"const": REPORT_VERSION},
        VM=object_of(Name=TEXT, Id=or_null(TEXT)),
        OperationType={"const": OPERATION_TYPE},
        Destination=TEXT,
        **paths,
        Incompatibilities=list_of(entry),
        Warnings=list_of(entry),
        Compatible=YES_NO,
        SourceHost=or_null(TEXT),
        Group=TEXT,
        ComparedAt={**NUMBER, "description": "seconds since the epoch"},
        Choices=known.of(MigrationRequest),
        Checked=list_of(object_of(Family=TEXT, Verdict=one_of(Comparison), Text=TEXT)),
    )
    return known.document("check", REPORT_VERSION, "A compatibility report, as of Compare-VM", whole)


SCHEMAS: Mapping[str, Callable[[], Schema]] = {
    "event": _event_schema,
    "outcome": _outcome_schema,
    "line": _line_schema,
    "check": _check_schema,
    "operations-list": _operations_schema,
    "operation": _operation_schema,
    "demo-report": _demo_schema,
    "verdicts": _verdicts_schema,
    **schemas_verbs.SCHEMAS,
}
"""Published schemas by name."""


def text(name: str) -> str:
    """Return a schema as it is published; KeyError for one that is not."""
    return json.dumps(SCHEMAS[name](), indent=1, ensure_ascii=False) + "\n"
