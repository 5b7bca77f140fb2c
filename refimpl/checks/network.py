"""Which networks may carry the move, in which order (R13); whether one connects is proved in SETUP.

The destination says which of its addresses may be used: those in its migration networks by priority, and with
UseAnyNetworkForMigration all others after them. The source has to have a route to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem
from refimpl.model.facts import HostFacts, VmState
from refimpl.model.settings import HostSettings


def check(s: Subject) -> Iterator[Problem]:
    """Yield a destination whose settings leave no network, or none that the source has a route to."""
    host = s.destination
    off = s.vm is not None and s.vm.state is VmState.OFF
    if s.facts.store_problem is not None or host is None or not host.reachable or off:
        return
    allowed = listeners(host, s.settings(host.name))
    if not allowed:
        subnets = ", ".join(n.subnet for n in s.settings(host.name).networks) or "none"
        has = ", ".join(a.address for a in host.addresses) or "none"
        yield s.problem("network.none", host.name, networks=subnets, addresses=has)
    elif s.source is not None and s.source.reachable and s.source is not host and not usable(s):
        routes = ", ".join(s.source.routes) or "none"
        addresses = ", ".join(allowed)
        yield s.problem("network.no_route", host.name, source=s.source.name, addresses=addresses, routes=routes)


def told(s: Subject) -> str | None:
    """Say which addresses would be tried; None when not both hosts, or not their settings, were seen."""
    if s.pair is None or s.facts.store_problem is not None:
        return None
    return "the VM is off and needs none" if s.live_pair is None else f"in this order: {', '.join(usable(s))}"


def usable(s: Subject) -> tuple[str, ...]:
    """Return the destination's addresses that may be used and that the source has a route to, best first."""
    assert s.destination is not None
    assert s.source is not None
    routes = [ip_network(route, strict=False) for route in s.source.routes]
    allowed = listeners(s.destination, s.settings(s.destination.name))
    return tuple(address for address in allowed if any(_within(address, route) for route in routes))


def listeners(host: HostFacts, settings: HostSettings) -> tuple[str, ...]:
    """Return the addresses at which a host takes migrations, best first: MigrationServiceListenerIPAddressList."""
    by_priority = sorted(settings.networks, key=lambda network: network.priority)
    subnets = [ip_network(network.subnet, strict=False) for network in by_priority]
    known = [a.address for a in host.addresses]
    listed = [address for subnet in subnets for address in known if _within(address, subnet)]
    others = known if settings.use_any_network else []
    return tuple(dict.fromkeys((*listed, *others)))


def _within(address: str, network: object) -> bool:
    return ip_address(address) in network  # type: ignore[operator]
