"""`refimpl doctor`: what this machine has and lacks."""

from __future__ import annotations

import click

from refimpl.cli.context import home, json_option
from refimpl.cli.failing import errors_as_json
from refimpl.cli.say import as_json as print_json
from refimpl.model.phase import ExitCode

SHORT = "Check what this machine has and lacks, each with its mend."


@click.command(short_help=SHORT)
@json_option
def doctor(as_json: bool) -> int:
    """Check root, programs, Python packages, namespaces, KVM, interrupted moves and left-over labs; changes nothing.

    KVM is believed only after the guest's own kernel has booted with it, which is tried once per boot of the machine
    and may build the guest first. Corresponds to no cmdlet; what Compare-VM looks at is checked by each move itself.
    Ends with 0 when everything is in order, else with 8.

    \b
    Example:
      sudo refimpl doctor
    """
    from refimpl.app.doctor import examine

    found = []
    with errors_as_json(as_json):
        for finding in examine(home()):
            found.append(finding)
            if not as_json:
                word = click.style("ok  ", fg="green") if finding.ok else click.style("LACK", fg="red", bold=True)
                click.echo(f"{word}  {finding.name:<20}  {finding.text}")
                if finding.mend:
                    click.echo(f"{'':28}{'remark' if finding.ok else 'mend'}: {finding.mend}")
    lacking = [finding for finding in found if not finding.ok]
    if as_json:
        print_json({"ok": not lacking, "findings": [finding.to_json() for finding in found]})
    else:
        click.echo("Everything is in order." if not lacking else f"{len(lacking)} of {len(found)} need a mend.")
    return ExitCode.ENVIRONMENT if lacking else ExitCode.OK
