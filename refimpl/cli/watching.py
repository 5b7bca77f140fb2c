"""`refimpl migrate --watch`: observers around the move, and after its end what they saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from refimpl.cli.context import home, open_lab, require_root
from refimpl.cli.display import display_for
from refimpl.cli.ending import tell_outcome
from refimpl.cli.failing import problem_text
from refimpl.cli.following import ctrl_c_into_inbox, follow
from refimpl.cli.report import report_of, write_report
from refimpl.cli.say import as_json, columns
from refimpl.model.errors import RefimplError
from refimpl.model.outcome import Outcome
from refimpl.model.request import MigrationRequest

if TYPE_CHECKING:
    from refimpl.app.watched import Prepared, WatchedOperation
    from refimpl.meter.verdict import Verdict

_COLOURS = {"ok": "green", "bad": "red", "not measured": "yellow"}


def watched_move(
    lab_name: str | None, request: MigrationRequest, *, json: bool, jsonl: bool, report_file: Path | None = None
) -> int:
    """Move a VM with observers around it; return the exit code of the move, whatever they found."""
    require_root("migrate")
    with _observers(request.vm, lab_name) as prepared:
        with ctrl_c_into_inbox() as inbox:
            operation = prepared.start(request)
            outcome = follow(operation, display_for(json=json, jsonl=jsonl), inbox)
        code = _tell(operation, outcome, json=json, jsonl=jsonl)
    if report_file is not None and outcome is not None:
        write_report(report_file, report_of(operation))
    return code


@contextmanager
def _observers(vm: str, lab_name: str | None) -> Iterator[Prepared]:
    from refimpl.app.watched import subject_of, watching

    lab = open_lab(lab_name)
    subject = subject_of(lab.group, vm)
    click.echo(f"observers of VM {vm!r} start; before the move they listen for about two seconds", err=True)
    with watching(lab, home(), subject) as prepared:
        yield prepared


def _tell(operation: WatchedOperation, outcome: Outcome | None, *, json: bool, jsonl: bool) -> int:
    if outcome is None:
        return tell_outcome(None, operation.id, json=json, jsonl=jsonl)
    if json or jsonl:
        verdicts = [verdict.to_json() for verdict in _verdicts(operation)]
        if jsonl:
            as_json({"kind": "verdicts", "verdicts": verdicts, "directory": str(operation.directory)})
        else:
            click.echo(f"what was seen from outside: {operation.directory}", err=True)
        return tell_outcome(outcome, operation.id, json=json, jsonl=jsonl)
    code = tell_outcome(outcome, operation.id)
    click.echo(verdicts_text(_verdicts(operation), operation.directory))
    return code


def _verdicts(operation: WatchedOperation) -> tuple[Verdict, ...]:
    """Return what was seen; that a guest is not heard any more is told, and does not change how the move ended."""
    try:
        return operation.verdicts()
    except RefimplError as failure:
        for problem in failure.problems:
            click.echo(f"observers: {problem_text(problem)}", err=True)
        return ()


def verdicts_text(verdicts: Sequence[Verdict], directory: Path) -> str:
    """Return what the observers found, one line each, and where the samples are."""
    rows = [(f"  {v.name}", click.style(str(v.state).ljust(12), fg=_COLOURS[v.state]), v.text) for v in verdicts]
    table = columns((), rows) if rows else "  nothing that can be judged; only of a completed move is it"
    return f"\nseen from outside:\n{table}\n  every sample: {directory}"
