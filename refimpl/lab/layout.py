"""Where the things of a lab are and what they are called: paths, names and addresses, computed and nothing else.

Everything that can be seen from outside the lab carries the lab's id: names of network namespaces as a whole word,
network links as their alias, processes in their environment, files by standing below the lab's own directory.
The addresses are the same in every lab, as no lab shares a network with anything.
"""

from __future__ import annotations

import ipaddress
import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from refimpl.model.group import HostEntry

LAB_VARIABLE = "REFIMPL_LAB"
DAEMON_VARIABLE = "REFIMPL_DAEMON"
ROOT_VARIABLE = "REFIMPL_LAB_ROOT"
CACHE_VARIABLE = "REFIMPL_CACHE"
DEFAULT_ROOT = Path("/var/lib/refimpl/labs")
DEFAULT_CACHE = Path("/var/cache/refimpl")

MAX_HOSTS = 32
SWITCH = "sw"
CONDUCTOR = "mgmt"
MAX_NETWORKS = 8
MANAGEMENT_LINK = "mgmt0"
VM_LINK = "vm0"
VIRTUAL_SWITCH = "vmswitch"
MANAGEMENT_SUBNET = "10.90.0"
VM_SUBNET = "10.90.2"
PREFIX_LENGTH = 24

_CONDUCTOR_NUMBER = 1
_FIRST_HOST_NUMBER = 11
_UUID_SPACE = uuid.UUID("6b1f3c52-6a0c-5d0b-9d0e-6e3c1d8f6a11")
_LAB_ID = re.compile(r"[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """One migration network: its subnet (IPv4 or IPv6), its priority (the lower number first), and its speed.

    `rate_mbit_s` is what each host's link in it carries in each direction, in Mbit/s; 0: whatever the machine can do.
    """

    name: str
    subnet: str
    priority: int
    rate_mbit_s: int = 0

    @property
    def prefix_length(self) -> int:
        """The length of the subnet's prefix in bits."""
        return ipaddress.ip_network(self.subnet).prefixlen


DEFAULT_NETWORKS = (
    NetworkPlan("migration", "10.90.1.0/24", 1),
    NetworkPlan("migration2", "fd00:90:3::/64", 2),
)
"""The migration networks of a lab that asks for none: one of each family, so that both are always proved."""

IPV4_NETWORKS = (DEFAULT_NETWORKS[0], NetworkPlan("migration2", "10.90.3.0/24", 2))
"""The same on a machine whose kernel has no IPv6."""


@dataclass(frozen=True, slots=True)
class HostPlan:
    """One host as it will be made: name, number from 1, UUID, and its addresses, one in each migration network."""

    name: str
    number: int
    uuid: str
    management_address: str
    migration_addresses: tuple[str, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """All its addresses, which its certificate names."""
        return (self.management_address, *self.migration_addresses)


@dataclass(frozen=True, slots=True)
class HostPaths:
    """The directories and files of one host, below the lab's directory."""

    directory: Path

    @property
    def etc(self) -> Path:
        """What stands above the machine's /etc on this host."""
        return self.directory / "etc"

    @property
    def libvirt_config(self) -> Path:
        """The host's /etc/libvirt."""
        return self.etc / "libvirt"

    @property
    def pki(self) -> Path:
        """The host's /etc/pki."""
        return self.etc / "pki"

    @property
    def lib(self) -> Path:
        """The host's /var/lib/libvirt."""
        return self.directory / "lib"

    @property
    def log(self) -> Path:
        """The host's /var/log/libvirt."""
        return self.directory / "log"

    @property
    def cache(self) -> Path:
        """The host's /var/cache/libvirt."""
        return self.directory / "cache"

    @property
    def local(self) -> Path:
        """The host's own storage; the host sees it where every host of the lab has its own."""
        return self.directory / "local"

    @property
    def start_script(self) -> Path:
        """The script that mounts the host's file systems and then becomes its init."""
        return self.directory / "start.sh"


@dataclass(frozen=True, slots=True)
class LabPaths:
    """The directories and files of one lab."""

    root: Path
    id: str

    @property
    def directory(self) -> Path:
        """The lab's own directory: everything below it is the lab's."""
        return self.root / self.id

    @property
    def registry(self) -> Path:
        """The list of what the lab made outside, written before it was made."""
        return self.directory / "registry.jsonl"

    @property
    def lock(self) -> Path:
        """Locked by whoever builds or removes the lab."""
        return self.directory / "lock"

    @property
    def group(self) -> Path:
        """The group's description, for everybody who uses the lab."""
        return self.directory / "group.json"

    @property
    def store(self) -> Path:
        """The group store, in a directory of its own, which can be full or read-only by itself."""
        return self.directory / "store" / "store.sqlite"

    @property
    def shared(self) -> Path:
        """The directory that all hosts see under the same path."""
        return self.directory / "shared"

    @property
    def leases(self) -> Path:
        """The lease space."""
        return self.shared / "leases"

    @property
    def disks(self) -> Path:
        """Disk images that all hosts see."""
        return self.shared / "disks"

    @property
    def local(self) -> Path:
        """Where each host sees its own storage; outside of the hosts it is empty."""
        return self.directory / "local"

    @property
    def authority(self) -> Path:
        """The certificate authority's certificate and key."""
        return self.directory / "pki" / "authority"

    @property
    def conductor_pki(self) -> Path:
        """The conductor's client certificate, laid out as libvirt's `pkipath` wants it."""
        return self.directory / "pki" / "conductor"

    @property
    def hosts(self) -> Path:
        """The directory that holds one directory per host."""
        return self.directory / "hosts"

    def host(self, name: str) -> HostPaths:
        """Return the paths of one host."""
        return HostPaths(self.hosts / name)


def state_root() -> Path:
    """Return the directory below which labs live: from the environment, else the default."""
    return Path(os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT)


def cache_root() -> Path:
    """Return the directory for what labs share and any lab can make anew: from the environment, else the default."""
    return Path(os.environ.get(CACHE_VARIABLE) or DEFAULT_CACHE)


def is_lab_id(text: str) -> bool:
    """Tell whether a text has the form of a lab id: six hexadecimal digits."""
    return _LAB_ID.fullmatch(text) is not None


def host_names(count: int) -> tuple[str, ...]:
    """Return the names h1, h2, ...; ValueError when `count` is not between 1 and `MAX_HOSTS`."""
    if not 1 <= count <= MAX_HOSTS:
        raise ValueError(f"a lab has 1 to {MAX_HOSTS} hosts, not {count}")
    return tuple(f"h{number}" for number in range(1, count + 1))


def plan_hosts(
    lab_id: str, names: Sequence[str], networks: Sequence[NetworkPlan] = DEFAULT_NETWORKS
) -> tuple[HostPlan, ...]:
    """Return the hosts of a lab, in the order of their names."""
    return tuple(_plan_host(lab_id, number, name, networks) for number, name in enumerate(names, 1))


def plan_of(number: int, host: HostEntry) -> HostPlan:
    """Return the plan by which a host of a lab was made, from what the group says of it; its number is from 1."""
    addresses = tuple(network.address for network in host.migration_networks)
    return HostPlan(host.name, number, host.uuid, host.management_address, addresses)


def migration_key(index: int) -> str:
    """Return what the migration network of that place (from 0) is called in names of links: `mig`, `mig2`, ..."""
    return f"mig{index + 1}" if index else "mig"


def migration_link(index: int) -> str:
    """Return the name of a host's link in the migration network of that place (from 0)."""
    return f"mig{index}"


def host_address(subnet: str, number: int) -> str:
    """Return the address of the host of that number (from 1) in a subnet: it ends in 11, 12, ... in both families.

    ValueError when the subnet is none or has no room for it.
    """
    network = ipaddress.ip_network(subnet)
    last = _FIRST_HOST_NUMBER + number - 1
    offset = int(str(last), 16 if network.version == 6 else 10)
    if offset >= network.num_addresses - 1:
        raise ValueError(f"{subnet} has no room for host number {number}")
    return str(network[offset])


def netns_name(lab_id: str, part: str) -> str:
    """Return the name of one of the lab's network namespaces."""
    return f"refimpl-{lab_id}-{part}"


def link_alias(lab_id: str) -> str:
    """Return the alias that every network link of the lab carries."""
    return f"refimpl:{lab_id}"


def switch_bridge(lab_id: str, network: str) -> str:
    """Return the name of a bridge in the switch namespace."""
    return f"{lab_id}-{network}"


def switch_port(lab_id: str, owner: str, network: str) -> str:
    """Return the name of the switch's end of a cable; `owner` is a host's number or `c` for the conductor."""
    return f"{lab_id}{owner}{network}"


def conductor_address() -> str:
    """Return the conductor's address in the management network."""
    return f"{MANAGEMENT_SUBNET}.{_CONDUCTOR_NUMBER}"


def observer_address() -> str:
    """Return the address in the VM network at which an observer in the management namespace listens."""
    return f"{VM_SUBNET}.{_CONDUCTOR_NUMBER}"


def control_uri(host: HostPlan, client_pki: Path) -> str:
    """Return the URI that the conductor opens: mutual TLS with the certificate below `client_pki`."""
    return f"qemu+tls://{host.management_address}/system?pkipath={client_pki}"


def peer_uri(host: HostPlan) -> str:
    """Return the URI that other hosts' daemons open, with their own certificate."""
    return f"qemu+tls://{host.management_address}/system"


def _plan_host(lab_id: str, number: int, name: str, networks: Sequence[NetworkPlan]) -> HostPlan:
    return HostPlan(
        name=name,
        number=number,
        uuid=str(uuid.uuid5(_UUID_SPACE, f"{lab_id}/{name}")),
        management_address=f"{MANAGEMENT_SUBNET}.{_FIRST_HOST_NUMBER + number - 1}",
        migration_addresses=tuple(host_address(network.subnet, number) for network in networks),
    )
