"""`refimpl lab`: hosts made out of nothing, and taken away again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from refimpl.cli.context import json_option, lab_option, open_lab, require_root, root_where_needed
from refimpl.cli.failing import errors_as_json
from refimpl.cli.lab_fault import fault
from refimpl.cli.lab_link import link, link_row, link_table
from refimpl.cli.lab_mend import mend
from refimpl.cli.lab_power import power_on
from refimpl.cli.say import as_json as print_json
from refimpl.cli.say import columns
from refimpl.model.phase import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from refimpl.lab import HostStatus, Removal

SHORT = "Hosts made out of nothing: up, status, mend, link, fault, power-on, shell, logs, down, reap, list."


@click.group(short_help=SHORT)
def lab() -> None:
    """Hosts made out of nothing: Linux namespaces, each with a libvirt of its own, certificates and networks.

    Nothing of the machine's own libvirt is touched. Corresponds to no cmdlet.
    """


lab.add_command(link)
lab.add_command(mend)
lab.add_command(fault)
lab.add_command(power_on)


@lab.command(short_help="Build a lab and wait until its hosts answer.")
@click.argument("name", required=False)
@click.option("--hosts", type=click.IntRange(1, 32), help="How many hosts: h1, h2, ...  [default: 2]")
@click.option("--memory", type=click.IntRange(64), metavar="MIB", help="What each host declares.  [default: 2048]")
@click.option("--file", "file", type=click.Path(path_type=Path), help="A lab file says it all: see docs/lab.toml.")
@json_option("lab")
def up(name: str | None, hosts: int | None, memory: int | None, file: Path | None, as_json: bool) -> int:
    """Build the lab NAME (without a name: `lab`) and wait until its hosts answer.

    Corresponds to no cmdlet. Ctrl-C takes away what was built so far.

    \b
    Examples:
      sudo refimpl lab up --hosts 3
      sudo refimpl lab up --file docs/lab.toml
    """
    if file is not None and (hosts is not None or memory is not None):
        raise click.UsageError("a lab file says how many hosts there are and what they declare: leave out the options")
    from refimpl.app.labs import build, wish_of

    steps: list[tuple[str, float]] = []

    def on_step(step: str, took_s: float) -> None:
        steps.append((step, took_s))
        click.echo(f"  {step:<22}{took_s:7.2f} s", err=True)

    with errors_as_json(as_json):
        wish = wish_of(name, hosts, memory, file)
        require_root("lab up")
        made = build(wish, on_step)
    group = made.group
    if as_json:
        rows = [{"name": step, "seconds": round(took_s, 4)} for step, took_s in steps]
        names = [host.name for host in group.hosts]
        told = {"lab": made.name, "id": made.id, "hosts": names, "group": str(made.paths.group), "steps": rows}
        print_json({**told, "remarks": list(made.remarks)})
        return ExitCode.OK
    first, other = group.hosts[0].name, group.hosts[-1].name
    declared = ", ".join(f"{host.name} ({host.memory_mib} MiB)" for host in group.hosts)
    click.echo(
        f"Lab {made.name!r} is up (id {made.id}) after {sum(took for _, took in steps):.1f} s: hosts {declared}."
    )
    for remark in made.remarks:
        click.echo(f"Remark: {remark}")
    click.echo(f"Next: refimpl vm create web1 --start, then refimpl migrate web1 {other if other != first else 'HOST'}")
    return ExitCode.OK


@lab.command(short_help="Look at every host of a lab now.")
@click.argument("name", required=False)
@json_option("lab-status")
@lab_option
def status(name: str | None, as_json: bool, lab_name: str | None) -> int:
    """Look at every host of a lab and its links now. Ends with 8 when a host is not healthy.

    Corresponds to Get-VMHost.

    \b
    Example:
      refimpl lab status
    """
    with errors_as_json(as_json):
        require_root("lab status")
        found = open_lab(name or lab_name)
        hosts, links = found.status(), [(link, link.state()) for link in found.links()]
    healthy = all(host.healthy for host in hosts)
    if as_json:
        rows = [{n: getattr(h, n) for n in (*h.__slots__, "healthy")} for h in hosts]
        shown = [link_row(link, state) for link, state in links]
        print_json({"lab": found.name, "id": found.id, "healthy": healthy, "hosts": rows, "links": shown})
    else:
        click.echo(f"Lab {found.name!r} (id {found.id}), {found.paths.directory}")
        head = ("HOST", "HEALTHY", "INIT", "LIBVIRTD", "ANSWERS", "VIRTLOCKD", "LEASES", "MEMORY")
        cells = [(h.healthy, h.init_alive, h.libvirtd_alive, h.libvirtd_answers, h.virtlockd_alive) for h in hosts]
        rows_text = [
            [h.name, *("yes" if c else "NO" for c in cell), _leases(h), f"{h.memory_mib} MiB"]
            for h, cell in zip(hosts, cells, strict=True)
        ]
        click.echo(columns(head, rows_text))
        click.echo(link_table(links))
        for off in (h.name for h in hosts if not h.init_alive):
            click.echo(f"Host {off} is off. Switch it on: refimpl lab power-on {off}")
        for unleased in (h.name for h in hosts if h.init_alive and not h.leased):
            click.echo(f"Leases of host {unleased} are not held or cannot be taken. Mend: refimpl lab mend {unleased}")
    return ExitCode.OK if healthy else ExitCode.ENVIRONMENT


@lab.command(short_help="Open a shell on a host, or run a command there.")
@click.argument("host")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@lab_option
def shell(host: str, command: Sequence[str], lab_name: str | None) -> NoReturn:
    """Open a shell on HOST, or run COMMAND there; ends with its exit code.

    Corresponds to Enter-PSSession, with a command to Invoke-Command.

    \b
    Examples:
      refimpl lab shell h1
      refimpl lab shell h1 -- virsh list
    """
    require_root("lab shell")
    line = open_lab(lab_name).shell_command(host, *command)
    # In place of this process: the terminal and its signals are the shell's alone.
    os.execvp(line[0], line)


@lab.command(short_help="Print the end of a host's log files.")
@click.argument("host")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=20, show_default=True, help="Last lines of each; 0: names."
)
@lab_option
def logs(host: str, lines: int, lab_name: str | None) -> int:
    """Print the end of every log file of HOST: its daemons', and its virtual machines' consoles.

    Corresponds to Get-WinEvent on the Hyper-V logs.

    \b
    Example:
      refimpl lab logs h1 -n 50
    """
    require_root("lab logs")
    for path in open_lab(lab_name).logs(host):
        text = path.read_text("utf-8", "replace").splitlines()
        click.echo(click.style(f"==> {path} ({len(text)} lines)", bold=True))
        for line in text[-lines:] if lines else ():
            click.echo(line)
    return ExitCode.OK


@lab.command(short_help="Take a lab away with its virtual machines.")
@click.argument("name", required=False)
@click.option("--force", is_flag=True, help="Also while one of its virtual machines is being moved.")
@json_option("lab-removals")
@lab_option
def down(name: str | None, force: bool, as_json: bool, lab_name: str | None) -> int:
    """Take a lab away with all its virtual machines, and look whether anything of it is left.

    Refused while a move runs in it. Corresponds to no cmdlet.

    \b
    Example:
      sudo refimpl lab down
    """
    with errors_as_json(as_json):
        require_root("lab down")
        found = open_lab(name or lab_name)
        title = found.name
        removal = found.down(only_idle=not force)
    return _tell_removals([(title, removal)], as_json)


@lab.command(short_help="Take away labs that were left half-made.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option("lab-removals")
def reap(names: Sequence[str], as_json: bool) -> int:
    """Take away the labs named, or, without a name, all that were left half-made, half-removed or by an earlier boot.

    Removes exactly what a lab's registry and the lab's id on the things themselves prove to be its own.
    Corresponds to no cmdlet.

    \b
    Example:
      sudo refimpl lab reap
    """
    from refimpl.lab import reap as reap_labs

    with errors_as_json(as_json):
        require_root("lab reap")
        removals = reap_labs(tuple(names))
    if not removals and not as_json:
        click.echo("No broken lab was found.")
    return _tell_removals([(removal.lab_id, removal) for removal in removals], as_json)


@lab.command("list")
@json_option("lab-list")
def list_(as_json: bool) -> int:
    """List all labs of this machine.

    Corresponds to no cmdlet.

    \b
    Example:
      refimpl lab list
    """
    from refimpl.lab import list_labs

    with errors_as_json(as_json), root_where_needed():
        labs = list_labs()
    if as_json:
        rows = [{"id": x.id, "name": x.name, "state": x.state, "directory": str(x.directory)} for x in labs]
        print_json({"labs": rows})
    elif labs:
        click.echo(
            columns(("NAME", "ID", "STATE", "DIRECTORY"), [(x.name, x.id, x.state, str(x.directory)) for x in labs])
        )
    else:
        click.echo("No labs. Make one: sudo refimpl lab up")
    return ExitCode.OK


def _leases(host: HostStatus) -> str:
    if host.without_lease:
        return f"NOT HELD: {', '.join(host.without_lease)}"
    if host.left_locked:
        return f"LEFT LOCKED: {', '.join(host.left_locked)}"
    return "held" if host.daemons_in_order else "NONE TO BE HAD"


def _tell_removals(removals: Sequence[tuple[str, Removal]], as_json: bool) -> int:
    from refimpl.lab import leftovers

    rows = []
    for title, removal in removals:
        left = [f"{x.kind} {x.name}: {x.reason}" for x in removal.left_behind] + leftovers(removal.lab_id)
        rows.append({"lab": title, "id": removal.lab_id, "removed": list(removal.removed), "left": left})
        if not as_json:
            said = "nothing of it is left" if not left else "LEFT BEHIND:"
            click.echo(f"Lab {title!r} (id {removal.lab_id}): {len(removal.removed)} things removed, {said}")
            for item in left:
                click.echo(f"  {item}")
    if as_json:
        print_json({"labs": rows})
    return ExitCode.ENVIRONMENT if any(row["left"] for row in rows) else ExitCode.OK
