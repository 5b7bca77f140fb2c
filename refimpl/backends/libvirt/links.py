"""A host's addresses, routes and virtual switches, from what its own network stack tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from refimpl.model.facts import AddressFact

_SWITCHES = ("bridge", "openvswitch")


def addresses(links: str) -> tuple[AddressFact, ...]:
    """Return the addresses that other hosts could reach, from the answer to `ip -j -d address show`."""
    up = (link for link in _rows(links) if "UP" in link.get("flags", ()))
    found = ((link["ifname"], info) for link in up for info in link.get("addr_info", ()))
    return tuple(AddressFact(i["local"], i["prefixlen"], link) for link, i in found if i.get("scope") == "global")


def switches(links: str) -> frozenset[str]:
    """Return the bridges, from the same answer: a VM's adapter can be connected to each of them by its name."""
    rows = ((link["ifname"], link.get("linkinfo", {}).get("info_kind")) for link in _rows(links))
    return frozenset(name for name, kind in rows if kind in _SWITCHES)


def routes(v4: str, v6: str) -> tuple[str, ...]:
    """Return the networks that the host has a route to, as CIDR, from the answers to `ip -j route show`."""
    found = (
        *(_network(route, "0.0.0.0/0") for route in _rows(v4)),
        *(_network(route, "::/0") for route in _rows(v6)),
    )
    return tuple(dict.fromkeys(found))


def _network(route: dict[str, Any], everything: str) -> str:
    destination: str = route["dst"]
    return everything if destination == "default" else destination


def _rows(text: str) -> Iterator[dict[str, Any]]:
    yield from (row for row in json.loads(text or "[]") if row)
