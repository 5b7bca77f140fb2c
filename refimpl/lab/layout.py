"""Where the things of a lab are and what they are called: paths, names and addresses, computed and nothing else.

Everything that can be seen from outside the lab carries the lab's id: names of network namespaces as a whole word,
network links as their alias, processes in their environment, files by standing below the lab's own directory.
The addresses are the same in every lab, as no lab shares a network with anything.
"""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path

LAB_VARIABLE = "REFIMPL_LAB"
DAEMON_VARIABLE = "REFIMPL_DAEMON"
ROOT_VARIABLE = "REFIMPL_LAB_ROOT"
CACHE_VARIABLE = "REFIMPL_CACHE"
DEFAULT_ROOT = Path("/var/lib/refimpl/labs")
DEFAULT_CACHE = Path("/var/cache/refimpl")

MAX_HOSTS = 32
SWITCH = "sw"
CONDUCTOR = "mgmt"
MANAGEMENT_LINK = "mgmt0"
MIGRATION_LINK = "mig0"
VM_LINK = "vm0"
VIRTUAL_SWITCH = "vmswitch"
MIGRATION_NETWORK = "migration"
MANAGEMENT_SUBNET = "10.90.0"
MIGRATION_SUBNET = "10.90.1"
VM_SUBNET = "10.90.2"
PREFIX_LENGTH = 24

_CONDUCTOR_NUMBER = 1
_FIRST_HOST_NUMBER = 11
_UUID_SPACE = uuid.UUID("6b1f3c52-6a0c-5d0b-9d0e-6e3c1d8f6a11")
_LAB_ID = re.compile(r"[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class HostPlan:
    """One host as it will be made: name, number from 1, UUID, and its addresses."""

    name: str
    number: int
    uuid: str
    management_address: str
    migration_address: str


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
        """The group store."""
        return self.directory / "store.sqlite"

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


def plan_hosts(lab_id: str, count: int) -> tuple[HostPlan, ...]:
    """Return the hosts h1, h2, ... of a lab; ValueError when `count` is not between 1 and `MAX_HOSTS`."""
    if not 1 <= count <= MAX_HOSTS:
        raise ValueError(f"a lab has 1 to {MAX_HOSTS} hosts, not {count}")
    return tuple(_plan_host(lab_id, number) for number in range(1, count + 1))


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


def _plan_host(lab_id: str, number: int) -> HostPlan:
    name, last = f"h{number}", _FIRST_HOST_NUMBER + number - 1
    return HostPlan(
        name=name,
        number=number,
        uuid=str(uuid.uuid5(_UUID_SPACE, f"{lab_id}/{name}")),
        management_address=f"{MANAGEMENT_SUBNET}.{last}",
        migration_address=f"{MIGRATION_SUBNET}.{last}",
    )
