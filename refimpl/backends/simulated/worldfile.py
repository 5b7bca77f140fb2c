"""The file that describes a simulated world: hosts, networks, VMs, latencies and scripted faults, as TOML or JSON.

Checked by pydantic at this edge; whatever is wrong is said with its key path (error `world.invalid`).
"""

from __future__ import annotations

import json
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from refimpl.backends.simulated.worldparts import (
    CpuSpec,
    DeviceSpec,
    DiskSpec,
    HostSpec,
    NicSpec,
    Strict,
)
from refimpl.model.errors import Problem, RefimplError
from refimpl.model.events import Kind
from refimpl.model.request import CommandKind, HandOver

SCHEMA_VERSION = 1


class Moment(StrEnum):
    """A moment of a transfer at which a scripted fault can strike."""

    PREPARE = "prepare"
    START = "start"
    STORAGE = "storage"
    MEMORY = "memory"
    SWITCH = "switch"
    ARRIVED = "arrived"
    BOUND = "bound"
    RAN = "ran"
    POST_COPY = "post-copy"


class FaultKind(StrEnum):
    """What can go wrong. The first group strikes at a moment, the second is how an order is answered."""

    HOST_DIES = "host-dies"
    HOST_FREEZES = "host-freezes"
    LINK_DROPS = "link-drops"
    CALL_FAILS = "call-fails"
    CALL_LIES = "call-lies"
    STALLS = "stalls"
    DISK_FULL = "disk-full"
    BOTH_RUN = "both-run"
    GUEST_POWERS_OFF = "guest-powers-off"
    SOURCE_DIES = "source-dies"
    DESTINATION_DIES = "destination-dies"
    LOCK_DAEMON_DIES = "lock-daemon-dies"

    HANGS = "hangs"
    PREPARE_FAILS = "prepare-fails"
    NATIVE_REFUSAL = "native-refusal"
    NO_CONNECTION = "no-connection"
    RUN_REFUSED = "run-refused"
    SETTLE_FAILS = "settle-fails"
    LEAVES_BEHIND = "leaves-behind"
    CANCEL_LATE = "cancel-late"
    STEER_REFUSED = "steer-refused"
    NOT_ENDED = "not-ended"
    POST_COPY_REFUSED = "post-copy-refused"
    RESUME_REFUSED = "resume-refused"
    FENCE_FAILS = "fence-fails"


_KINDS = list(FaultKind)
STRIKING = frozenset(_KINDS[: _KINDS.index(FaultKind.HANGS)])
"""Faults that strike once, at a moment, a pass or a time."""

_NEEDS = {
    FaultKind.HOST_DIES: "host",
    FaultKind.HOST_FREEZES: "host",
    FaultKind.LOCK_DAEMON_DIES: "host",
    FaultKind.LINK_DROPS: "network",
    FaultKind.NO_CONNECTION: "network",
    FaultKind.HANGS: "command",
}


class NetworkSpec(Strict):
    """A migration network: its speed, and its place in the order of preference (lower first)."""

    bytes_s: int = Field(default=117_000_000, gt=0)
    priority: int = 0


class VmSpec(Strict):
    """A VM: where it is, its memory, and how its guest writes to it.

    `dirty_bytes_s`: steps of (seconds since the world began, bytes written per second); the last one holds on.
    `working_set_mib`: at most so much is dirty however long it is written to. `cpu`: what its guest sees; without it
    the processor of its host, and with `processor_compatibility` of that only `sse2`. `autostart`: its host starts it.
    `second_socket`, `memory_backing`: what post-copy needs of a VM, and what it does not go with.
    """

    name: str
    id: str
    host: str
    memory_mib: int = Field(gt=0)
    vcpus: int = Field(default=1, gt=0)
    state: Literal["running", "paused", "off"] = "running"
    working_set_mib: int = Field(default=64, ge=0)
    dirty_bytes_s: tuple[tuple[float, int], ...] = ((0.0, 20_000_000),)
    disks: tuple[DiskSpec, ...] = ()
    lease: bool = True
    lease_held: bool = True
    nics: tuple[NicSpec, ...] = (NicSpec(name="adapter 1", switch="lan"),)
    cpu: CpuSpec | None = None
    processor_compatibility: bool = False
    machine: str = "simulated-1"
    accelerator: str = "simulated"
    unmovable: tuple[DeviceSpec, ...] = ()
    snapshots: tuple[str, ...] = ()
    busy: str = ""
    autostart: bool = False
    second_socket: bool = True
    memory_backing: str = ""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        starts = [seconds for seconds, _ in self.dirty_bytes_s]
        if starts != sorted(starts) or any(rate < 0 for _, rate in self.dirty_bytes_s):
            raise ValueError("dirty_bytes_s: seconds have to rise and rates must not be negative")
        return self


class Latencies(Strict):
    """How long things take, in milliseconds of virtual time.

    `keepalive`: silence after which one host gives the other up. `device`: device state at the switch. `finish`: the
    destination's last step and its answer to the source. `teardown`: the end of the source's process.
    """

    control: int = Field(default=2, ge=0)
    prepare: int = Field(default=300, ge=0)
    start: int = Field(default=400, ge=0)
    progress: int = Field(default=250, gt=0)
    device: int = Field(default=20, gt=0)
    finish: int = Field(default=12, gt=0)
    run: int = Field(default=6, ge=0)
    teardown: int = Field(default=200, ge=0)
    cancel: int = Field(default=100, ge=0)
    keepalive: int = Field(default=6_000, gt=0)


class FaultSpec(Strict):
    """One scripted fault. A striking one names its moment (`during`), pass (`on_pass`) or time (`at_s`).

    `for_ms`: how long a host, link or lock daemon stays away (None: for good). `times`: how often an order is answered
    badly (0: always). `vm`: only for that VM.
    """

    kind: FaultKind
    during: Moment | None = None
    on_pass: int | None = Field(default=None, gt=0)
    at_s: float | None = Field(default=None, ge=0)
    for_ms: int | None = Field(default=None, gt=0)
    times: int = Field(default=1, ge=0)
    host: str | None = None
    network: str | None = None
    vm: str | None = None
    command: CommandKind | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        moments = sum(m is not None for m in (self.during, self.on_pass, self.at_s))
        if self.kind in STRIKING and moments != 1:
            raise ValueError(f"{self.kind}: exactly one of during, on_pass, at_s")
        if self.kind not in STRIKING and moments:
            raise ValueError(f"{self.kind}: takes none of during, on_pass, at_s")
        needed = _NEEDS.get(self.kind)
        if needed and getattr(self, needed) is None:
            raise ValueError(f"{self.kind}: needs {needed}")
        return self


class WorldSpec(Strict):
    """A whole world. `jitter`: share by which latencies and dirty rates vary at random, drawn from `seed`.

    `hidden`: events that this world's system does not show, as phases may be skipped. `hand_over`: strict (arrives
    paused, the engine lets it run) or delegated (runs by itself), unless a move asks for the other.
    `downtime_limit_ms`: what converged means.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    seed: int = 0
    jitter: float = Field(default=0.0, ge=0, lt=1)
    hand_over: Literal[HandOver.STRICT, HandOver.DELEGATED] = HandOver.STRICT
    leases: bool = True
    downtime_limit_ms: int = Field(default=300, gt=0)
    latency_ms: Latencies = Latencies()
    hosts: dict[str, HostSpec]
    networks: dict[str, NetworkSpec]
    vms: tuple[VmSpec, ...]
    faults: tuple[FaultSpec, ...] = ()
    hidden: frozenset[Kind] = frozenset()

    @model_validator(mode="after")
    def _names_known(self) -> Self:
        for place, name, known in self._names():
            if name not in known:
                raise ValueError(f"{place}: {name!r} is none of {', '.join(sorted(known))}")
        if len({vm.name for vm in self.vms}) < len(self.vms):
            raise ValueError("vms: two VMs of one name")
        return self

    def _names(self) -> list[tuple[str, str, set[str]]]:
        hosts, networks, vms = set(self.hosts), set(self.networks), {vm.name for vm in self.vms}
        used = [(f"hosts.{h}.networks", n, networks) for h, host in self.hosts.items() for n in host.networks]
        used += [(f"vms.{i}.host", vm.host, hosts) for i, vm in enumerate(self.vms)]
        for i, fault in enumerate(self.faults):
            named = (("host", fault.host, hosts), ("network", fault.network, networks), ("vm", fault.vm, vms))
            used += [(f"faults.{i}.{key}", name, known) for key, name, known in named if name is not None]
        return used


def load_world(path: Path) -> WorldSpec:
    """Read a world from a `.toml` or `.json` file. Raises RefimplError `world.invalid` with every key that is wrong."""
    try:
        text = path.read_text("utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, tomllib.TOMLDecodeError) as failure:
        raise RefimplError(_invalid(str(path), "", str(failure))) from None
    return parse_world(data, str(path))


def parse_world(data: object, name: str = "world") -> WorldSpec:
    """Check a world that was read already. Raises RefimplError `world.invalid`, one problem per wrong key."""
    try:
        return WorldSpec.model_validate(data)
    except ValidationError as failure:
        found = [_invalid(name, ".".join(map(str, e["loc"])), e["msg"]) for e in failure.errors()]
        raise RefimplError(*found) from None


def default_world() -> WorldSpec:
    """Return the world of `refimpl demo --backend simulated`: hosts a and b, and the VM `demo` on a."""
    return parse_world(
        {
            "schema": SCHEMA_VERSION,
            "hosts": {
                "a": {"memory_mib": 8192, "networks": {"migration": "192.0.2.1"}},
                "b": {"memory_mib": 8192, "networks": {"migration": "192.0.2.2"}},
            },
            "networks": {"migration": {"bytes_s": 117_000_000}},
            "vms": [
                {
                    "name": "demo",
                    "id": "5f0c7a52-6f4e-4b7e-9d3f-0d3c1b2a4e61",
                    "host": "a",
                    "memory_mib": 1024,
                    "working_set_mib": 128,
                    "dirty_bytes_s": [[0, 60_000_000]],
                    "disks": [{"path": "/shared/demo.qcow2"}],
                }
            ],
        }
    )


def _invalid(file: str, key: str, detail: str) -> Problem:
    return Problem(id="world.invalid", values={"file": file, "key": key or "(whole file)", "detail": detail})
