"""What was asked for: the request of a user, the plan that CHECK makes of it, and the commands given to a backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class PerformanceOption(StrEnum):
    """Hyper-V's VirtualMachineMigrationPerformanceOption as far as it is built."""

    TCPIP = "TCPIP"


class HandOver(StrEnum):
    """Who lets the destination run: the engine (strict), the backend's system (delegated), or nobody knows (opaque)."""

    STRICT = "strict"
    DELEGATED = "delegated"
    OPAQUE = "opaque"


@dataclass(frozen=True, slots=True)
class MigrationRequest:
    """A move of one running VM, as asked. `source` None: the host on which it runs.

    `pass_limit` counts pre-copy passes before the switch is forced (Hyper-V 2012 R2 and later: 5, semantics 1.2).
    `bandwidth_mib_s` 0 means unlimited.
    """

    vm: str
    destination: str
    source: str | None = None
    encryption: bool = True
    performance_option: PerformanceOption = PerformanceOption.TCPIP
    pass_limit: int = 5
    bandwidth_mib_s: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MigrationRequest:
        """Build a request from what `to_json` gave."""
        values = dict(data)
        values["performance_option"] = PerformanceOption(values["performance_option"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Plan:
    """A request made definite by CHECK: which VM (name and id), from where, to where, over which networks in order.

    `networks` are addresses of the destination in order of preference; `network` is the index of the one in use.
    """

    vm: str
    vm_id: str
    source: str
    destination: str
    networks: tuple[str, ...] = ()
    network: int = 0
    encryption: bool = True
    performance_option: PerformanceOption = PerformanceOption.TCPIP
    hand_over: HandOver = HandOver.STRICT
    pass_limit: int = 5
    bandwidth_mib_s: int = 0
    memory_mib: int = 0

    @property
    def address(self) -> str | None:
        """The destination's address on the migration network in use."""
        return self.networks[self.network] if self.networks else None

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Build a plan from what `to_json` gave."""
        values = dict(data)
        values["networks"] = tuple(values["networks"])
        values["performance_option"] = PerformanceOption(values["performance_option"])
        values["hand_over"] = HandOver(values["hand_over"])
        return cls(**values)


class CommandKind(StrEnum):
    """What the engine can tell a backend or itself to do; see `refimpl.engine.backend` for each one's contract."""

    OBSERVE = "observe"
    CLAIM = "claim"
    RELEASE = "release"
    PREPARE = "prepare"
    START_TRANSFER = "start-transfer"
    STEER_SWITCH = "steer-switch"
    REQUEST_CANCEL = "request-cancel"
    ANSWER_TOO_LATE = "answer-too-late"
    LOOK_FOR_BINDING = "look-for-binding"
    RECORD_COMMIT = "record-commit"
    ALLOW_RUN = "allow-run"
    INSPECT = "inspect"
    WAIT_TO_LOOK = "wait-to-look"
    ADOPT = "adopt"
    SETTLE_SOURCE = "settle-source"
    SETTLE_DESTINATION = "settle-destination"
    CLEAN_UP = "clean-up"


@dataclass(frozen=True, slots=True)
class Command:
    """One command: idempotent by (operation, step). `plan` is None only before CHECK has made one."""

    kind: CommandKind
    operation: str
    step: int
    request: MigrationRequest
    plan: Plan | None = None

    def to_json(self) -> dict[str, Any]:
        """Return kind and step for the journal and the event stream."""
        return {"kind": self.kind, "step": self.step}
