"""`refimpl lab power-on`: a host that a forced take-over has cut off, or that has lost its power, is on again."""

from __future__ import annotations

import click

from refimpl.cli.context import home, json_option, lab_option, open_lab, require_root
from refimpl.cli.failing import errors_as_json
from refimpl.cli.say import as_json as print_json
from refimpl.model.phase import ExitCode


@click.command("power-on", short_help="Switch a host on again that was cut off.")
@click.argument("host")
@json_option("lab-power")
@lab_option
def power_on(host: str, as_json: bool, lab_name: str | None) -> int:
    """Switch HOST on again, with its daemons; its VMs stay off. Nothing is done to a host that is on.

    For a host that `refimpl recover OPERATION --force` has cut off. What it still keeps of a VM that went on without it
    is put in order by `refimpl recover OPERATION` then. Corresponds to no cmdlet.

    \b
    Example:
      sudo refimpl lab power-on h1
    """
    with errors_as_json(as_json):
        require_root("lab power-on")
        lab = open_lab(lab_name)
        switched = lab.host_power_on(host)
        from refimpl.app.recovery import needs_attention

        waiting = needs_attention(home())
    if as_json:
        print_json({"lab": lab.name, "host": host, "switched_on": switched, "to_recover": waiting})
        return ExitCode.OK
    if switched:
        click.echo(f"Host {host} is on again, and libvirt answers there. VMs that ran on it are off.")
    else:
        click.echo(f"Host {host} was on: nothing was done. Where it does not answer: refimpl lab mend {host}")
    for operation in waiting:
        click.echo(f"Next: refimpl recover {operation}")
    return ExitCode.OK
