"""`refimpl network`: the networks on which a host takes migrations, by priority."""

from __future__ import annotations

import click

from refimpl.cli.context import json_option, lab_option, open_lab
from refimpl.cli.failing import errors_as_json
from refimpl.cli.say import as_json as print_json
from refimpl.cli.say import columns
from refimpl.model.settings import HostSettings

SHORT = "Migration networks of hosts: add, list, set, remove (*-VMMigrationNetwork)."
PRIORITY = click.IntRange(0, 2**32 - 1)


@click.group(short_help=SHORT)
def network() -> None:
    """Networks on which hosts take migrations. A lower priority comes first; what does not connect is passed over."""


@network.command("list", short_help="List the migration networks of hosts.")
@click.argument("host", required=False)
@json_option("migration-networks")
@lab_option
def list_(host: str | None, as_json: bool, lab_name: str | None) -> int:
    """List the migration networks of HOST, or of every host of the lab. Corresponds to Get-VMMigrationNetwork.

    \b
    Example:
      refimpl network list
    """
    from refimpl.app.settings import SettingsDesk

    with errors_as_json(as_json):
        desk = SettingsDesk(open_lab(lab_name).group)
        found = {host: desk.get(host)} if host else dict(desk.all())
    _tell(found, as_json)
    return 0


@network.command("add", short_help="Let a network carry migrations to a host.")
@click.argument("host")
@click.argument("subnet")
@click.option("--priority", type=PRIORITY, default=0, show_default=True, help="Lower comes first; need not be unique.")
@json_option("migration-networks")
@lab_option
def add(host: str, subnet: str, priority: int, as_json: bool, lab_name: str | None) -> int:
    """Let SUBNET (IPv4 or IPv6, CIDR or one address) carry migrations to HOST. Corresponds to Add-VMMigrationNetwork.

    \b
    Example:
      refimpl network add h2 10.90.1.0/24 --priority 5
    """
    from refimpl.app.settings import SettingsDesk

    with errors_as_json(as_json):
        changed = SettingsDesk(open_lab(lab_name).group).add_network(host, subnet, priority)
    _tell({host: changed}, as_json)
    return 0


@network.command("set", short_help="Change subnet or priority of a migration network.")
@click.argument("host")
@click.argument("subnet")
@click.option("--priority", type=PRIORITY, help="Lower comes first.")
@click.option("--new-subnet", metavar="SUBNET", help="The subnet that it shall have.")
@json_option("migration-networks")
@lab_option
def set_(
    host: str, subnet: str, priority: int | None, new_subnet: str | None, as_json: bool, lab_name: str | None
) -> int:
    """Change the migration network SUBNET of HOST. Corresponds to Set-VMMigrationNetwork.

    \b
    Example:
      refimpl network set h2 10.90.1.0/24 --priority 1
    """
    from refimpl.app.settings import SettingsDesk

    if priority is None and new_subnet is None:
        raise click.UsageError("name --priority or --new-subnet")
    with errors_as_json(as_json):
        desk = SettingsDesk(open_lab(lab_name).group)
        changed = desk.set_network(host, subnet, priority=priority, new_subnet=new_subnet)
    _tell({host: changed}, as_json)
    return 0


@network.command("remove", short_help="Let a network carry no migrations to a host any more.")
@click.argument("host")
@click.argument("subnet")
@json_option("migration-networks")
@lab_option
def remove(host: str, subnet: str, as_json: bool, lab_name: str | None) -> int:
    """Take SUBNET from the migration networks of HOST. Corresponds to Remove-VMMigrationNetwork.

    \b
    Example:
      refimpl network remove h2 10.90.1.0/24
    """
    from refimpl.app.settings import SettingsDesk

    with errors_as_json(as_json):
        changed = SettingsDesk(open_lab(lab_name).group).remove_network(host, subnet)
    _tell({host: changed}, as_json)
    return 0


def _tell(found: dict[str, HostSettings], as_json: bool) -> None:
    networks = {host: sorted(s.networks, key=lambda n: n.priority) for host, s in found.items()}
    if as_json:
        shown = {h: [{"Subnet": n.subnet, "Priority": n.priority} for n in found] for h, found in networks.items()}
        print_json(shown)
        return
    rows = [(host, n.subnet, str(n.priority)) for host, found in networks.items() for n in found]
    click.echo(columns(("host", "subnet", "priority"), rows) if rows else "none")
    for host, settings in found.items():
        if settings.use_any_network:
            click.echo(f"host {host} takes migrations on every other network too (UseAnyNetworkForMigration)")
