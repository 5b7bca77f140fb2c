"""`refimpl doctor`: what this machine has and lacks, and mending it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from refimpl.cli.context import home, json_option, require_root
from refimpl.cli.failing import errors_as_json
from refimpl.cli.say import as_json as print_json
from refimpl.model.phase import ExitCode

if TYPE_CHECKING:
    from refimpl.app.mending import Mended, Repair
    from refimpl.lab.requirements import Finding

SHORT = "Check what this machine has and lacks, each with its mend; --mend mends it."


@click.command(short_help=SHORT)
@click.option("--mend", is_flag=True, help="Then mend what can be mended safely; says first what it will do, and asks.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option("doctor")
def doctor(mend: bool, yes: bool, as_json: bool) -> int:
    """Check rights, programs and their versions, Python packages, kernel features, room, moves and labs left over.

    Without --mend nothing is changed. --mend installs packages (by ci/setup) and Python packages, loads kernel
    modules, builds the guest, and takes away labs that were left half-made; interrupted moves are left to refimpl
    recover. KVM is believed only after the guest's own kernel has booted with it, which is tried once per boot of the
    machine and may build the guest first. Corresponds to no cmdlet; what Compare-VM looks at is checked by each move
    itself. Ends with 0 when everything is in order, else with 8.

    \b
    Examples:
      sudo refimpl doctor
      sudo refimpl doctor --mend --yes
    """
    if mend and as_json and not yes:
        raise click.UsageError("--mend with --json cannot ask: say --yes too")
    from refimpl.app.doctor import examine

    with errors_as_json(as_json):
        if mend:
            require_root("doctor --mend")
        found = _told(examine(home()), as_json)
        mended = _mended(found, yes, as_json) if mend else None
        if mended:
            found = _told(examine(home()), as_json)
    lacking = [finding for finding in found if not finding.ok]
    if as_json:
        told = {"ok": not lacking, "findings": [finding.to_json() for finding in found]}
        rows = [{"name": m.name, "does": m.does, "ok": m.ok, "said": m.said or None} for m in mended or ()]
        print_json(told | ({"mended": rows} if mend else {}))
    else:
        click.echo("Everything is in order." if not lacking else f"{len(lacking)} of {len(found)} need a mend.")
    return ExitCode.ENVIRONMENT if lacking else ExitCode.OK


def _told(findings: Iterable[Finding], as_json: bool) -> list[Finding]:
    """Take the findings, and tell each as soon as it is there."""
    taken = []
    for finding in findings:
        taken.append(finding)
        if not as_json:
            word = click.style("ok  ", fg="green") if finding.ok else click.style("LACK", fg="red", bold=True)
            click.echo(f"{word}  {finding.name:<20}  {finding.text}")
            if finding.mend:
                click.echo(f"{'':28}{'remark' if finding.ok else 'mend'}: {finding.mend}")
    return taken


def _mended(found: list[Finding], yes: bool, as_json: bool) -> list[Mended]:
    """Say what can be done, ask, do it, and say how each ended; empty when nothing was done."""
    from refimpl.app.mending import carry_out, repairs

    planned = repairs(found)
    if not as_json:
        _tell_plan(planned, found)
    if not planned or not (yes or _agreed()):
        return []
    done = []
    for mended in carry_out(planned):
        done.append(mended)
        if not as_json:
            click.echo(f"{'done' if mended.ok else 'FAILED'}: {mended.does}{'' if mended.ok else f': {mended.said}'}")
    return done


def _tell_plan(planned: tuple[Repair, ...], found: list[Finding]) -> None:
    click.echo("To be done:" if planned else "Nothing here can be mended by this command.")
    for repair in planned:
        click.echo(f"  {repair.does}")
    names = {repair.name for repair in planned} | {repair.name.partition(":")[0] for repair in planned}
    by_hand = [f for f in found if not f.ok and not ({f.repair, f.repair.partition(":")[0]} & names)]
    for finding in by_hand:
        click.echo(f"  by hand: {finding.name}: {finding.mend}")


def _agreed() -> bool:
    try:
        agreed = click.confirm("Go on?")
    except click.Abort:
        # No terminal to ask on is not an agreement.
        agreed = False
    if not agreed:
        click.echo("Nothing was changed; --yes goes on without asking.")
    return agreed
