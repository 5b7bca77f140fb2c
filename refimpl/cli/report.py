"""`refimpl report`: one move as a page that can be shown around."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from refimpl.cli.context import home, is_root
from refimpl.model.phase import ExitCode

if TYPE_CHECKING:
    from refimpl.app.live import Followed
    from refimpl.report.data import ReportData

SHORT = "Write the report page of a move: one HTML file."
STDOUT = Path("-")
Verb = TypeVar("Verb", bound=Callable[..., Any])


def report_option(function: Verb) -> Verb:
    """Give a verb the option `--report`."""
    text = "Write the report page, one HTML file, when it has ended."
    kind = click.Path(path_type=Path, dir_okay=False, writable=True)
    option = click.option("--report", "report_file", type=kind, metavar="FILE", callback=in_a_directory, help=text)
    return option(function)


def in_a_directory(_: click.Context, parameter: click.Parameter, file: Path | None) -> Path | None:
    """Refuse a file that cannot be written before anything is moved, not after it."""
    if file is not None and file != STDOUT and not os.access(file.absolute().parent, os.W_OK | os.X_OK):
        directory = file.absolute().parent
        raise click.BadParameter(f"directory {directory} is not there or cannot be written to", param=parameter)
    return file


@click.command(short_help=SHORT)
@click.argument("operation_id", metavar="[OPERATION]", required=False)
@click.option("--latest", is_flag=True, help="The operation that was begun last; also what is meant without OPERATION.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True, writable=True),
    metavar="FILE",
    callback=in_a_directory,
    help="Where to write it; - is standard output. [default: refimpl-report-OPERATION.html here]",
)
@click.option(
    "--open",
    "show",
    type=click.Choice(["auto", "yes", "no"]),
    default="auto",
    show_default=True,
    help="Show it in the browser; auto: at a terminal with a display, unless as root.",
)
def report(operation_id: str | None, latest: bool, output: Path | None, show: str) -> int:
    """Write the report page of OPERATION (its id, or the beginning of it), ended or not, refused or failed.

    The page is one HTML file that needs no network and no scripts: verdict, phases to scale, the blackout magnified,
    rates, what observers heard, checks, settings, evidence, all events, and the command that asks for the same again.
    Corresponds to no cmdlet; Hyper-V spreads this over its event log. Ends with 0 whatever the operation's end was.

    \b
    Examples:
      refimpl report
      refimpl report 3fa9 --output move.html
    """
    from refimpl.app import report as gather

    if operation_id is not None and latest:
        raise click.UsageError("--latest does not go with an operation")
    files = gather.latest(home()) if operation_id is None else home().find(operation_id)
    text = gather.html(gather.operation_report(files))
    if output == STDOUT:
        click.echo(text)
        return ExitCode.OK
    file = output or Path(f"refimpl-report-{files.id}.html")
    file.write_text(text, "utf-8")
    click.echo(f"report: {file}")
    if show == "yes" or (show == "auto" and _has_display()):
        click.launch(str(file.absolute()))
    return ExitCode.OK


def _has_display() -> bool:
    """Whether somebody sits here who would see a browser; as root most browsers do not start."""
    shown = sys.platform in ("win32", "darwin") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())
    return shown and sys.stdout.isatty() and not is_root()


def write_report(file: Path, *moves: ReportData, title: str = "") -> None:
    """Write the page of moves to a file, and say so on standard error."""
    from refimpl.app.report import html

    file.write_text(html(*moves, title=title), "utf-8")
    click.echo(f"report: {file}", err=True)


def report_of(operation: Followed) -> ReportData:
    """Return the data of a move that was followed: in a world, or of this controller."""
    from refimpl.app.report import operation_report
    from refimpl.app.simulated import SimulatedOperation

    if isinstance(operation, SimulatedOperation):
        return operation.report()
    return operation_report(home().find(operation.id))
