"""The lab's networks: namespaces and cables, laid so that every network is a bridge in the lab's switch namespace.

    management   conductor and all hosts: control connections
    migration    hosts only: guest memory; as many of them as the lab has, each IPv4 or IPv6
    VM network   each host's own learning switch `vmswitch`, cabled to the lab's switch, and an address for observers

No link is ever made outside the lab's own namespaces, and every link carries the lab's id as its alias.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from refimpl.hosts.netns import NETNS_DIRECTORY
from refimpl.hosts.stops import stop_point
from refimpl.lab import layout
from refimpl.lab.layout import HostPlan, NetworkPlan
from refimpl.lab.registry import Identity, Item, Kind, Registry
from refimpl.lab.tools import run_tool

MANAGEMENT, VM = "mgmt", "vm"


@dataclass(frozen=True, slots=True)
class Cable:
    """One cable from a port of the switch to a link in another namespace, which has an address or joins `bridge`.

    `address` is with its prefix length.
    """

    port: str
    network: str
    netns: str
    link: str
    address: str = ""
    bridge: str = ""


class Network:
    """Makes the namespaces and links of one lab, each announced in the registry before it is made."""

    def __init__(
        self, lab_id: str, hosts: Sequence[HostPlan], migration: Sequence[NetworkPlan], registry: Registry
    ) -> None:
        """Describe the networks for these hosts; nothing is made yet."""
        self._id = lab_id
        self._hosts = hosts
        self._migration = migration
        self._registry = registry
        self._switch = layout.netns_name(lab_id, layout.SWITCH)

    def make(self) -> None:
        """Make everything. LabError when a command fails."""
        self._make_namespaces()
        self._make_links()
        self._configure()

    def namespaces(self) -> list[str]:
        """Return the names of the lab's network namespaces, the switch's first."""
        parts = [layout.SWITCH, layout.CONDUCTOR, *(h.name for h in self._hosts)]
        return [layout.netns_name(self._id, p) for p in parts]

    def cables(self) -> list[Cable]:
        """Return all cables of the lab."""
        conductor = layout.netns_name(self._id, layout.CONDUCTOR)
        own = _with_prefix(layout.conductor_address())
        observer = _with_prefix(layout.observer_address())
        found = [
            self._cable("c", MANAGEMENT, conductor, layout.MANAGEMENT_LINK, own),
            self._cable("c", VM, conductor, layout.VM_LINK, observer),
        ]
        return [*found, *(cable for host in self._hosts for cable in self._host_cables(host))]

    def _host_cables(self, host: HostPlan) -> Iterator[Cable]:
        netns, number = layout.netns_name(self._id, host.name), str(host.number)
        yield self._cable(number, MANAGEMENT, netns, layout.MANAGEMENT_LINK, _with_prefix(host.management_address))
        for index, (network, address) in enumerate(zip(self._migration, host.migration_addresses, strict=True)):
            key, link = layout.migration_key(index), layout.migration_link(index)
            yield self._cable(number, key, netns, link, f"{address}/{network.prefix_length}")
        yield self._cable(number, VM, netns, layout.VM_LINK, bridge=layout.VIRTUAL_SWITCH)

    def _make_namespaces(self) -> None:
        items = [Item(Kind.NETNS, name) for name in self.namespaces()]
        self._registry.announce(items)
        stop_point("netns.announced")
        for item in items:
            run_tool("ip", "netns", "add", item.name, lab_id=self._id)
            stop_point("netns.unidentified")
            self._registry.made({item: netns_identity(item.name)})

    def _make_links(self) -> None:
        keys = [MANAGEMENT, *(layout.migration_key(index) for index in range(len(self._migration))), VM]
        bridges = [layout.switch_bridge(self._id, key) for key in keys]
        names = [*bridges, *(c.port for c in self.cables())]
        self._registry.announce(Item(Kind.LINK, name, within=self._switch) for name in names)
        lines = [line for b in bridges for line in self._bridge(b)]
        for cable in self.cables():
            lines.append(f"link add name {cable.port} type veth peer name {cable.link} netns {cable.netns}")
            lines.append(f"link set dev {cable.port} master {layout.switch_bridge(self._id, cable.network)}")
            lines.append(self._up(cable.port))
        self._batch(self._switch, [*lines, "link set dev lo up"])
        stop_point("links.made")

    def _configure(self) -> None:
        for netns in self.namespaces()[1:]:
            mine = [c for c in self.cables() if c.netns == netns]
            self._batch(netns, ["link set dev lo up", *(line for c in mine for line in self._end(c))])

    def _end(self, cable: Cable) -> Iterator[str]:
        if cable.bridge:
            yield from self._bridge(cable.bridge)
            yield f"link set dev {cable.link} master {cable.bridge}"
        else:
            # Nobody else can have the address, so an IPv6 one is not first held back to find that out.
            nodad = " nodad" if ":" in cable.address else ""
            yield f"address add {cable.address} dev {cable.link}{nodad}"
        yield self._up(cable.link)

    def _bridge(self, name: str) -> Iterator[str]:
        yield f"link add name {name} type bridge stp_state 0 forward_delay 0"
        yield self._up(name)

    def _up(self, link: str) -> str:
        return f"link set dev {link} alias {layout.link_alias(self._id)} addrgenmode none up"

    def _cable(self, owner: str, network: str, netns: str, link: str, address: str = "", bridge: str = "") -> Cable:
        port = layout.switch_port(self._id, owner, network)
        return Cable(port, network, netns, link, address, bridge)

    def _batch(self, netns: str, lines: Sequence[str]) -> None:
        run_tool("ip", "-n", netns, "-batch", "-", lab_id=self._id, stdin="\n".join(lines) + "\n")


def _with_prefix(address: str) -> str:
    return f"{address}/{layout.PREFIX_LENGTH}"


def netns_identity(name: str) -> Identity:
    """Return what identifies a named network namespace as long as it lives. OSError when it does not exist."""
    found = os.stat(NETNS_DIRECTORY / name)
    return {"device": found.st_dev, "inode": found.st_ino}
