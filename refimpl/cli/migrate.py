"""`refimpl migrate`: move a running VM to another host, and wait for the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from refimpl.app.live import Followed
from refimpl.cli.choices import Choices, move_choices
from refimpl.cli.context import home, json_option, lab_option, open_lab, require_root, world_option
from refimpl.cli.display import display_for
from refimpl.cli.ending import tell_outcome
from refimpl.cli.failing import errors_as_json
from refimpl.cli.following import Inbox, ctrl_c_into_inbox, follow
from refimpl.cli.report import report_of, report_option, write_report

if TYPE_CHECKING:
    from refimpl.app.operations import Operation
    from refimpl.model.request import MigrationRequest

SHORT = "Move a running VM to another host (Move-VM)."


@click.command(short_help=SHORT)
@move_choices
@click.option("--detach", is_flag=True, help="Start it and return at once (exit code 11); `attach` follows it.")
@click.option("--watch", is_flag=True, help="Say what observers outside the VM saw of the move, and keep every sample.")
@click.option("--backend", type=click.Choice(["libvirt", "simulated"]), default="libvirt", show_default=True)
@world_option
@json_option("line")
@click.option("--jsonl", is_flag=True, help="Print every event as a JSON line, the outcome last.")
@report_option
@lab_option
def migrate(
    choices: Choices,
    detach: bool,
    watch: bool,
    backend: str,
    world: Path | None,
    as_json: bool,
    jsonl: bool,
    report_file: Path | None,
    lab_name: str | None,
) -> int:
    """Move the running VM to host DESTINATION and wait until it has ended.

    Corresponds to Move-VM, with --compatibility-report to Move-VM -CompatibilityReport. Both hosts are checked first;
    what they lack is said all at once and nothing is changed.
    Ctrl-C asks for a cancel with roll-back, possible until the switch; a second one detaches: the move, or its
    roll-back, goes on, and `refimpl attach` follows it. To let go of a move without a cancel, start it with --detach.

    \b
    Examples:
      refimpl migrate web1 h2 --bandwidth 100 --watch
      refimpl migrate web1 h2 --include-storage --destination-storage-path /srv/disks
      refimpl migrate demo b --backend simulated      (its own world: VM demo on host a, host b empty)
    """
    if (world is not None or detach) and (backend == "simulated") != (world is not None):
        option = "--detach" if detach and world is None else "--world"
        raise click.UsageError(f"{option} does not go with --backend {backend}")
    if report_file is not None and detach:
        raise click.UsageError("--report does not go with --detach: refimpl report writes it later")
    if watch and (detach or backend == "simulated"):
        raise click.UsageError(f"--watch does not go with {'--detach' if detach else '--backend simulated'}")
    if watch:
        from refimpl.cli.watching import watched_move

        with errors_as_json(as_json or jsonl):
            return watched_move(lab_name, choices.request(), json=as_json, jsonl=jsonl, report_file=report_file)
    with errors_as_json(as_json or jsonl), ctrl_c_into_inbox() as inbox:
        request = choices.request()
        operation = _simulated(request, world) if backend == "simulated" else _started(request, lab_name)
        if detach:
            return tell_outcome(None, operation.id, json=as_json, jsonl=jsonl)
        code = show(operation, inbox, as_json, jsonl)
        if report_file is not None:
            write_report(report_file, report_of(operation))
        return code


def show(operation: Followed, inbox: Inbox, json: bool, jsonl: bool) -> int:
    """Follow an operation on the display that was asked for, tell its end, and return its exit code."""
    outcome = follow(operation, display_for(json=json, jsonl=jsonl), inbox)
    return tell_outcome(outcome, operation.id, json=json, jsonl=jsonl)


def _started(request: MigrationRequest, lab_name: str | None) -> Operation:
    require_root("migrate")
    from refimpl.app.operations import start

    return start(home(), open_lab(lab_name).group, request)


def _simulated(request: MigrationRequest, world: Path | None) -> Followed:
    from refimpl.app.simulated import SimulatedOperation, open_world

    click.echo("SIMULATED: no VM is moved; all times are virtual and say nothing about any machine.", err=True)
    return SimulatedOperation(open_world(world), request, file=world)
