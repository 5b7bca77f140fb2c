"""`refimpl cancel`: ask a running move to stop and roll back, and say what became of it."""

from __future__ import annotations

import click

from refimpl.cli.context import json_option, operation_argument, operation_named
from refimpl.cli.display import display_for
from refimpl.cli.ending import tell_outcome
from refimpl.cli.failing import errors_as_json
from refimpl.cli.following import ctrl_c_into_inbox, follow
from refimpl.model.outcome import Outcome
from refimpl.model.phase import ExitCode, Phase

SHORT = "Ask a running move to stop and roll back."


@click.command(short_help=SHORT)
@operation_argument
@json_option("line")
@click.option("--jsonl", is_flag=True, help="Print every event as a JSON line, the outcome last.")
def cancel(operation_id: str, as_json: bool, jsonl: bool) -> int:
    """Ask OPERATION (its id, the beginning of it, or the VM that it moves) to stop, and wait for what becomes of it.

    Corresponds to no cmdlet of its own: Move-VM is cancelled with Stop-Job, or in Hyper-V Manager. From the switch on
    a cancel is refused and the move goes through. Exit codes: 0 cancelled, the VM is on the source as before; 0 with a
    warning when it came too late and the move was completed; else that of the move's end.

    \b
    Examples:
      refimpl cancel 3fa9
      refimpl cancel web1
    """
    from refimpl.app.operations import Operation

    with errors_as_json(as_json or jsonl), ctrl_c_into_inbox() as inbox:
        operation = Operation(operation_named(operation_id))
        operation.cancel()
        outcome = follow(operation, display_for(json=as_json, jsonl=jsonl), inbox)
        code = tell_outcome(outcome, operation.id, json=as_json, jsonl=jsonl)
    return cancel_code(outcome, code)


def cancel_code(outcome: Outcome | None, code: int) -> int:
    """Return the exit code of a cancel whose move ended like this: 0 when it was cancelled, or completed after all."""
    return ExitCode.OK if outcome is not None and outcome.end is Phase.CANCELLED else code
