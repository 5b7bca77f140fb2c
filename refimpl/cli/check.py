"""`refimpl check`: would a move of this VM be refused, and what mends it (Compare-VM)."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import click

from refimpl.cli.choices import Choices, move_choices
from refimpl.cli.context import backend_of, json_option, lab_option, open_lab, require_root, world_option
from refimpl.cli.failing import errors_as_json, problem_text
from refimpl.cli.report import in_a_directory
from refimpl.cli.say import as_json as print_json
from refimpl.cli.say import columns
from refimpl.model.compatibility import Verdict
from refimpl.model.phase import ExitCode

if TYPE_CHECKING:
    from refimpl.model.compatibility import Checked, CompatibilityReport
    from refimpl.model.request import MigrationRequest

SHORT = "Compare a VM with a destination: everything that stands in the way, and its mend (Compare-VM)."
_TEXT_WIDTH = 96
_COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.REFUSED: "red", Verdict.NOT_SEEN: "yellow"}


@click.command(short_help=SHORT)
@move_choices
@click.option(
    "--save",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    metavar="FILE",
    callback=in_a_directory,
    help="Keep the report there, for another comparison or the move.",
)
@click.option("--backend", type=click.Choice(["libvirt", "simulated"]), default="libvirt", show_default=True)
@world_option
@json_option("check")
@lab_option
def check(
    choices: Choices, save: Path | None, backend: str, world: Path | None, as_json: bool, lab_name: str | None
) -> int:
    """Tell whether the VM could be moved to host DESTINATION, everything that stands in the way, and what mends it.

    Corresponds to Compare-VM, with --compatibility-report to Compare-VM -CompatibilityReport. Nothing is changed; a
    file is written beside each disk, read from the other host, and removed. A report is a snapshot: mend, compare
    again, then move with it. The move checks everything anew. Ends with 0 when nothing stands in the way, else with 3.

    \b
    Examples:
      refimpl check web1 h2 --save web1.report
      refimpl check --compatibility-report web1.report
      refimpl migrate --compatibility-report web1.report
    """
    if world is not None and backend != "simulated":
        raise click.UsageError(f"--world does not go with --backend {backend}")
    with errors_as_json(as_json):
        request = choices.request()
        report = _simulated(request, world) if backend == "simulated" else _compared(request, lab_name)
        if save is not None:
            from refimpl.app.check import save_report

            save_report(save, report)
    if as_json:
        print_json(report.to_json())
    else:
        click.echo(report_text(report))
    if save is not None:
        click.echo(f"report: {save}", err=True)
    return ExitCode.OK if report.compatible else ExitCode.REFUSED


def _compared(request: MigrationRequest, lab_name: str | None) -> CompatibilityReport:
    require_root("check")
    group = open_lab(lab_name).group
    from refimpl.app.check import compare
    from refimpl.engine.store import GroupStore

    with backend_of(group) as backend:
        return compare(backend, GroupStore.standing(Path(group.store_path)), group.name, request)


def _simulated(request: MigrationRequest, world: Path | None) -> CompatibilityReport:
    from refimpl.app.simulated import compare_in, open_world

    click.echo("SIMULATED: the hosts are those of a world that is made up.", err=True)
    return compare_in(open_world(world), request)


def report_text(report: CompatibilityReport) -> str:
    """Return a report for a person: the verdict, a line for each family of checks, every finding with its mend."""
    route = f"VM {report.request.vm!r}" + (f" from host {report.source}" if report.source else "")
    route += f" to host {report.request.destination}"
    count = len(report.incompatibilities)
    findings = "1 finding stands" if count == 1 else f"{count} findings stand"
    verdict = f"{route}: {findings} in the way." if count else f"{route}: nothing stands in the way."
    head = click.style(verdict, fg="red" if count else "green", bold=True)
    told = [f"{'problem' if p.refuses else 'warning'}: {problem_text(p)}" for p in report.problems]
    return "\n".join([head, *_families(report), *told])


def _families(report: CompatibilityReport) -> list[str]:
    """Return lines for each family of which something was seen, and one for all others."""
    seen = [c for c in report.checked if c.verdict is not Verdict.NOT_SEEN]
    unseen = [c.family for c in report.checked if c.verdict is Verdict.NOT_SEEN]
    rows = [(c.verdict, row) for c in seen for row in _rows(c)]
    lines = columns((), [row for _, row in rows]).splitlines()
    styled = [click.style(line, fg=_COLOURS[verdict]) for (verdict, _), line in zip(rows, lines, strict=True)]
    if unseen:
        styled.append(click.style(f"  not seen: {', '.join(unseen)}", fg=_COLOURS[Verdict.NOT_SEEN]))
    return styled


def _rows(checked: Checked) -> list[tuple[str, str, str]]:
    """Return the rows of one family: its verdict and name stand before the first line of a long text."""
    first, *more = wrap(checked.text, _TEXT_WIDTH) or [""]
    return [(f"  {checked.verdict}", checked.family, first), *(("", "", line) for line in more)]
