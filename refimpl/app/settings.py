"""Reading and changing the settings of hosts by Hyper-V's names; whatever is wrong is said, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

from refimpl.engine.store import GroupStore
from refimpl.model.errors import error
from refimpl.model.fencing import NONE, OWN
from refimpl.model.group import Group
from refimpl.model.request import PerformanceOption
from refimpl.model.settings import FENCE, NAMES, Authentication, HostSettings, MigrationSubnet

HIGHEST = 2**32 - 1
"""Hyper-V's numbers are UInt32."""


def _switch(text: str) -> bool:
    known = {"true": True, "false": False}
    if text.lower() not in known:
        raise ValueError("true or false")
    return known[text.lower()]


def _number(lowest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not lowest <= int(text) <= HIGHEST:
            raise ValueError(f"a whole number from {lowest} to {HIGHEST}")
        return int(text)

    return read


def _one_of(kind: type[Authentication] | type[PerformanceOption]) -> Callable[[str], str]:
    def read(text: str) -> str:
        found = next((value for value in kind if value.lower() == text.lower()), None)
        if found is None:
            raise ValueError(" or ".join(kind))
        return found

    return read


def _agent(text: str) -> str:
    if text not in (OWN, NONE) and not text.startswith("/"):
        raise ValueError(f"{OWN}, {NONE} or the path of a fence agent")
    return text


def _words(text: str) -> str:
    if any("=" not in word for word in text.split()):
        raise ValueError("name=value words, separated by blanks")
    return " ".join(text.split())


FENCE_OPTIONS = "FenceOptions"
READERS: Mapping[str, Callable[[str], object]] = {
    "VirtualMachineMigrationEnabled": _switch,
    "MaximumVirtualMachineMigrations": _number(0),
    "MaximumStorageMigrations": _number(0),
    "VirtualMachineMigrationAuthenticationType": _one_of(Authentication),
    "VirtualMachineMigrationPerformanceOption": _one_of(PerformanceOption),
    "UseAnyNetworkForMigration": _switch,
    "PreCopyPassLimit": _number(1),
    "UnexpectedBlackoutMs": _number(1),
    FENCE: _agent,
    FENCE_OPTIONS: _words,
}
"""How a value is read, by Hyper-V's name; a ValueError says which there are. Networks have verbs of their own."""


class SettingsDesk:
    """Carries out what is asked about the settings of one group's hosts."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._store = GroupStore.standing(Path(group.store_path))

    def all(self) -> Mapping[str, HostSettings]:
        """Return the settings of every host of the group, Hyper-V's defaults where none were made."""
        known = self._store.settings()
        return {host.name: known.get(host.name, HostSettings()) for host in self._group.hosts}

    def get(self, host: str) -> HostSettings:
        """Return the settings of a host; `host.unknown`."""
        return self.all()[self._known(host)]

    def set(self, host: str, wanted: Mapping[str, str]) -> HostSettings:
        """Change settings by Hyper-V's names (upper or lower case); `setting.unknown`, `setting.invalid`."""
        read = dict(_read(name, text) for name, text in wanted.items())
        return self._store.change_settings(self._known(host), lambda old: _changed(old, read))

    def add_network(self, host: str, subnet: str, priority: int) -> HostSettings:
        """Let a network carry migrations to a host; `network.listed` when it does already."""
        wanted = _subnet(subnet)

        def add(old: HostSettings) -> HostSettings:
            if any(network.subnet == wanted for network in old.networks):
                raise error("network.listed", host=host, subnet=wanted)
            return replace(old, networks=(*old.networks, MigrationSubnet(wanted, priority)))

        return self._store.change_settings(self._known(host), add)

    def set_network(self, host: str, subnet: str, *, priority: int | None, new_subnet: str | None) -> HostSettings:
        """Change subnet or priority of a network; `network.unlisted` when the host does not list it."""
        wanted, other = _subnet(subnet), None if new_subnet is None else _subnet(new_subnet)

        def change(old: HostSettings) -> HostSettings:
            found = _listed(host, old, wanted)
            if other not in (None, wanted) and any(network.subnet == other for network in old.networks):
                raise error("network.listed", host=host, subnet=other)
            changed = MigrationSubnet(other or found.subnet, found.priority if priority is None else priority)
            return replace(old, networks=tuple(changed if n is found else n for n in old.networks))

        return self._store.change_settings(self._known(host), change)

    def remove_network(self, host: str, subnet: str) -> HostSettings:
        """Let a network carry no migrations to a host any more; `network.unlisted`."""
        wanted = _subnet(subnet)

        def remove(old: HostSettings) -> HostSettings:
            found = _listed(host, old, wanted)
            return replace(old, networks=tuple(n for n in old.networks if n is not found))

        return self._store.change_settings(self._known(host), remove)

    def _known(self, host: str) -> str:
        if self._group.host(host) is None:
            known = ", ".join(h.name for h in self._group.hosts)
            raise error("host.unknown", group=self._group.name, host=host, known=known)
        return host


def _changed(old: HostSettings, wanted: Mapping[str, object]) -> HostSettings:
    """Return settings with what is wanted; a fence that is another one was not tried yet."""
    fields: dict[str, object] = {NAMES[name]: value for name, value in wanted.items() if name not in _FENCE_PARTS}
    parts = {_FENCE_PARTS[name]: str(value) for name, value in wanted.items() if name in _FENCE_PARTS}
    fence = replace(old.fence, **parts)  # type: ignore[arg-type]
    if fence != old.fence:
        fields["fence"] = replace(fence, tried_ns=None)
    return replace(old, **fields)  # type: ignore[arg-type]


_FENCE_PARTS = {FENCE: "agent", FENCE_OPTIONS: "options"}


def _read(name: str, text: str) -> tuple[str, object]:
    known = next((k for k in READERS if k.lower() == name.lower()), None)
    if known is None:
        raise error("setting.unknown", name=name, known=", ".join(READERS))
    try:
        return known, READERS[known](text)
    except ValueError as wrong:
        raise error("setting.invalid", name=known, value=text, allowed=str(wrong)) from None


def _subnet(text: str) -> str:
    """Return a subnet or address as CIDR; a host's address with its prefix stands for its network."""
    try:
        return str(ip_network(text.strip(), strict=False))
    except ValueError as wrong:
        raise error("network.no_subnet", subnet=text, detail=str(wrong)) from None


def _listed(host: str, settings: HostSettings, subnet: str) -> MigrationSubnet:
    found = next((network for network in settings.networks if network.subnet == subnet), None)
    if found is None:
        known = ", ".join(network.subnet for network in settings.networks) or "none"
        raise error("network.unlisted", host=host, subnet=subnet, known=known)
    return found
