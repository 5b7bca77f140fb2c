"""`refimpl operations set`: change what can be changed of a move that runs."""

from __future__ import annotations

import click

from refimpl.cli.context import operation_argument, operation_named
from refimpl.cli.failing import errors_as_json
from refimpl.model.request import MOST_BANDWIDTH_MIB_S


@click.command("set", short_help="Change the bandwidth of one that runs.")
@operation_argument
@click.option(
    "--bandwidth", type=click.IntRange(0, MOST_BANDWIDTH_MIB_S), metavar="MIB_S", required=True, help="0: no limit."
)
def set_(operation_id: str, bandwidth: int) -> int:
    """Limit the transfer of OPERATION to so many MiB per second from now on. Corresponds to no cmdlet.

    OPERATION is its id, the beginning of it, or the VM that it moves. Counts until the switch; `refimpl attach` tells
    whether it was taken.

    \b
    Example:
      refimpl operations set 3fa9 --bandwidth 20
    """
    from refimpl.app.operations import Operation

    with errors_as_json(False):
        operation = Operation(operation_named(operation_id))
        operation.set_bandwidth(bandwidth)
    limit = f"{bandwidth} MiB/s" if bandwidth else "no limit"
    click.echo(f"asked of operation {operation.id}: {limit} (refimpl attach {operation.id} tells what became of it)")
    return 0
