"""`refimpl vm set`: settings of a VM, under the names of the cmdlets that set them in Hyper-V."""

from __future__ import annotations

import click

from refimpl.cli.context import json_option, lab_option
from refimpl.cli.failing import errors_as_json
from refimpl.cli.vm_desk import desk_of, tell_done
from refimpl.cli.vm_types import MEMORY


@click.command("set", short_help="Change a VM's settings (Set-VM).")
@click.argument("name")
@click.option("--memory", type=MEMORY, help="Only while it is off (Set-VMMemory -StartupBytes).")
@click.option("--vcpus", type=click.IntRange(1, 16), help="Only while it is off (Set-VMProcessor -Count).")
@click.option(
    "--processor-compatibility",
    type=click.Choice(["on", "off"]),
    help="Only while it is off (Set-VMProcessor -CompatibilityForMigrationEnabled). Under KVM `on` gives it a baseline "
    "processor that any host has; under TCG the processor is the same everywhere and only the setting is kept.",
)
@click.option(
    "--connect", metavar="SWITCH", help="Connect its adapter to this virtual switch (Connect-VMNetworkAdapter)."
)
@click.option("--disconnect", is_flag=True, help="Connect its adapter to none (Disconnect-VMNetworkAdapter).")
@click.option(
    "--adapter", type=int, default=1, show_default=True, metavar="N", help="Which adapter, as `vm show` lists."
)
@click.option("--eject", is_flag=True, help="Take the medium out of its DVD drive (Set-VMDvdDrive -Path $null).")
@json_option("vm-changed")
@lab_option
def set_(
    name: str,
    memory: int | None,
    vcpus: int | None,
    processor_compatibility: str | None,
    connect: str | None,
    disconnect: bool,
    adapter: int,
    eject: bool,
    as_json: bool,
    lab_name: str | None,
) -> int:
    """Change settings of the VM NAME. Refused while it is being moved.

    Corresponds to Set-VM, Set-VMMemory, Set-VMProcessor, Connect-VMNetworkAdapter, Disconnect-VMNetworkAdapter and
    Set-VMDvdDrive.

    \b
    Examples:
      refimpl vm set web1 --memory 2G --vcpus 2
      refimpl vm set web1 --disconnect
    """
    nothing = (memory, vcpus, processor_compatibility, connect) == (None,) * 4 and not (disconnect or eject)
    if nothing:
        raise click.UsageError("nothing to change was named")
    if connect is not None and disconnect:
        raise click.UsageError("--connect and --disconnect exclude each other")
    with errors_as_json(as_json), desk_of("vm set", lab_name) as desk:
        from refimpl.app.vm_settings import Change, change

        compatible = None if processor_compatibility is None else processor_compatibility == "on"
        wanted = Change(memory, vcpus, compatible, connect, disconnect, adapter, eject)
        place = change(desk, name, wanted)
    return tell_done(name, place.host.name, place.facts.state, as_json, "settings changed")
