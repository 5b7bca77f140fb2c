"""`refimpl operations`: the moves of this controller, those that run and those that ended. Only looks, never acts."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refimpl.cli.context import home, is_root, json_option, operation_argument, operation_named
from refimpl.cli.ending import outcome_text
from refimpl.cli.failing import errors_as_json
from refimpl.cli.operations_post_copy import post_copy
from refimpl.cli.operations_set import set_
from refimpl.cli.recover import PASS_BOUND
from refimpl.cli.say import as_json as print_json
from refimpl.cli.say import columns, milliseconds
from refimpl.model.errors import RefimplError
from refimpl.model.events import Kind
from refimpl.model.phase import ExitCode

if TYPE_CHECKING:
    from refimpl.app.home import OperationFiles
    from refimpl.app.operations import Summary
    from refimpl.app.recovery import Interrupted

SHORT = "Moves of this controller: list, show, set, prune."
_COLUMNS = ("operation", "began", "lab", "vm", "source", "destination", "phase", "state")


@click.group(short_help=SHORT)
def operations() -> None:
    """Moves of this controller: those that run, those that ended, those that were interrupted.

    Corresponds to no cmdlet; Hyper-V keeps such things in its event log.
    """


operations.add_command(set_)
operations.add_command(post_copy)


@operations.command("list", short_help="List operations, interrupted ones among them.")
@json_option("operations-list")
def list_(as_json: bool) -> int:
    """List all operations of this controller, and interrupted ones of labs that are up.

    A conductor that has died is only reported here; `refimpl recover` acts. Corresponds to no cmdlet.

    \b
    Example:
      refimpl operations list
    """
    with errors_as_json(as_json):
        rows = [_row(files) for files in home().all()]
        known = {row["operation"] for row in rows}
        rows += [row for row in _others() if row["operation"] not in known]
    if as_json:
        print_json({"operations": rows})
    else:
        _print_list(rows)
    return ExitCode.OK


def _row(files: OperationFiles) -> dict[str, Any]:
    from refimpl.app.operations import summarise

    try:
        summary = summarise(files)
    except RefimplError as failure:
        return {"operation": files.id, "state": "unreadable", "problem": failure.problems[0].text}
    return {
        "operation": summary.id,
        "lab": summary.lab,
        "began": said_time(summary.began_ns),
        "vm": summary.vm,
        "source": summary.source,
        "destination": summary.destination,
        "phase": summary.phase,
        "state": _state(summary),
        "needs_recovery": summary.needs_recovery,
        "exit_code": None if summary.outcome is None else int(summary.outcome.exit_code),
    }


def said_time(at_ns: int | None) -> str | None:
    """Return a time (nanoseconds since the epoch) in UTC to the second, None when there is none."""
    if at_ns is None:
        return None
    return datetime.fromtimestamp(at_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _state(summary: Summary) -> str:
    if summary.alive and summary.outcome is None:
        return "running"
    if summary.outcome is None and summary.lab_gone:
        return "lab gone"
    return "interrupted" if summary.outcome is None else str(summary.outcome.end)


def _others() -> Iterator[dict[str, Any]]:
    """Yield interrupted moves of labs that are up whose journal is not in this home."""
    if not is_root():
        return
    from refimpl.app.recovery import interrupted
    from refimpl.lab import Lab, LabState, list_labs

    for summary in list_labs():
        if summary.state in (LabState.UP, LabState.DEGRADED):
            group = Lab.open(summary.id).group
            # Before the first move there is no store, and looking must not make one.
            found = interrupted(home(), group) if Path(group.store_path).exists() else ()
            yield from (_other(item, group.name) for item in found)


def _other(item: Interrupted, lab: str) -> dict[str, Any]:
    return {
        "operation": item.operation,
        "lab": lab,
        "began": None,
        "vm": item.vm,
        "source": item.plan.source if item.plan else None,
        "destination": item.plan.destination if item.plan else None,
        "phase": None,
        "state": "interrupted",
        "needs_recovery": True,
        "exit_code": None,
        "controller": item.controller,
    }


def _print_list(rows: list[dict[str, Any]]) -> None:
    if not rows:
        where = f"in {str(home().path)!r}; sudo has a home of its own"
        click.echo(f"No operations {where}. Start one: refimpl migrate VM HOST")
        return
    click.echo(
        columns([name.upper() for name in _COLUMNS], [[str(row.get(n) or "-") for n in _COLUMNS] for row in rows])
    )
    for row in rows:
        if "problem" in row:
            click.echo(f"{row['operation']}: {row['problem']}")
    waiting = [row["operation"] for row in rows if row.get("needs_recovery")]
    if waiting:
        click.echo(f"\nTo be recovered: {', '.join(waiting)}. Run: refimpl recover\n{PASS_BOUND}")


@operations.command("prune", short_help="Forget operations that have ended.")
@click.option("--older-than", "days", type=click.FloatRange(0), metavar="DAYS", help="Ended before so many days.")
@click.option("--all", "everything", is_flag=True, help="Whenever they ended.")
@click.option("--lab-gone", is_flag=True, help="Also those without an end whose lab does not exist any more.")
@json_option("operations-pruned")
def prune(days: float | None, everything: bool, lab_gone: bool, as_json: bool) -> int:
    """Remove what is kept of operations that have ended: their journals and reports.

    One that runs, was interrupted or needs recovery is never removed. Corresponds to no cmdlet.

    \b
    Examples:
      refimpl operations prune --older-than 30
      refimpl operations prune --all
    """
    if (days is None) == (not everything):
        raise click.UsageError("say either --older-than DAYS or --all")
    from refimpl.app.pruning import prune as prune_home

    with errors_as_json(as_json):
        pruned = prune_home(home(), days or 0.0, lab_gone=lab_gone)
    if as_json:
        print_json({"removed": list(pruned.removed), "kept": dict(pruned.kept)})
        return ExitCode.OK
    click.echo(f"{len(pruned.removed)} removed" + (f": {', '.join(pruned.removed)}" if pruned.removed else ""))
    for operation, why in pruned.kept.items():
        click.echo(f"kept {operation}: {why}")
    return ExitCode.OK


@operations.command("show", short_help="Show phases, events, intentions and end of one.")
@operation_argument
@json_option("operation")
def show(operation_id: str, as_json: bool) -> int:
    """Show OPERATION: phases, events, what the engine set out to do, and the end.

    OPERATION is its id, the beginning of it, or the VM that it moves now.

    Corresponds to Get-Job, and to Msvm_MigrationJob. Ends with 0 whatever the operation's end was.

    \b
    Example:
      refimpl operations show 3fa9
    """
    from refimpl.app.job import job_of
    from refimpl.app.operations import summarise

    with errors_as_json(as_json):
        files = operation_named(operation_id)
        summary = summarise(files)
        events = [json_module.loads(line) for _, line in files.lines()]
        intentions = _intentions(files)
        job = job_of(summary.vm, summary.destination, events, summary.outcome).to_json()
    if as_json:
        outcome = summary.outcome.to_json() if summary.outcome else None
        rows = {"events": events, "phases": phases(events), "intentions": intentions, "job": job, "outcome": outcome}
        print_json({**_row(files), **rows})
        return ExitCode.OK
    click.echo(f"Operation {summary.id}: VM {summary.vm!r} from {summary.source or '?'} to {summary.destination}")
    click.echo(f"Job: {job['JobStatus']}, {job['PercentComplete']} %, error code {job['ErrorCode']:#010x}")
    _print_phases(phases(events))
    _print_events(events)
    _print_intentions(intentions)
    _print_end(summary)
    return ExitCode.OK


def _intentions(files: OperationFiles) -> list[dict[str, Any]]:
    with files.reading() as journal:
        found = journal.intentions() if journal else []
    return [{"step": step, "phase": phase, **command} for step, phase, command in found]


def phases(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the phases that were entered and how long each lasted in milliseconds, None for the last one."""
    entered = [(e["values"]["phase"], e["at_ns"]) for e in events if e["kind"] == Kind.PHASE_ENTERED]
    ends = [at for _, at in entered[1:]]
    spans = [(end - begin) / 1e6 for (_, begin), end in zip(entered[: len(ends)], ends, strict=True)]
    return [{"phase": phase, "ms": ms} for (phase, _), ms in zip(entered, [*spans, None], strict=False)]


def _print_phases(rows: list[dict[str, Any]]) -> None:
    if rows:
        click.echo("\n" + click.style("Phases", bold=True))
        click.echo(columns((), [(f"  {row['phase']}", milliseconds(row["ms"]) if row["ms"] else "") for row in rows]))


def _print_events(events: list[dict[str, Any]]) -> None:
    if not events:
        return
    began = events[0]["at_ns"]
    when = datetime.fromtimestamp(began / 1e9, UTC).isoformat(timespec="seconds")
    click.echo("\n" + click.style(f"Events (from {when} on)", bold=True))
    shown = [event for event in events if event["kind"] != Kind.PROGRESS]
    rows = [(f"  {(e['at_ns'] - began) / 1e9:.3f} s", e["origin"], e["kind"], _place(e), _values(e)) for e in shown]
    click.echo(columns((), rows))
    if len(shown) < len(events):
        click.echo(f"  and {len(events) - len(shown)} of progress (shown by --json)")


def _place(event: Mapping[str, Any]) -> str:
    return " ".join(str(event[name]) for name in ("side", "host") if event.get(name))


def _values(event: Mapping[str, Any]) -> str:
    parts = []
    for name, value in event["values"].items():
        if isinstance(value, Mapping):
            value = value.get("text") or value.get("kind")
        if value is not None and not isinstance(value, list):
            parts.append(f"{name}={value}")
    return " ".join(parts)


def _print_intentions(rows: list[dict[str, Any]]) -> None:
    if rows:
        click.echo("\n" + click.style("What the engine set out to do (in the journal before it was done)", bold=True))
        click.echo(columns((), [(f"  {row['step']}", row["phase"], row["kind"]) for row in rows]))


def _print_end(summary: Summary) -> None:
    if summary.outcome is not None:
        click.echo(outcome_text(summary.outcome))
    elif summary.alive:
        click.echo(f"\nIt runs. Follow it: refimpl attach {summary.id}")
    else:
        click.echo(f"\nIts conductor died in phase {summary.phase}. Run: refimpl recover {summary.id}\n{PASS_BOUND}")
