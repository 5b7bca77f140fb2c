"""`refimpl attach`: follow an operation that runs, or tell how it ended."""

from __future__ import annotations

import click

from refimpl.cli.context import json_option, operation_argument, operation_named
from refimpl.cli.failing import errors_as_json
from refimpl.cli.following import ctrl_c_into_inbox

SHORT = "Follow an operation that runs, or tell how it ended."


@click.command(short_help=SHORT)
@operation_argument
@json_option("line")
@click.option("--jsonl", is_flag=True, help="Print every event as a JSON line, the outcome last.")
def attach(operation_id: str, as_json: bool, jsonl: bool) -> int:
    """Follow OPERATION (its id, the beginning of it, or the VM that it moves) to its end, from its first event on.

    Corresponds to no cmdlet; in Hyper-V Manager it is the progress in the VM's status column. The exit code is that of
    the move. Ctrl-C asks for a cancel, a second one detaches, the cancel still asked for.

    \b
    Examples:
      refimpl attach 3fa9
      refimpl attach web1
    """
    from refimpl.app.operations import Operation
    from refimpl.cli.migrate import show

    with errors_as_json(as_json or jsonl), ctrl_c_into_inbox() as inbox:
        return show(Operation(operation_named(operation_id)), inbox, as_json, jsonl)
