"""The VM's ports on the destination's virtual switches: proved before the move, shut until it runs there (R16).

Hyper-V makes a validation port first and connects the operational one only after the source's is gone (semantics 1.5).
Here the first is a tap that joins the bridge and goes again. The second is libvirt's own tap, which is connected before
the memory comes. QEMU 10.0 sends nothing while its VM does not run, but that is its habit and no promise; so an
nftables table, named by the operation, drops every frame from a tap of the host with one of the VM's addresses until
the VM is let run. What comes over the switch's uplink from the source's copy passes.
"""

from __future__ import annotations

from collections.abc import Sequence

from refimpl.backends.libvirt.domain import parse
from refimpl.hosts.channel import Completed, HostChannel

TIMEOUT_S = 5.0
_TABLE = "refimpl_{operation}"
_LINK = "rp{operation:.12}"
_ABSENT = "No such file or directory"


def switches(xml: str) -> tuple[str, ...]:
    """Return the bridges that the VM's cards are connected to, from its definition."""
    bridges = (source.get("bridge", "") for source in parse(xml).iterfind("devices/interface/source[@bridge]"))
    return tuple(dict.fromkeys(bridge for bridge in bridges if bridge))


def addresses(xml: str) -> tuple[str, ...]:
    """Return the MAC addresses of the VM's cards, from its definition."""
    cards = parse(xml).iterfind("devices/interface/mac[@address]")
    return tuple(card.get("address", "").lower() for card in cards)


def prove(channel: HostChannel, operation: str, bridges: tuple[str, ...]) -> None:
    """Make a port on each bridge and take it away again. OSError with the host's words when it cannot be had."""
    link = _LINK.format(operation=operation)
    for bridge in bridges:
        lines = (f"tuntap add dev {link} mode tap", f"link set dev {link} master {bridge}", f"link delete dev {link}")
        # By force, so that the last line is carried out whatever became of the one before.
        _run(channel, ["ip", "-force", "-batch", "-"], lines, f"no port on the virtual switch {bridge!r}")


def shut(channel: HostChannel, operation: str, macs: tuple[str, ...]) -> None:
    """Let no frame of the VM out of a tap of the host, until `open_again`. OSError when it cannot be done."""
    if not macs:
        return
    _forget_others(channel, operation, macs)
    table = _TABLE.format(operation=operation)
    rule = f'meta iifkind "tun" ether saddr {{ {", ".join(macs)} }} drop'
    lines = (
        *_without(table),
        f"add table bridge {table}",
        f"add chain bridge {table} ports {{ type filter hook prerouting priority -300; policy accept; }}",
        f"add rule bridge {table} ports {rule}",
    )
    _run(channel, ["nft", "-f", "-"], lines, "the port cannot be shut")


def open_again(channel: HostChannel, operation: str) -> None:
    """Let the VM's frames out; done already is no error. OSError when it cannot be done.

    The table is left empty until the clean-up: taking it away too would take the kernel half as long again.
    """
    done = channel.run(["nft", f"flush table bridge {_TABLE.format(operation=operation)}"], timeout_s=TIMEOUT_S)
    if done.status != 0 and _ABSENT not in done.stderr:
        raise OSError(f"the port cannot be opened: {_said(done)}")


def clear(channel: HostChannel, operation: str) -> None:
    """Remove all that carries the operation's id. OSError when it cannot be done."""
    channel.run(["ip", "link", "delete", "dev", _LINK.format(operation=operation)], timeout_s=TIMEOUT_S)
    _run(channel, ["nft", "-f", "-"], _without(_TABLE.format(operation=operation)), "the table cannot be removed")


def _forget_others(channel: HostChannel, operation: str, macs: Sequence[str]) -> None:
    """Remove what an earlier move of the VM left here: nobody moves it but the operation that has claimed it."""
    mine = _TABLE.format(operation=operation)
    tables = channel.run(["nft", "list", "tables", "bridge"], timeout_s=TIMEOUT_S).stdout.split()
    for table in (word for word in tables if word.startswith(_TABLE.format(operation="")) and word != mine):
        rules = channel.run(["nft", "list", "table", "bridge", table], timeout_s=TIMEOUT_S).stdout
        if any(mac in rules for mac in macs):
            _run(channel, ["nft", "-f", "-"], _without(table), "what an earlier move left cannot be removed")


def _without(table: str) -> tuple[str, str]:
    # nft removes a table only if it is there, and makes one only if it is not: so in one step it is gone.
    return (f"add table bridge {table}", f"delete table bridge {table}")


def _run(channel: HostChannel, command: Sequence[str], lines: Sequence[str], otherwise: str) -> None:
    done = channel.run(command, timeout_s=TIMEOUT_S, stdin="".join(f"{line}\n" for line in lines))
    if done.status != 0:
        raise OSError(f"{otherwise}: {_said(done)}")


def _said(done: Completed) -> str:
    return done.stderr.strip().partition("\n")[0] or f"it ended with status {done.status}"
