"""`refimpl host`: settings of hosts for live migration, with Hyper-V's names and values."""

from __future__ import annotations

import re
from typing import Any

import click

from refimpl.cli.context import json_option, lab_option, open_lab, require_root
from refimpl.cli.failing import errors_as_json
from refimpl.cli.say import as_json as print_json
from refimpl.cli.say import columns
from refimpl.model.settings import DEFAULT_UNEXPECTED_BLACKOUT_MS, HostSettings

SHORT = "Settings of hosts for live migration: get, set (Get-/Set-VMHost)."


@click.group(short_help=SHORT)
def host() -> None:
    """Settings of hosts for live migration. They are kept in the group store: all controllers see the same."""


@host.command("get", short_help="Show the settings of one host, or of all.")
@click.argument("name", metavar="[HOST]", required=False)
@json_option("host-settings")
@lab_option
def get(name: str | None, as_json: bool, lab_name: str | None) -> int:
    """Show the settings of HOST, or of every host of the lab.

    Corresponds to Get-VMHost. Certificates prove hosts to each other here, whatever the authentication type says: it is
    kept for hosts that are Hyper-V's.

    \b
    Example:
      refimpl host get h1
    """
    from refimpl.app.settings import SettingsDesk

    with errors_as_json(as_json):
        desk = SettingsDesk(open_lab(lab_name).group)
        found = {name: desk.get(name)} if name else dict(desk.all())
    if as_json:
        print_json({host: settings.to_json() for host, settings in found.items()})
    else:
        click.echo(_table(found))
    return 0


def _changes(function: Any) -> Any:
    for name, text in reversed(_TEXTS.items()):
        function = click.option(option_of(name), name, metavar="VALUE", help=text)(function)
    return function


def option_of(name: str) -> str:
    """Return the option for a property: `--maximum-storage-migrations` for `MaximumStorageMigrations`."""
    return "--" + re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


_TEXTS = {
    "VirtualMachineMigrationEnabled": "true or false: take part in live migrations (Enable-/Disable-VMMigration).",
    "MaximumVirtualMachineMigrations": "So many at once, both directions together; one more is refused. [default: 2]",
    "MaximumStorageMigrations": "So many storage migrations at once. [default: 2]",
    "VirtualMachineMigrationAuthenticationType": "CredSSP or Kerberos; kept for hosts that are Hyper-V's.",
    "VirtualMachineMigrationPerformanceOption": "TCPIP or Compression, of moves from here. [default: Compression]",
    "UseAnyNetworkForMigration": "true or false: take migrations on every network, not only on the listed ones.",
    "PreCopyPassLimit": "Passes over the memory before the switch is forced (not a property of Hyper-V). [default: 5]",
    "Fence": "How the host is cut off when it is silent: own (of its kind), none, or the path of a fence agent.",
    "FenceOptions": "What the agent is told beside the action: name=value words.",
    "UnexpectedBlackoutMs": "A longer blackout is a warning (not a property of Hyper-V). "
    f"[default: {DEFAULT_UNEXPECTED_BLACKOUT_MS}]",
}


@host.command("set", short_help="Change settings of a host.")
@click.argument("name", metavar="HOST")
@_changes
@json_option("host-settings")
@lab_option
def set_(name: str, as_json: bool, lab_name: str | None, **wanted: str | None) -> int:
    """Change settings of HOST. What is not named stays; moves that run keep what they began with.

    Corresponds to Set-VMHost, Enable-VMMigration and Disable-VMMigration.

    \b
    Examples:
      refimpl host set h1 --virtual-machine-migration-performance-option TCPIP
      refimpl host set h2 --maximum-virtual-machine-migrations 4
    """
    from refimpl.app.settings import SettingsDesk

    chosen = {key: value for key, value in wanted.items() if value is not None}
    if not chosen:
        raise click.UsageError("name at least one setting (refimpl host set --help)")
    with errors_as_json(as_json):
        changed = SettingsDesk(open_lab(lab_name).group).set(name, chosen)
    if as_json:
        print_json(changed.to_json())
    else:
        click.echo(_table({name: changed}))
    return 0


@host.command("try-fence", short_help="Try how a host would be cut off, without doing it.")
@click.argument("name", metavar="HOST")
@json_option("fence-tried")
@lab_option
def try_fence(name: str, as_json: bool, lab_name: str | None) -> int:
    """Ask the fence of HOST whether the host has power: that harms nothing, and shows that the fence answers.

    When it did is kept, and shown by host get and before the fence is used. Ends with 8 when it does not work.
    Corresponds to no cmdlet.

    \b
    Example:
      sudo refimpl host try-fence h1
    """
    from refimpl.app.fencing import try_fence, when

    with errors_as_json(as_json):
        require_root("host try-fence")
        fence, at_ns = try_fence(open_lab(lab_name).group, name)
    if as_json:
        print_json({"host": name, "fence": fence, "tried_ns": at_ns})
    else:
        click.echo(f"Host {name}: {fence} answers, and says that the host is on ({when(at_ns)}).")
    return 0


def _table(found: dict[str, HostSettings]) -> str:
    names = next(iter(found.values())).to_json()
    rows = [(name, *(_said(s.to_json()[name]) for s in found.values())) for name in names]
    return columns(("setting", *found), rows)


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return _fence(value)
    if isinstance(value, list):
        return ", ".join(f"{n['Subnet']} ({n['Priority']})" for n in value) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fence(fence: dict[str, Any]) -> str:
    from refimpl.app.fencing import when

    tried = f"tried {when(fence['tried_ns'])}" if fence["tried_ns"] else "not tried"
    return f"{fence['agent']} ({tried})" if fence["agent"] != "none" else "none"
