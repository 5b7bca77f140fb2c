"""What was asked for: the request of a user, the plan that CHECK makes of it, and the commands given to a backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from refimpl.model.fencing import FenceOrder
from refimpl.model.ownership import OwnerRecord
from refimpl.model.storage import StoragePlan, StorageWish


class PerformanceOption(StrEnum):
    """Hyper-V's VirtualMachineMigrationPerformanceOption as far as it is built."""

    TCPIP = "TCPIP"
    COMPRESSION = "Compression"


DEFAULT_PASS_LIMIT = 5
"""Pre-copy passes before the switch is forced (Hyper-V 2012 R2 and later, semantics 1.2)."""


MOST_BANDWIDTH_MIB_S = 1 << 20
"""The highest limit of a transfer that can be asked for; no link carries as much."""


class Steer(StrEnum):
    """What can be steered of a transfer that runs."""

    SWITCH = "switch"
    BANDWIDTH = "bandwidth"
    POST_COPY = "post-copy"


class VmState(StrEnum):
    """State of one copy of a VM on one host. PLANNED: made for an incoming migration, has not arrived."""

    ABSENT = "absent"
    PLANNED = "planned"
    RUNNING = "running"
    PAUSED = "paused"
    OFF = "off"
    UNKNOWN = "unknown"


class HandOver(StrEnum):
    """Who lets the destination run: the engine (strict), the backend's system (delegated), or nobody knows (opaque)."""

    STRICT = "strict"
    DELEGATED = "delegated"
    OPAQUE = "opaque"


class PostCopy(StrEnum):
    """Whether a move may let the VM run at the destination before its memory is there (ADR 0014).

    ALLOWED: when a person asks for it. ON_PASS_LIMIT: also by itself, in place of forcing the switch.
    """

    OFF = "off"
    ALLOWED = "allowed"
    ON_PASS_LIMIT = "on-pass-limit"


@dataclass(frozen=True, slots=True)
class MigrationRequest:
    """A move of one VM, as asked. `source` None: the host that has it.

    `performance_option` and `pass_limit` None: as the source host is set (R12). `bandwidth_mib_s` 0: unlimited.
    `cancel_if_blackout_exceeds_ms`: Hyper-V's CancelIfBlackoutThresholdExceeded with a number; None: never.
    `hand_over` None: the backend's own, or with `post_copy` the only one that goes with it.
    `vm_id`: only if the VM of that name has this id, as a compatibility report says; None: whichever it has.
    `storage` None: the disks stay where they are, on storage that both hosts share.
    """

    vm: str
    destination: str
    source: str | None = None
    encryption: bool = True
    performance_option: PerformanceOption | None = None
    pass_limit: int | None = None
    bandwidth_mib_s: int = 0
    cancel_if_blackout_exceeds_ms: int | None = None
    vm_id: str | None = None
    storage: StorageWish | None = None
    hand_over: HandOver | None = None
    post_copy: PostCopy = PostCopy.OFF

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MigrationRequest:
        """Build a request from what `to_json` gave."""
        values = dict(data)
        option = values["performance_option"]
        values["performance_option"] = None if option is None else PerformanceOption(option)
        storage = values.get("storage")
        values["storage"] = None if storage is None else StorageWish.from_json(storage)
        chosen = values.get("hand_over")
        values["hand_over"] = None if chosen is None else HandOver(chosen)
        values["post_copy"] = PostCopy(values.get("post_copy", PostCopy.OFF))
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Plan:
    """A request made definite by CHECK: which VM (name and id), from where, to where, over which networks in order.

    `networks` are addresses of the destination in order of preference; `network` is the index of the one in use.
    `vm_state`: running, paused or off, as the VM is when the move begins and is to be after it. `compression`: the
    method chosen from what both hosts can, empty without. `unexpected_blackout_ms`: longer is a warning (20417).
    `epoch`: the highest of the owner record that any copy or the store showed. `autostart`: the source would start it
    by itself, which PREPARE turns off and a roll-back gives back.
    `storage`: what moves of the disks, None when they stay.
    `origins`: for each setting by name, where its value came from (`request`, `host h1`, `default`).
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
    pass_limit: int = DEFAULT_PASS_LIMIT
    bandwidth_mib_s: int = 0
    memory_mib: int = 0
    vm_state: VmState = VmState.RUNNING
    compression: str = ""
    cancel_if_blackout_exceeds_ms: int | None = None
    unexpected_blackout_ms: int | None = None
    epoch: int = 0
    autostart: bool = False
    origins: Mapping[str, str] = field(default_factory=dict)
    storage: StoragePlan | None = None
    post_copy: PostCopy = PostCopy.OFF

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
        values["vm_state"] = VmState(values["vm_state"])
        storage = values.get("storage")
        values["storage"] = None if storage is None else StoragePlan.from_json(storage)
        values["post_copy"] = PostCopy(values.get("post_copy", PostCopy.OFF))
        return cls(**values)


class CommandKind(StrEnum):
    """What the engine can tell a backend or itself to do; see `refimpl.engine.backend` for each one's contract."""

    OBSERVE = "observe"
    PROBE = "probe"
    CLAIM = "claim"
    RELEASE = "release"
    PREPARE = "prepare"
    START_TRANSFER = "start-transfer"
    STEER_SWITCH = "steer-switch"
    STEER_BANDWIDTH = "steer-bandwidth"
    START_POSTCOPY = "start-post-copy"
    RECOVER_POSTCOPY = "recover-post-copy"
    END_HALVES = "end-halves"
    REQUEST_CANCEL = "request-cancel"
    ANSWER_TOO_LATE = "answer-too-late"
    LOOK_FOR_BINDING = "look-for-binding"
    END_SOURCE = "end-source"
    FENCE = "fence"
    RECORD_PENDING = "record-pending"
    RECORD_COMMIT = "record-commit"
    RECORD_POSTCOPY = "record-post-copy"
    RECORD_SOURCE = "record-source"
    RECORD_DESTINATION = "record-destination"
    ALLOW_RUN = "allow-run"
    INSPECT = "inspect"
    WAIT_TO_LOOK = "wait-to-look"
    ADOPT = "adopt"
    SETTLE_SOURCE = "settle-source"
    SETTLE_DESTINATION = "settle-destination"
    CLEAN_UP = "clean-up"
    CLEAN_UP_UNDONE = "clean-up-undone"
    CLEAN_UP_MOVED = "clean-up-moved"


@dataclass(frozen=True, slots=True)
class Command:
    """One command: idempotent by (operation, step). `plan` is None only before CHECK has made one.

    `ownership`: the owner record as it stands for this operation, None before it is recorded that it has begun.
    `source_older`: the VM ran at the destination since the source's copy was stopped.
    `fence`: of FENCE, whom and how. `fenced`: hosts that were cut off, so that nothing runs there.
    """

    kind: CommandKind
    operation: str
    step: int
    request: MigrationRequest
    plan: Plan | None = None
    ownership: OwnerRecord | None = None
    source_older: bool = False
    fence: FenceOrder | None = None
    fenced: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return kind and step for the journal and the event stream."""
        return {"kind": self.kind, "step": self.step}
