"""What a lab is asked to be, before anything of it exists: its hosts, its networks, and when a peer counts as dead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from refimpl.lab.config import KeepAlive
from refimpl.lab.layout import DEFAULT_NETWORKS, IPV4_NETWORKS, NetworkPlan, host_names

DEFAULT_MEMORY_MIB = 2048
NO_IPV6 = "this kernel has no IPv6, so both migration networks are IPv4 (refimpl doctor)"


@dataclass(frozen=True, slots=True)
class HostWish:
    """One host: its name, what it declares in MiB, and its settings under Hyper-V's names."""

    name: str
    memory_mib: int = DEFAULT_MEMORY_MIB
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wish:
    """A lab as it shall be made. Without networks it gets those that every lab has, see `with_networks`.

    `management_rate_mbit_s` is the speed of the hosts' links for control; 0: no limit. `remark`: what its user should
    know that is otherwise than in every lab.
    """

    name: str
    hosts: tuple[HostWish, ...] = (HostWish("h1"), HostWish("h2"))
    networks: tuple[NetworkPlan, ...] = ()
    keepalive: KeepAlive = field(default_factory=KeepAlive)
    management_rate_mbit_s: int = 0
    remark: str = ""

    @property
    def host_names(self) -> tuple[str, ...]:
        """The names of its hosts, in their order."""
        return tuple(host.name for host in self.hosts)

    @property
    def needs_ipv6(self) -> bool:
        """Whether an IPv6 network was asked for."""
        return any(":" in network.subnet for network in self.networks)

    def with_networks(self, *, ipv6: bool) -> Wish:
        """Return the same with the networks that it will have: one of each family, or both IPv4 without `ipv6`."""
        if self.networks or ipv6:
            return replace(self, networks=self.networks or DEFAULT_NETWORKS)
        return replace(self, networks=IPV4_NETWORKS, remark=NO_IPV6)


def plain_wish(name: str, hosts: int, memory_mib: int, keepalive: KeepAlive | None = None) -> Wish:
    """Return the wish for hosts h1, h2, ... that are all alike; ValueError for a number that no lab can have."""
    made = tuple(HostWish(host, memory_mib) for host in host_names(hosts))
    return Wish(name, made, keepalive=keepalive or KeepAlive())
