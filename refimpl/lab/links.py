"""Links between a host and the lab's networks, which can be cut, slowed down and put right again while a lab is up.

A link is a cable from a port of the lab's switch to a device of the host. Cut, its port is down: nothing arrives and
nobody is told, as when a switch loses power. Slowed down, a token bucket at either end keeps both directions to a rate.
Cut in one direction, the switch drops what comes by that port, or what would leave by it, and the other passes.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from refimpl.hosts.namespace import enter_network
from refimpl.lab import layout
from refimpl.lab.layout import HostPlan
from refimpl.lab.network import MANAGEMENT, VM
from refimpl.lab.tools import run_tool

MANAGEMENT_NETWORK, VM_NETWORK = "management", "vm"
MAX_RATE_MBIT_S = 100_000

_LEAST_BURST_BYTES = 128 << 10  # more than the largest packet that a network card of the kernel takes at once
_BURST_PER_S = 100  # and as much as may pass between two ticks of the slowest kernel clock
_QUEUE_MS = 50
_BITS_PER_MBIT = 1_000_000


class Direction(StrEnum):
    """One direction of a link, as its host sees it."""

    TO = "to"
    FROM = "from"


@dataclass(frozen=True, slots=True)
class LinkState:
    """How a link is: up or cut, and the rate in Mbit/s to which both its directions are kept (0: no limit)."""

    up: bool = True
    rate_mbit_s: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """A host's link to a network; `speed_mbit_s` is what the lab gave it (0: no limit). LabError when `ip` fails."""

    lab_id: str
    host: str
    network: str
    address: str
    port: str
    device: str
    speed_mbit_s: int = 0

    def state(self) -> LinkState:
        """Look at the link now."""
        shown = self._run(self._switch, "ip", "-j", "link", "show", "dev", self.port)
        return LinkState("UP" in json.loads(shown)[0]["flags"], self._rate())

    def cut(self) -> None:
        """Let nothing through any more, in neither direction, silently."""
        self._run(self._switch, "ip", "link", "set", "dev", self.port, "down")

    def cut_for(self, seconds: float) -> None:
        """Cut it for so long, then bring it back to how it was; blocks meanwhile."""
        with self.restored():
            self.cut()
            threading.Event().wait(seconds)

    def mend(self) -> None:
        """Let everything through again, at the speed that the lab gave the link."""
        self.restore(LinkState(rate_mbit_s=self.speed_mbit_s))

    def shape(self, rate_mbit_s: int) -> None:
        """Keep each direction to a rate in Mbit/s; 0: to none. ValueError when it is no such rate."""
        if not 0 <= rate_mbit_s <= MAX_RATE_MBIT_S:
            raise ValueError(f"a link has a rate of 0 to {MAX_RATE_MBIT_S} Mbit/s, not {rate_mbit_s}")
        for netns, device in ((self._switch, self.port), (self._own, self.device)):
            if rate_mbit_s:
                self._run(netns, "tc", "qdisc", "replace", "dev", device, "root", *_bucket(rate_mbit_s))
            elif _rate_of(self._qdiscs(netns, device)):
                self._run(netns, "tc", "qdisc", "delete", "dev", device, "root")

    def cut_one_way(self, direction: Direction) -> None:
        """Let nothing through any more to the host, or from it, silently; the other direction passes."""
        side = "oifname" if direction is Direction.TO else "iifname"
        self._nft(
            f"add table bridge {self._table}",
            f"flush table bridge {self._table}",
            f"add chain bridge {self._table} cut {{ type filter hook forward priority 0; policy accept; }}",
            f'add rule bridge {self._table} cut {side} "{self.port}" counter drop',
        )

    def mend_one_way(self) -> None:
        """Let both directions through again, as far as `cut_one_way` had one cut."""
        if self.lost_packets() is not None:
            self._nft(f"delete table bridge {self._table}")

    def lost_packets(self) -> int | None:
        """Return how many packets a cut in one direction has kept from passing, None when there is no such cut."""
        shown = json.loads(self._run(self._switch, "nft", "-j", "list", "ruleset"))["nftables"]
        rules = [item["rule"] for item in shown if item.get("rule", {}).get("table") == self._table]
        counters = [part["counter"]["packets"] for rule in rules for part in rule["expr"] if "counter" in part]
        return int(counters[0]) if counters else None

    def restore(self, state: LinkState) -> None:
        """Bring the link into a state."""
        self.shape(state.rate_mbit_s)
        self._run(self._switch, "ip", "link", "set", "dev", self.port, "up" if state.up else "down")

    @contextmanager
    def restored(self) -> Iterator[Link]:
        """At the end of the block, however it comes, the link is again as it was at its beginning."""
        before = self.state()
        try:
            yield self
        finally:
            self.restore(before)

    @property
    def _switch(self) -> str:
        return layout.netns_name(self.lab_id, layout.SWITCH)

    @property
    def _own(self) -> str:
        return layout.netns_name(self.lab_id, self.host)

    @property
    def _table(self) -> str:
        return f"refimpl_{self.lab_id}_{self.port}"

    def _nft(self, *lines: str) -> None:
        text = "".join(f"{line}\n" for line in lines)
        run_tool(*enter_network(self._switch), "nft", "-f", "-", lab_id=self.lab_id, stdin=text)

    def _rate(self) -> int:
        return _rate_of(self._qdiscs(self._switch, self.port))

    def _qdiscs(self, netns: str, device: str) -> list[dict[str, Any]]:
        shown: list[dict[str, Any]] = json.loads(self._run(netns, "tc", "-j", "qdisc", "show", "dev", device) or "[]")
        return shown

    def _run(self, netns: str, *command: str) -> str:
        return run_tool(*enter_network(netns), *command, lab_id=self.lab_id)


def links_of(
    lab_id: str, hosts: Sequence[HostPlan], migration: Sequence[str], speeds: Mapping[str, int]
) -> tuple[Link, ...]:
    """Return all links of these hosts; `migration` names the migration networks.

    `speeds` says what the lab gave them, by network, in Mbit/s.
    """
    return tuple(link for host in hosts for link in _links_of(lab_id, host, migration, speeds))


def _links_of(lab_id: str, host: HostPlan, migration: Sequence[str], speeds: Mapping[str, int]) -> Iterator[Link]:
    found = [(MANAGEMENT_NETWORK, MANAGEMENT, layout.MANAGEMENT_LINK, host.management_address)]
    for index, (name, address) in enumerate(zip(migration, host.migration_addresses, strict=True)):
        found.append((name, layout.migration_key(index), layout.migration_link(index), address))
    found.append((VM_NETWORK, VM, layout.VM_LINK, ""))
    for name, key, device, address in found:
        port = layout.switch_port(lab_id, str(host.number), key)
        yield Link(lab_id, host.name, name, address, port, device, speeds.get(name, 0))


def _bucket(rate_mbit_s: int) -> list[str]:
    burst = max(_LEAST_BURST_BYTES, rate_mbit_s * _BITS_PER_MBIT // 8 // _BURST_PER_S)
    return ["tbf", "rate", f"{rate_mbit_s}mbit", "burst", str(burst), "latency", f"{_QUEUE_MS}ms"]


def _rate_of(qdiscs: list[dict[str, Any]]) -> int:
    """Return the rate in Mbit/s; tc says it in bytes per second."""
    rates = [q["options"]["rate"] for q in qdiscs if q.get("kind") == "tbf" and q.get("root")]
    return round(rates[0] * 8 / _BITS_PER_MBIT) if rates else 0
