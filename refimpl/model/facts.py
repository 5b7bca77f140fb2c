"""What a backend saw of the hosts: the facts that checks judge and the evidence that reconciliation judges.

Facts are numbers and names, never verdicts. `None` always means *could not be seen*, never *no*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from refimpl.model.errors import Native, Problem
from refimpl.model.ownership import OwnerRecord
from refimpl.model.request import HandOver, MigrationRequest, Plan
from refimpl.model.request import VmState as VmState
from refimpl.model.settings import HostSettings


@dataclass(frozen=True, slots=True)
class DiskFact:
    """A disk as one host sees it. `identity` is equal on two hosts if and only if they see the same file.

    `device`: `disk`, `cdrom` or `floppy`. `format`: what the VM's definition says it is; `content`: what the file
    itself begins like (`raw` when like nothing known). `cache`: QEMU's cache mode. `chain`: files it is based on.
    `probed`: whether a file written beside it at the source was read on this host, and the other way round;
    `content_hash`: of read-only media only. Both only after a probe. `shared_file_system`: whether the system below
    holds the file's file system for one that hosts share. `writable`: False when this host sees it on a file system
    or device that takes no writes. `virtual_size_bytes`: what a guest sees of it; `allocated_bytes`: what the file
    takes on its file system. `broken`: why the files that it is based on cannot be followed, empty when they can.
    """

    path: str
    identity: str | None
    size_bytes: int | None = None
    device: str = "disk"
    format: str | None = None
    content: str | None = None
    cache: str | None = None
    read_only: bool = False
    transient: bool = False
    chain: tuple[str, ...] = ()
    probed: bool | None = None
    content_hash: str | None = None
    shared_file_system: bool | None = None
    writable: bool | None = None
    virtual_size_bytes: int | None = None
    allocated_bytes: int | None = None
    broken: str = ""

    @property
    def moves(self) -> bool:
        """Whether it goes with a VM that takes its storage along: what is only read has to be there already."""
        return self.device == "disk" and not self.read_only


@dataclass(frozen=True, slots=True)
class TargetFact:
    """A place where a disk would go, as the destination sees it.

        `identity`: of what is there already, None when nothing is. `directory`: what is wrong with its directory, empty
    when it is one. `real`: the directory with links followed. `file_system`: equal for two
    places with the same free space.
    """

    path: str
    identity: str | None = None
    directory: str = ""
    real: str = ""
    writable: bool | None = None
    free_bytes: int | None = None
    file_system: str = ""


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
class LeaseSpaceFact:
    """Where the VM's lease is, as one host sees it, whether or not the VM is there.

    `identity`: of the lease file, None when it is not there. `wrong`: why the directory cannot be used, empty when it
    can. `probed`: whether a file written beside it was read at the other host, and the other way round; only after a
    probe.
    """

    path: str
    identity: str | None = None
    wrong: str = ""
    probed: bool | None = None


@dataclass(frozen=True, slots=True)
class NicFact:
    """A network adapter of a VM: name, MAC address, and the virtual switch that it is connected to (None: to none)."""

    name: str
    mac: str
    switch: str | None


@dataclass(frozen=True, slots=True)
class CpuFact:
    """A processor as a host has it or as a VM sees it: vendor, model, features by the backend's names."""

    vendor: str
    model: str
    features: frozenset[str] = frozenset()


SAVED_MEMORY = "saved memory"
"""The kind of a `DeviceFact` that ties a VM that is off: its memory is in a file of the host until the next start."""


@dataclass(frozen=True, slots=True)
class DeviceFact:
    """A device of a VM that ties it to its host: what it is, its name, and why it cannot move."""

    kind: str
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class VmFacts:
    """One VM on one host. `operation` and `plan`: of the migration that has stamped it, if any.

    `epoch`: of the owner record as this copy carries it, 0 when it carries none.
    `cpu`: what its guest sees. `unmovable`: devices that tie it to its host. `busy`: a job of the system below other
    than a migration that has it now (a backup, a block copy), empty without. `accelerator`: kvm or tcg. `autostart`:
    the host starts it by itself when it boots. `second_socket`: its monitor can be reached beside the system below.
    `memory_backing`: what its memory is made of that is not plain memory (huge pages, a file, shared), empty without.
    """

    name: str
    id: str
    state: VmState
    memory_mib: int
    vcpus: int = 1
    disks: tuple[DiskFact, ...] = ()
    lease: LeaseFact | None = None
    operation: str | None = None
    plan: Plan | None = None
    epoch: int = 0
    nics: tuple[NicFact, ...] = ()
    cpu: CpuFact | None = None
    processor_compatibility: bool = False
    machine: str = ""
    accelerator: str = ""
    unmovable: tuple[DeviceFact, ...] = ()
    snapshots: tuple[str, ...] = ()
    busy: str = ""
    autostart: bool = False
    second_socket: bool = False
    memory_backing: str = ""


@dataclass(frozen=True, slots=True)
class AddressFact:
    """An address of a host, the length of its network's prefix in bits, and the link that has it."""

    address: str
    prefix_length: int
    link: str = ""


@dataclass(frozen=True, slots=True)
class ClockFact:
    """A host's clock in seconds since the epoch, and by how much the reading may be off."""

    now_s: float
    uncertainty_s: float


@dataclass(frozen=True, slots=True)
class HostFacts:
    """One host. Not reachable: `native` says why and the rest is empty.

    `memory_mib` is what the host declares for VMs, `memory_used_mib` what its running and planned VMs have.
    `disks` are the VM's disks as this host sees them, by path. `names` are all names and addresses that it answers to.
    `routes`: networks that it can send to, as CIDR. `switches`: names of its virtual switches (None: not told).
    `storage_directories`: where it takes disks, the first one where nothing else is said (empty: anywhere); `targets`:
    places at which disks of the requested move would go, by path. `lease_space`: where the lease of the VM in question
    is (None: not looked at). `user_faults`: whether a QEMU there can be told of pages that are
    missing (None: not looked at, or not seen).
    `compression`: methods that it can send and receive, best first. `clock` minus `clock_reference` of the same moment
    (the observer's) is its skew. `machine_types`, `accelerators`: what its VMs can be (None: not told).
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
    addresses: tuple[AddressFact, ...] = ()
    routes: tuple[str, ...] = ()
    switches: frozenset[str] | None = None
    cpu: CpuFact | None = None
    machine_types: frozenset[str] | None = None
    accelerators: frozenset[str] | None = None
    compression: tuple[str, ...] = ()
    clock: ClockFact | None = None
    clock_reference_s: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    storage_directories: tuple[str, ...] = ()
    targets: Mapping[str, TargetFact] = field(default_factory=dict)
    lease_space: LeaseSpaceFact | None = None
    user_faults: bool | None = None

    def vm(self, name: str) -> VmFacts | None:
        """Return the VM of that name on this host, or None."""
        return next((v for v in self.vms if v.name == name), None)


@dataclass(frozen=True, slots=True)
class Scope:
    """Of what facts are wanted: one VM, and the hosts by name (empty: all of the group).

    `request`: the move that is meant; places where its disks would go are looked at too.
    """

    vm: str | None = None
    hosts: tuple[str, ...] = ()
    request: MigrationRequest | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of all hosts in the scope. A host that the group does not know is missing. `now_s`: seconds since epoch.

    The group store's part is put in by the engine: `settings` of hosts by name (missing: the defaults), `moving`: ids
    of the operations that a host takes part in, `owners` by the VM's id, and `store_problem` when it did not answer;
    and `hand_overs`, those that the backend offers, its own first, and whether it can do `post_copy`.
    """

    hosts: Mapping[str, HostFacts]
    now_s: float
    settings: Mapping[str, HostSettings] = field(default_factory=dict)
    moving: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    owners: Mapping[str, OwnerRecord] = field(default_factory=dict)
    store_problem: Problem | None = None
    hand_overs: tuple[HandOver, ...] = ()
    post_copy: bool = False


class Half(StrEnum):
    """How a copy that is one of two halves stands. FLOWS: pages are being sent; BROKEN: not before a recovery."""

    FLOWS = "flows"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class CopySeen:
    """One side as an inspection over a fresh connection saw it.

    `job_open`: a migration job of the system below exists here, so nothing is decided yet. `bound` (source only):
    this copy cannot run again by itself, because its process is gone or its system has taken the order to end it
    (handover 1.2). `arrived` (destination only): the whole VM is in it, and it was not let run yet.
    `ended_by_guest`: the guest switched itself off. `operation`: id of the migration that stamped it.
    `endable` (source only): its process has been held since before the switch, so that it can be ended although its
    system does not answer. Of a host that does not answer the rest is what could be seen without it.
    `half`: the VM is in post-copy: it runs at the destination, whose memory is not whole, as part of it is at the
    source still. None when it is not, or not any more, or that cannot be seen.
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
    endable: bool = False
    half: Half | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What both hosts show; the input of reconciliation (libvirt-qemu 3.3)."""

    source: CopySeen
    destination: CopySeen
