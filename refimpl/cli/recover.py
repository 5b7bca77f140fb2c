"""`refimpl recover`: find out by evidence where interrupted moves stand, and end them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from refimpl.cli.context import backend_of, home, json_option, lab_option, open_lab, require_root
from refimpl.cli.display import display_for
from refimpl.cli.ending import tell_outcome
from refimpl.cli.failing import errors_as_json, exit_code, rows, tell
from refimpl.cli.following import Inbox, ctrl_c_into_inbox, follow
from refimpl.cli.say import as_json as print_json
from refimpl.model.errors import RefimplError, error
from refimpl.model.phase import ExitCode

if TYPE_CHECKING:
    from refimpl.app.home import Home
    from refimpl.app.recovery import Interrupted
    from refimpl.model.group import Group

SHORT = "End interrupted moves by evidence."
PASS_BOUND = "While a conductor is dead nobody counts passes: a transfer that still runs is not bounded."
EVIDENCE = {
    "journal": "its journal in this controller's home",
    "claim": "its claim in the group store",
    "mark": "its mark on the VM",
}


@click.command(short_help=SHORT)
@click.argument("operation_id", metavar="[OPERATION]", required=False)
@click.option("--from-elsewhere", is_flag=True, help="Also what another machine or boot began; be sure it is dead.")
@click.option("--force", is_flag=True, help="Cut off a host that does not answer; says before what that risks.")
@click.option("--yes", is_flag=True, help="With --force: do not ask.")
@json_option("line")
@click.option("--jsonl", is_flag=True, help="Print every event as a JSON line, each outcome last.")
@lab_option
def recover(
    operation_id: str | None,
    from_elsewhere: bool,
    force: bool,
    yes: bool,
    as_json: bool,
    jsonl: bool,
    lab_name: str | None,
) -> int:
    """End OPERATION, or everything that was interrupted, by what both hosts show; never by belief.

    Corresponds to no cmdlet; Hyper-V's management service does it when it starts again. Interrupted moves are found by
    journals in this controller's home, claims in the group store, and marks on the VMs. Twice is the same as once. Ends
    with the worst exit code of what it recovered, 0 when there was nothing. --json prints a value for each move that it
    recovers, and so none when there was nothing.

    With --force, for one OPERATION, a host that does not answer is cut off by its fence (refimpl host set, try-fence).
    Only when it is proved that nothing of the VM runs there any more, what is left decides; otherwise nothing is done.

    \b
    Examples:
      refimpl recover
      refimpl recover 3fa9
      refimpl recover 3fa9 --force
    """
    _usage(operation_id, force=force, asks=not yes, as_json=as_json or jsonl)
    with errors_as_json(as_json or jsonl), ctrl_c_into_inbox() as inbox:
        require_root("recover")
        group = _group(operation_id, lab_name)
        items = _found(home(), group, operation_id)
        if not items and not (as_json or jsonl):
            click.echo("Nothing was interrupted: no journal, claim or mark of a move without an end.")
        codes: list[int] = [ExitCode.OK]
        for item in items:
            if force and not _agreed(home(), group, item, asks=not yes, say=not (as_json or jsonl)):
                click.echo("Nothing was done; --yes goes on without asking.")
                return ExitCode.REFUSED
            codes.append(_recover(home(), group, item, from_elsewhere, force, inbox, (as_json, jsonl)))
            if codes[-1] == ExitCode.DETACHED:
                break  # whoever wants to be gone does not wait for the others; the next recover finds them
    return max(codes)


def _usage(operation_id: str | None, *, force: bool, asks: bool, as_json: bool) -> None:
    if force and operation_id is None:
        raise click.UsageError("--force is for one operation: name it")
    if force and asks and (as_json or not sys.stdin.isatty()):
        raise click.UsageError("--force cannot ask here: say --yes too")


def _agreed(home: Home, group: Group, item: Interrupted, *, asks: bool, say: bool) -> bool:
    """Name what a forced take-over risks, and ask."""
    from refimpl.app.fencing import risk

    with ExitStack() as stack:
        found = risk(home, group, stack.enter_context(backend_of(group)), item)
    if say:
        for line in found.lines:
            click.echo(line)
    return not asks or click.confirm("Go on?")


def _group(operation_id: str | None, lab_name: str | None) -> Group:
    """Return the group that is meant: of the lab named, of the operation's own lab, or of the only lab that is up."""
    if operation_id is None or lab_name is not None:
        return open_lab(lab_name).group
    from refimpl.lab import list_labs

    try:
        files = home().find(operation_id)
    except RefimplError:
        return open_lab(None).group
    lab = str(files.read_spec()["group"]["id"])
    if not any(summary.id == lab for summary in list_labs()):
        raise error("lab.gone", lab=lab, operation=files.id)
    return open_lab(lab).group


def _found(home: Home, group: Group, operation_id: str | None) -> Sequence[Interrupted]:
    from refimpl.app.operations import summarise
    from refimpl.app.recovery import Interrupted, interrupted

    with ExitStack() as stack:
        items = interrupted(home, group, stack.enter_context(backend_of(group)))
    if operation_id is None:
        return items
    chosen = [item for item in items if item.operation.startswith(operation_id)]
    if len(chosen) == 1:
        return chosen
    # It has ended, which starting a recovery repeats, or its conductor lives.
    files = home.find(operation_id)
    conductor = files.conductor()
    if conductor is not None and summarise(files).alive:
        raise error("operation.alive", operation=files.id, pid=conductor.pid)
    spec = files.read_spec()
    return [Interrupted(files.id, spec["request"]["vm"], "journal", None, spec["controller"])]


def _recover(
    home: Home,
    group: Group,
    item: Interrupted,
    from_elsewhere: bool,
    force: bool,
    inbox: Inbox,
    formats: tuple[bool, bool],
) -> int:
    from refimpl.app.recovery import recover_one

    json, jsonl = formats
    if not (json or jsonl):
        click.echo(f"Operation {item.operation}, VM {item.vm!r}, found by {EVIDENCE[item.found_by]}. {PASS_BOUND}")
    try:
        operation = recover_one(home, group, item, from_elsewhere=from_elsewhere, force=force)
        outcome = follow(operation, display_for(json=json, jsonl=jsonl), inbox)
    except RefimplError as failure:
        # One that cannot be recovered must not keep the others from it.
        if json or jsonl:
            told = {"problems": rows(failure), "exit_code": int(exit_code(failure))}
            print_json({"kind": "problems", "operation": item.operation, **told})
        tell(failure)
        return exit_code(failure)
    return tell_outcome(outcome, item.operation, json=json, jsonl=jsonl)
