"""`refimpl lab link`: a host's link to a network is cut, slowed down, and put right again."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from refimpl.cli.context import json_option, lab_option, open_lab, require_root
from refimpl.cli.failing import errors_as_json
from refimpl.cli.say import as_json as print_json
from refimpl.cli.say import columns
from refimpl.model.phase import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from refimpl.lab import Link, LinkState

MAX_RATE_MBIT_S = 100_000
MAX_SECONDS = 86_400.0


@click.command(short_help="Cut a host's link to a network, slow it down, or put it right.")
@click.argument("host")
@click.option("--network", required=True, help="A migration network by its name, `management` or `vm`.")
@click.option("--down", "action", flag_value="down", help="Cut it: nothing passes, and nobody is told.")
@click.option("--up", "action", flag_value="up", help="Put it right: at the speed that the lab gave it.")
@click.option("--rate", type=click.IntRange(0, MAX_RATE_MBIT_S), metavar="MBIT", help="Mbit/s each way; 0: no limit.")
@click.option("--for", "seconds", type=click.FloatRange(0, MAX_SECONDS), metavar="SECONDS", help="Then undo it; waits.")
@json_option("lab-link")
@lab_option
def link(
    host: str,
    network: str,
    action: str | None,
    rate: int | None,
    seconds: float | None,
    as_json: bool,
    lab_name: str | None,
) -> int:
    """Cut HOST's link to a network of the lab, slow it down, or put it right; without an option, only look.

    It stays so until it is put right or the lab goes; with --for, this command waits and undoes it, on Ctrl-C too.
    Corresponds to Disconnect-VMNetworkAdapter and the bandwidth settings of Set-NetQosPolicy on a host's own network.

    \b
    Examples:
      sudo refimpl lab link h1 --network migration --rate 100
      sudo refimpl lab link h2 --network migration --down --for 10
      sudo refimpl lab link h2 --network migration --up
    """
    if seconds is not None and action != "down" and rate is None:
        raise click.UsageError("--for undoes what --down or --rate did")
    with errors_as_json(as_json):
        require_root("lab link")
        found = open_lab(lab_name).link(host, network)
        if seconds is None:
            _act(found, action, rate)
            _tell(found, as_json)
            return ExitCode.OK
        with asked_to_end() as ended, found.restored():
            _act(found, action, rate)
            _tell(found, as_json)
            ended.wait(seconds)
    return ExitCode.OK


def _tell(found: Link, as_json: bool) -> None:
    state = found.state()
    if as_json:
        print_json(link_row(found, state))
    else:
        click.echo(link_table([(found, state)]))


def link_row(found: Link, state: LinkState) -> dict[str, Any]:
    """Return a link as plain JSON values."""
    row = {"host": found.host, "network": found.network, "address": found.address or None}
    return {**row, "up": state.up, "rate_mbit_s": state.rate_mbit_s or None}


def link_table(links: Sequence[tuple[Link, LinkState]]) -> str:
    """Return links as a table."""
    rows = [
        (
            x.host,
            x.network,
            x.address or "-",
            "up" if s.up else "CUT",
            f"{s.rate_mbit_s} Mbit/s" if s.rate_mbit_s else "-",
        )
        for x, s in links
    ]
    return columns(("HOST", "NETWORK", "ADDRESS", "LINK", "LIMIT"), rows)


def _act(found: Link, action: str | None, rate: int | None) -> None:
    if action == "up":
        found.mend()
    if rate is not None:
        found.shape(rate)
    if action == "down":
        found.cut()


@contextmanager
def asked_to_end() -> Iterator[threading.Event]:
    """Give what says that somebody wants this command to end, so that the link is put right before it does."""
    ended = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
