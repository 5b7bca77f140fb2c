"""A host's addresses and routes, as its own network stack tells them."""

from __future__ import annotations

import json
from typing import Any

from refimpl.hosts.channel import HostChannel
from refimpl.model.facts import AddressFact


def addresses(channel: HostChannel) -> tuple[AddressFact, ...]:
    """Return the addresses that other hosts could reach. OSError when the host's `ip` does not answer."""
    links = _ask(channel, "-j", "address", "show", "up")
    found = ((link["ifname"], info) for link in links for info in link.get("addr_info", ()))
    return tuple(AddressFact(i["local"], i["prefixlen"], link) for link, i in found if i.get("scope") == "global")


def routes(channel: HostChannel) -> tuple[str, ...]:
    """Return the networks that the host has a route to, as CIDR."""
    v4 = (_network(route, "0.0.0.0/0") for route in _ask(channel, "-4", "-j", "route", "show"))
    v6 = (_network(route, "::/0") for route in _ask(channel, "-6", "-j", "route", "show"))
    return tuple(dict.fromkeys((*v4, *v6)))


def _network(route: dict[str, Any], everything: str) -> str:
    destination: str = route["dst"]
    return everything if destination == "default" else destination


def _ask(channel: HostChannel, *arguments: str) -> list[dict[str, Any]]:
    done = channel.run(["ip", *arguments])
    if done.status != 0:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    answer: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return answer
