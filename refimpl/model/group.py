"""A group of hosts between which virtual machines move, as the engine and the backends are told of it.

A group comes from a lab (`refimpl lab up` writes it) or, later, from a file that describes existing hosts.
It holds addresses and paths, never connections; whoever needs a connection opens one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """A process that cannot be mistaken for another: pid, start time in clock ticks after boot, boot id."""

    pid: int
    start_ticks: int
    boot_id: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ProcessRef:
        """Build a reference from what `to_json` gave; other keys are an error (TypeError)."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """How commands and files of a host are reached: kind `namespace`, by the init process that holds its namespaces."""

    kind: str
    init: ProcessRef


@dataclass(frozen=True, slots=True)
class MigrationNetwork:
    """One network that may carry migration traffic: the host's own address in it, lower priority number first."""

    name: str
    address: str
    priority: int = 0


@dataclass(frozen=True, slots=True)
class HostEntry:
    """One host: identity, how its libvirt is reached, its migration networks, its declared memory in MiB.

    `control_uri` is what the conductor opens; `peer_uri` is what the other hosts' daemons open for peer-to-peer.
    `storage_directories`: where it takes disks of VMs, as it sees them, the first one where nothing else is said
    (empty: anywhere); `local_directory`: the first of them as the controller sees it, empty when it does not.
    """

    name: str
    uuid: str
    control_uri: str
    peer_uri: str
    management_address: str
    migration_networks: tuple[MigrationNetwork, ...]
    memory_mib: int
    channel: ChannelSpec
    virtual_switch: str = ""
    log_directory: str = ""
    storage_directories: tuple[str, ...] = ()
    local_directory: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Hosts that share storage, a lease space and a group store.

    `management_netns` is the network namespace in which a conductor has to run (None: the caller's own).
    `shared_directory` and `lease_directory` are absolute paths, the same on every host and for the conductor.
    """

    id: str
    name: str
    hosts: tuple[HostEntry, ...]
    store_path: str
    shared_directory: str
    lease_directory: str
    management_netns: str | None = None
    backend: str = "libvirt"
    schema: int = SCHEMA_VERSION
    labels: Mapping[str, str] = field(default_factory=dict)

    def host(self, name: str) -> HostEntry | None:
        """Return the host of that name, or None."""
        return next((h for h in self.hosts if h.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that `Group.from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Group:
        """Build a group from what `to_json` gave; unknown keys are an error (TypeError)."""
        values = dict(data)
        # Of a group written before it was left out: each host's control URI names the certificate.
        values.pop("client_pki", None)
        values["hosts"] = tuple(_host(h) for h in values["hosts"])
        return cls(**values)


def _host(data: Mapping[str, Any]) -> HostEntry:
    values = dict(data)
    channel = values["channel"]
    values["channel"] = ChannelSpec(**{**channel, "init": ProcessRef.from_json(channel["init"])})
    values["storage_directories"] = tuple(values.get("storage_directories", ()))
    values["migration_networks"] = tuple(MigrationNetwork(**n) for n in values["migration_networks"])
    return HostEntry(**values)
