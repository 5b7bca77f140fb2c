"""`refimpl demo`: the main job from nothing to nothing, and a table of what the observers saw."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from refimpl.app.live import JsonEvent
from refimpl.cli.context import json_option, require_root, world_option
from refimpl.cli.display import Display, Silent, display_for
from refimpl.cli.failing import errors_as_json, problem_text
from refimpl.cli.report import report_option, write_report
from refimpl.cli.say import NOT_MEASURED, columns, mib, milliseconds
from refimpl.cli.say import as_json as print_json
from refimpl.model.errors import Problem

if TYPE_CHECKING:
    from refimpl.app.demo import DemoReport, WatchedMove

Figures = Sequence[tuple[str, "Callable[[WatchedMove], str]"]]

SHORT = "Show the main job: a guest moves there and back, watched from outside."


class _Teller:
    """Prints what the demo does: lines and steps for a person, or JSON lines."""

    def __init__(self, json: bool, jsonl: bool) -> None:
        self._json, self._jsonl = json, jsonl
        self._display: Display = Silent()

    def say(self, text: str) -> None:
        """Print a line."""
        if not (self._json or self._jsonl):
            self.close()
            click.echo(text)

    def step(self, name: str, took_s: float) -> None:
        """Print a step's end."""
        self.close()
        if self._jsonl:
            print_json({"kind": "step", "step": name, "took_s": round(took_s, 3)})
        elif not self._json:
            click.echo(click.style(f"{name}: {took_s:.1f} s", dim=True))

    def event(self, event: JsonEvent) -> None:
        """Show an event of a move."""
        if isinstance(self._display, Silent) and not self._json:
            self._display = display_for(jsonl=self._jsonl)
        self._display.event(event)

    def close(self) -> None:
        """End the live display of a move."""
        self._display.close()
        self._display = Silent()


@click.command(short_help=SHORT)
@click.option(
    "--backend",
    type=click.Choice(["auto", "libvirt", "simulated"]),
    default="auto",
    show_default=True,
    help="auto: libvirt. simulated: in memory, virtual time, anywhere, as anyone; moves no VM.",
)
@world_option
@click.option("--keep", is_flag=True, help="Leave the lab up, to look at it.")
@json_option("demo-report")
@click.option("--jsonl", is_flag=True, help="Print every step and event as a JSON line, the report last.")
@click.option("--quick", is_flag=True, help="One move there and back, encrypted, as a host is set by default.")
@report_option
def demo(
    backend: str, world: Path | None, keep: bool, as_json: bool, jsonl: bool, quick: bool, report_file: Path | None
) -> int:
    """Two hosts come out of nothing, a guest that works moves live from one to the other and back in every mode.

    The modes are TCPIP and Compression, each encrypted and plain. Observers outside the VM say what happened; then
    everything is taken away again, also after an error or Ctrl-C. Corresponds to no cmdlet; each move is a Move-VM.
    Ends with 0 only if every verdict is green.

    \b
    Examples:
      sudo refimpl demo
      sudo refimpl demo --quick --report demo.html
      refimpl demo --backend simulated
    """
    if (world is not None or keep or quick) and (backend == "simulated") != (world is not None):
        option = "--world" if world else "--keep" if keep else "--quick"
        raise click.UsageError(f"{option} does not go with --backend {backend}")
    teller = _Teller(as_json, jsonl)
    with errors_as_json(as_json or jsonl):
        try:
            report = _simulated(world, teller) if backend == "simulated" else _in_lab(teller, keep, quick)
        finally:
            teller.close()
    if as_json or jsonl:
        print_json({"kind": "report", "report": report.to_json()})
    else:
        click.echo(report_text(report))
    if report_file is not None:
        pages = [move.page for move in report.moves if move.page is not None]
        write_report(report_file, *pages, title="There and back: the demo's moves")
    return report.exit_code


def _simulated(world: Path | None, teller: _Teller) -> DemoReport:
    from refimpl.app.demo import simulated_demo

    teller.say(click.style("SIMULATED: no VM is moved, no machine is measured; all times are virtual.", bold=True))
    return simulated_demo(world, teller)


def _in_lab(teller: _Teller, keep: bool, quick: bool) -> DemoReport:
    if sys.platform != "linux":
        raise click.UsageError("the lab needs Linux; here: refimpl demo --backend simulated")
    require_root("demo")
    from refimpl.app.labdemo import lab_demo

    return lab_demo(teller, keep=keep, quick=quick)


def report_text(report: DemoReport) -> str:
    """Return the figures, one row a move, and under them what is not green."""
    simulated = report.backend == "simulated"
    parts = ["", table(report.moves, _ENGINE), ""]
    if not simulated:
        parts += [click.style("What observers outside the VM saw of the same moves", bold=True)]
        parts += [table(report.moves, _OBSERVERS), click.style(_LEGEND, dim=True), ""]
    parts.append(f"machine: {report.machine.text}")
    if simulated:
        parts.append(click.style("SIMULATED: all times above are virtual; no VM was moved, no guest heard.", bold=True))
    else:
        parts.append(f"accelerator: {report.accelerator.partition(':')[0]}")
        parts.append(f"time of all steps: {sum(report.steps.values()):.1f} s")
        parts.append(_left_text(report))
    parts += [problem_text(problem) for problem in problems(report)]
    word = (
        click.style("GREEN", fg="green", bold=True) if report.green else click.style("NOT GREEN", fg="red", bold=True)
    )
    parts.append(f"demo: {word}")
    return "\n".join(parts)


def _left_text(report: DemoReport) -> str:
    if report.left is None:
        return "lab: kept, as asked"
    return f"lab: taken away, {'nothing left' if not report.left else 'LEFT BEHIND: ' + '; '.join(report.left)}"


def problems(report: DemoReport) -> list[Problem]:
    """Return what is not green: ends, verdicts, leftovers."""
    found: list[Problem] = []
    for move in report.moves:
        found += move.outcome.problems
        for verdict in move.verdicts:
            if not verdict.good:
                values = {"source": move.source, "destination": move.destination}
                detail = f"{verdict.state}: {verdict.text}"
                found.append(Problem("demo.not_green", {**values, "verdict": verdict.name, "detail": detail}))
    if report.left:
        found.append(Problem("demo.leftovers", {"lab": report.lab, "items": "; ".join(report.left)}))
    return found


def table(moves: Sequence[WatchedMove], figures: Figures) -> str:
    """Return a table, one row a move: each figure stands under its own name, they are never the same thing."""
    head = ("MODE", "MOVE", *(name for name, _ in figures))
    rows = [(m.mode, f"{m.source} to {m.destination}", *(words(m) for _, words in figures)) for m in moves]
    return columns(head, rows)


def _figure(observer: str, template: str) -> Callable[[WatchedMove], str]:
    def words(move: WatchedMove) -> str:
        verdict = move.verdict(observer)
        try:
            return template.format_map(verdict.figures if verdict else {})
        except KeyError:
            return NOT_MEASURED

    return words


def _verdicts(move: WatchedMove) -> str:
    """Return how many verdicts are good, and the names of those that are not."""
    bad = [verdict for verdict in move.verdicts if not verdict.good]
    good = f"{len(move.verdicts) - len(bad)} of {len(move.verdicts)} ok"
    return good + "".join(f", {verdict.name.upper()} {verdict.state}" for verdict in bad)


_ENGINE: Figures = (
    ("END", lambda move: str(move.outcome.end)),
    ("TOTAL", lambda move: milliseconds(move.outcome.total_ms)),
    ("BLACKOUT", _figure("blackout", "{blackout_ms:.1f} ms")),
    ("QEMU'S FIGURE", lambda move: milliseconds(move.outcome.qemu_downtime_ms)),
    ("SENT", lambda move: mib(move.outcome.sent_bytes)),
    ("PASSES", lambda move: str(move.outcome.passes or "none seen to end")),
)
_OBSERVERS: Figures = (
    ("OUTSIDE GAP", _figure("outside gap", "{outside_gap_ms:.1f} ms")),
    ("(BEFORE)", _figure("outside gap", "{before_max_ms:.1f} ms")),
    ("BEATS LOST", _figure("heartbeat", "{beats_missing}")),
    ("TCP PAUSE", _figure("tcp stream", "{longest_pause_ms:.1f} ms")),
    ("PORT LEARNT", _figure("switch", "{mac_relearned_ms:.1f} ms")),
    ("IN CLEAR", _figure("wire", "{memory_markers}")),
    ("VERDICTS", _verdicts),
)
_LEGEND = """blackout: no vCPU ran, QMP STOP to RESUME. QEMU's figure: its own downtime, never the same thing.
outside gap: silence heard by a listener of the guest's heartbeats (before: their longest distance before the move).
TCP pause: of an open connection. port learnt: after RESUME. in clear: the guest's own markers, read on the wire."""
