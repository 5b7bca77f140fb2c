"""What a backend saw of the hosts: the facts that checks judge and the evidence that reconciliation judges.

Facts are numbers and names, never verdicts. `None` always means *could not be seen*, never *no*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from refimpl.model.errors import Native
from refimpl.model.request import Plan


class VmState(StrEnum):
    """State of one copy of a VM on one host. PLANNED: made for an incoming migration, has not arrived."""

    ABSENT = "absent"
    PLANNED = "planned"
    RUNNING = "running"
    PAUSED = "paused"
    OFF = "off"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class DiskFact:
    """A disk as one host sees it. `identity` is equal on two hosts if and only if they see the same file."""

    path: str
    identity: str | None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class CertificateFact:
    """One certificate of a host: what it is for, whom it names, when it is valid (seconds since the epoch).

    `key_private`: its key is readable by its owner only. `trusted`: signed by the group's CA.
    """

    role: str
    names: tuple[str, ...]
    not_before_s: float
    not_after_s: float
    trusted: bool
    key_private: bool


@dataclass(frozen=True, slots=True)
class LeaseFact:
    """The lease of a VM: its file, and whether this host's lock daemon holds it (None: cannot be seen)."""

    path: str
    held: bool | None


@dataclass(frozen=True, slots=True)
class VmFacts:
    """One VM on one host. `operation` and `plan`: of the migration that has stamped it, if any."""

    name: str
    id: str
    state: VmState
    memory_mib: int
    vcpus: int = 1
    disks: tuple[DiskFact, ...] = ()
    lease: LeaseFact | None = None
    operation: str | None = None
    plan: Plan | None = None


@dataclass(frozen=True, slots=True)
class HostFacts:
    """One host. Not reachable: `native` says why and the rest is empty.

    `memory_mib` is what the host declares for VMs, `memory_used_mib` what its running and planned VMs have.
    `disks` are the VM's disks as this host sees them, by path. `names` are all names and addresses that it answers to.
    """

    name: str
    reachable: bool
    native: Native | None = None
    uuid: str = ""
    names: tuple[str, ...] = ()
    memory_mib: int = 0
    memory_used_mib: int = 0
    vms: tuple[VmFacts, ...] = ()
    disks: Mapping[str, DiskFact] = field(default_factory=dict)
    certificates: tuple[CertificateFact, ...] = ()
    lock_daemon_alive: bool | None = None
    migration_addresses: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    def vm(self, name: str) -> VmFacts | None:
        """Return the VM of that name on this host, or None."""
        return next((v for v in self.vms if v.name == name), None)


@dataclass(frozen=True, slots=True)
class Scope:
    """Of what facts are wanted: one VM, and the hosts by name (empty: all of the group)."""

    vm: str | None = None
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of all hosts in the scope. A host that the group does not know is missing. `now_s`: seconds since epoch."""

    hosts: Mapping[str, HostFacts]
    now_s: float


@dataclass(frozen=True, slots=True)
class CopySeen:
    """One side as an inspection over a fresh connection saw it.

    `job_open`: a migration job of the system below exists here, so nothing is decided yet. `bound` (source only):
    this copy cannot run again by itself, because its process is gone or its system has taken the order to end it
    (handover 1.2). `arrived` (destination only): the whole VM is in it, and it was not let run yet.
    `ended_by_guest`: the guest switched itself off. `operation`: id of the migration that stamped it.
    """

    host: str
    reachable: bool
    state: VmState = VmState.UNKNOWN
    reason: str = ""
    job_open: bool = False
    job_phase: str = ""
    bound: bool = False
    arrived: bool = False
    ended_by_guest: bool = False
    operation: str | None = None
    lease_held: bool | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What both hosts show; the input of reconciliation (libvirt-qemu 3.3)."""

    source: CopySeen
    destination: CopySeen
