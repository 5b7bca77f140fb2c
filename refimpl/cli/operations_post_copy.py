"""`refimpl operations post-copy`: have a move that allows it go over to post-copy now."""

from __future__ import annotations

import click

from refimpl.cli.context import operation_argument, operation_named
from refimpl.cli.failing import errors_as_json
from refimpl.report.words import POST_COPY_RISK


@click.command("post-copy", short_help="Let the VM run there before its memory has come.")
@operation_argument
def post_copy(operation_id: str) -> int:
    """Have the VM of OPERATION run at the destination now, and its memory follow. Corresponds to no cmdlet.

    OPERATION is its id, the beginning of it, or the VM that it moves. Only of a move that was begun with --post-copy.
    Once begun there is no way back: until all memory has come, the end of either QEMU loses the VM.

    \b
    Example:
      refimpl operations post-copy 3fa9
    """
    from refimpl.app.operations import Operation

    with errors_as_json(False):
        operation = Operation(operation_named(operation_id))
        operation.start_post_copy()
    click.echo(f"asked of operation {operation.id}: post-copy (refimpl attach {operation.id} tells what became of it)")
    click.echo(f"mind: {POST_COPY_RISK}")
    return 0
