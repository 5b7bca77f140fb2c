"""Settings of a host for live migration: Hyper-V's properties of VMHost with their values and defaults (semantics 2.1).

They are kept in the group store, so that every controller of the group sees the same. Four rules live with them: the
source's performance option decides (R12), both hosts have a limit (R7), the destination says which networks may be
used (R13), and migration is off until somebody turns it on. `PreCopyPassLimit` and `UnexpectedBlackoutMs` are this
project's own: Hyper-V has both numbers and publishes neither. So is `Fence`, which a cluster has elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from refimpl.model.fencing import OWN_FENCE, FenceSetting
from refimpl.model.request import DEFAULT_PASS_LIMIT, PerformanceOption

DEFAULT_UNEXPECTED_BLACKOUT_MS = 10_000
"""From how long on a blackout is a warning (event 20417); Hyper-V warns of 63 s and is silent about 0.6 s."""


class Authentication(StrEnum):
    """Hyper-V's VirtualMachineMigrationAuthenticationType."""

    CREDSSP = "CredSSP"
    KERBEROS = "Kerberos"


@dataclass(frozen=True, slots=True)
class MigrationSubnet:
    """A network that may carry migrations: subnet as CIDR (one address: /32 or /128), lower priority first."""

    subnet: str
    priority: int = 0


@dataclass(frozen=True, slots=True)
class HostSettings:
    """Settings of one host, with Hyper-V's defaults (R12)."""

    migration_enabled: bool = False
    maximum_migrations: int = 2
    maximum_storage_migrations: int = 2
    authentication: Authentication = Authentication.CREDSSP
    performance_option: PerformanceOption = PerformanceOption.COMPRESSION
    use_any_network: bool = False
    networks: tuple[MigrationSubnet, ...] = ()
    pass_limit: int = DEFAULT_PASS_LIMIT
    unexpected_blackout_ms: int = DEFAULT_UNEXPECTED_BLACKOUT_MS
    fence: FenceSetting = OWN_FENCE

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values under Hyper-V's names."""
        values: dict[str, Any] = {name: getattr(self, field) for name, field in NAMES.items()}
        values["Fence"] = self.fence.to_json()
        values["MigrationNetworks"] = [{"Subnet": n.subnet, "Priority": n.priority} for n in self.networks]
        return values

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HostSettings:
        """Build settings from what `to_json` gave."""
        values = {NAMES[name]: value for name, value in data.items()}
        values["authentication"] = Authentication(values["authentication"])
        values["performance_option"] = PerformanceOption(values["performance_option"])
        values["networks"] = tuple(MigrationSubnet(n["Subnet"], n["Priority"]) for n in values["networks"])
        if "fence" in values:
            values["fence"] = FenceSetting.from_json(values["fence"])
        return cls(**values)


FENCE = "Fence"
NAMES: Mapping[str, str] = {
    "VirtualMachineMigrationEnabled": "migration_enabled",
    "MaximumVirtualMachineMigrations": "maximum_migrations",
    "MaximumStorageMigrations": "maximum_storage_migrations",
    "VirtualMachineMigrationAuthenticationType": "authentication",
    "VirtualMachineMigrationPerformanceOption": "performance_option",
    "UseAnyNetworkForMigration": "use_any_network",
    "MigrationNetworks": "networks",
    "PreCopyPassLimit": "pass_limit",
    "UnexpectedBlackoutMs": "unexpected_blackout_ms",
    FENCE: "fence",
}
"""Names outside (Hyper-V's, and three of our own) to fields of `HostSettings`."""
