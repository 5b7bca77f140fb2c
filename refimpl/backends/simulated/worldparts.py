"""What hosts and disks of a simulated world can have beyond what every one has: what one machine alone cannot show.

Two vendors of processors, clocks that are apart, a missing switch, an older version: here they are a line of a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from refimpl.model.request import PerformanceOption
from refimpl.model.settings import Authentication, HostSettings


class Strict(BaseModel):
    """A part of a world: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


IPvAnyAddressText = Annotated[str, AfterValidator(lambda text: str(ip_address(text)))]
SubnetText = Annotated[str, AfterValidator(lambda text: str(ip_network(text, strict=False)))]


class CpuSpec(Strict):
    """A processor: vendor, model, features. What is the same on two hosts need not be said."""

    vendor: str = "Intel"
    model: str = "simulated"
    features: frozenset[str] = frozenset()


class NicSpec(Strict):
    """A network adapter of a VM and the virtual switch that it is connected to (None: to none)."""

    name: str
    mac: str = "52:54:00:00:00:01"
    switch: str | None = None


class DeviceSpec(Strict):
    """A device that ties a VM to its host."""

    kind: str
    name: str
    why: str = "its state is on the host alone"


class SubnetSpec(Strict):
    """A migration network of a host, under Hyper-V's names."""

    subnet: SubnetText = Field(alias="Subnet")
    priority: int = Field(default=0, ge=0, alias="Priority")


class SettingsSpec(Strict):
    """Settings of a host under Hyper-V's names; what is not named is as in any simulated world."""

    enabled: bool | None = Field(default=None, alias="VirtualMachineMigrationEnabled")
    maximum: int | None = Field(default=None, ge=0, alias="MaximumVirtualMachineMigrations")
    maximum_storage: int | None = Field(default=None, ge=0, alias="MaximumStorageMigrations")
    authentication: Authentication | None = Field(default=None, alias="VirtualMachineMigrationAuthenticationType")
    option: PerformanceOption | None = Field(default=None, alias="VirtualMachineMigrationPerformanceOption")
    use_any_network: bool | None = Field(default=None, alias="UseAnyNetworkForMigration")
    networks: tuple[SubnetSpec, ...] | None = Field(default=None, alias="MigrationNetworks")
    pass_limit: int | None = Field(default=None, gt=0, alias="PreCopyPassLimit")
    unexpected_blackout_ms: int | None = Field(default=None, gt=0, alias="UnexpectedBlackoutMs")

    def over(self, settings: HostSettings) -> HostSettings:
        """Return settings with those in their place that are named here."""
        named: Mapping[str, Any] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return HostSettings.from_json({**settings.to_json(), **named})


class DirectorySpec(Strict):
    """A directory of a host for disks: the size of its file system, and where it really is if it is a link."""

    mib: int = Field(default=1_000_000, ge=0)
    writable: bool = True
    real: str | None = None


class HostSpec(Strict):
    """A host: declared memory, its address on each network, what it has, and what is wrong with it from the start.

    `clock_skew_ms`: how far its clock is ahead; `clock_uncertainty_ms`: how far that reading may be off. `switches`,
    `machine_types`, `accelerators`, `cpu`: None when it does not tell them. `directories`: those to which disks can go;
    `storage_directories`: those that are allowed (empty: all); `files`: files that are there already.
    `lease_space`: whether it sees the leases that the others see, leases of its own, or none.
    `user_faults`: whether a VM can run there before its memory has come.
    """

    memory_mib: int = Field(gt=0)
    networks: dict[str, IPvAnyAddressText]
    reachable: bool = True
    lock_daemon: bool = True
    certificate: Literal["good", "missing", "expired", "wrong-name", "untrusted", "key-readable"] = "good"
    settings: SettingsSpec = SettingsSpec()
    switches: frozenset[str] | None = frozenset({"lan"})
    cpu: CpuSpec | None = CpuSpec()
    machine_types: frozenset[str] | None = frozenset({"simulated-1"})
    accelerators: frozenset[str] | None = frozenset({"simulated"})
    compression: tuple[str, ...] = ("zstd", "xbzrle")
    versions: dict[str, str] = {"simulated": "1"}
    clock_skew_ms: float = 0.0
    clock_uncertainty_ms: float = Field(default=0.0, ge=0)
    directories: dict[str, DirectorySpec] = {"/local": DirectorySpec()}
    storage_directories: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    lease_space: Literal["shared", "own", "missing"] = "shared"
    user_faults: bool | None = True


class DiskSpec(Strict):
    """A disk of a VM and the hosts that do not see it, or see another file under its path.

    `unshared_with`: hosts on which it looks the same and is not, as a probe finds out. `other_content_on`: of media.
    `read_only_on`: hosts on which it is mounted read-only. `local`: it lies on the disk of the VM's host alone.
    `chain`: what it is based on; `broken`: why that cannot be followed.
    """

    path: str
    size_mib: int = Field(default=64, gt=0)
    missing_on: tuple[str, ...] = ()
    different_on: tuple[str, ...] = ()
    unshared_with: tuple[str, ...] = ()
    read_only_on: tuple[str, ...] = ()
    other_content_on: tuple[str, ...] = ()
    device: Literal["disk", "cdrom", "floppy"] = "disk"
    format: str = "raw"
    content: str | None = None
    cache: str = "none"
    shared_file_system: bool = True
    transient: bool = False
    local: bool = False
    chain: tuple[str, ...] = ()
    broken: str = ""
