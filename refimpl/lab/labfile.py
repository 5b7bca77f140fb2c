"""The file that describes a lab: its hosts, their settings, its networks and their speed, as TOML.

Checked by pydantic at this edge; whatever is wrong is said at once, each with its key path and its line.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from refimpl.lab import layout
from refimpl.lab.config import KeepAlive
from refimpl.lab.links import MANAGEMENT_NETWORK, MAX_RATE_MBIT_S, VM_NETWORK
from refimpl.lab.tomllines import line_of, lines_of
from refimpl.lab.wish import DEFAULT_MEMORY_MIB, HostWish, Wish
from refimpl.model.errors import Problem, RefimplError

SCHEMA_VERSION = 1
_LONGEST_NAME = 32
_RESERVED_HOSTS = (layout.SWITCH, layout.CONDUCTOR, "conductor", "authority", "localhost")
_OWN_SUBNETS = tuple(f"{subnet}.0/{layout.PREFIX_LENGTH}" for subnet in (layout.MANAGEMENT_SUBNET, layout.VM_SUBNET))

_PLAIN = {"extra_forbidden": "there is no such key", "missing": "it is required and not there"}

Model = TypeVar("Model", bound=BaseModel)
_T = TypeVar("_T")
Finding = tuple[tuple[str | int, ...], str]
"""Key path and what is wrong there."""


def _host_name(text: str) -> str:
    if text in _RESERVED_HOSTS:
        raise ValueError(f"the lab itself uses the name {text!r}")
    return text


def _network_name(text: str) -> str:
    if text in (MANAGEMENT_NETWORK, VM_NETWORK):
        raise ValueError(f"every lab has a network {text!r} already")
    return text


def _subnet(text: str) -> str:
    network = ip_network(text)
    if network.is_loopback or network.is_multicast or network.is_link_local or network.is_unspecified:
        raise ValueError(f"{network} is no subnet for hosts")
    return str(network)


def _counted(least: int, most: int) -> Callable[[tuple[_T, ...]], tuple[_T, ...]]:
    def check(rows: tuple[_T, ...]) -> tuple[_T, ...]:
        if not least <= len(rows) <= most:
            raise ValueError(f"a lab has at least {least} and at most {most} of them, not {len(rows)}")
        return rows

    return check


_Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$", max_length=_LONGEST_NAME)]
_Rate = Annotated[int, Field(strict=True, ge=0, le=MAX_RATE_MBIT_S)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KeepAliveSpec(_Strict):
    """After how long a silent peer counts as dead: `interval_s`, times (`count` + 1)."""

    interval_s: Annotated[int, Field(strict=True, ge=1, le=3600)] = KeepAlive().interval_s
    count: Annotated[int, Field(strict=True, ge=0, le=100)] = KeepAlive().count


class ManagementSpec(_Strict):
    """The network of the control connections: the speed of the hosts' links in Mbit/s, 0 for no limit."""

    rate_mbit_s: _Rate = 0


class NetworkSpec(_Strict):
    """A migration network: name, subnet (IPv4 or IPv6), priority (lower first), speed in Mbit/s (0: no limit)."""

    name: Annotated[_Name, AfterValidator(_network_name)]
    subnet: Annotated[str, AfterValidator(_subnet)]
    priority: Annotated[int, Field(strict=True, ge=0)] = 0
    rate_mbit_s: _Rate = 0


class HostSpec(_Strict):
    """A host: name, memory that it declares for VMs in MiB, settings under Hyper-V's names."""

    name: Annotated[_Name, AfterValidator(_host_name)]
    memory_mib: Annotated[int, Field(strict=True, ge=64)] = DEFAULT_MEMORY_MIB
    settings: dict[str, Any] = {}


class LabSpec(_Strict):
    """A whole lab; without networks it gets those that every lab has."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: _Name = "lab"
    keepalive: KeepAliveSpec = KeepAliveSpec()
    management: ManagementSpec = ManagementSpec()
    # Their number is counted after all of them were found good: pydantic's own limits count only the good ones.
    hosts: Annotated[tuple[HostSpec, ...], AfterValidator(_counted(1, layout.MAX_HOSTS))]
    networks: Annotated[tuple[NetworkSpec, ...], AfterValidator(_counted(0, layout.MAX_NETWORKS))] = ()


@dataclass(frozen=True, slots=True)
class LabFile:
    """A lab file that was read: the wish that it describes, and the lines of its keys."""

    path: str
    wish: Wish
    lines: Mapping[tuple[str | int, ...], int]

    def error(self, findings: Sequence[Finding]) -> RefimplError:
        """Return the error that names all findings, each with its line: for what only others can judge."""
        return _error(self.path, findings, self.lines)


def load_lab(path: Path) -> LabFile:
    """Read a lab file. RefimplError `lab.file_unreadable`, or `lab.file_invalid` once for every key that is wrong."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        detail = getattr(failure, "strerror", None) or str(failure)
        raise RefimplError(Problem("lab.file_unreadable", {"file": str(path), "detail": detail})) from None
    return parse_lab(text, str(path))


def parse_lab(text: str, name: str) -> LabFile:
    """Check the text of a lab file. RefimplError `lab.file_invalid`."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as failure:
        values = {"file": name, "place": "as a whole", "detail": str(failure)}
        raise RefimplError(Problem("lab.file_invalid", values)) from None
    lines = lines_of(text)
    found: list[Finding] = []
    spec = _validated(LabSpec, data, (), found)
    found += _crossed(_each(HostSpec, data.get("hosts")), _each(NetworkSpec, data.get("networks")))
    if found or spec is None:
        raise _error(name, found, lines)
    return LabFile(name, _wish(spec), lines)


def _error(file: str, findings: Sequence[Finding], lines: Mapping[tuple[str | int, ...], int]) -> RefimplError:
    def problem(path: Sequence[str | int], detail: str) -> Problem:
        line, key = line_of(lines, path), ".".join(map(str, path))
        place = f"at {key}" if line is None else f"in line {line} at {key}"
        return Problem("lab.file_invalid", {"file": file, "place": place, "detail": detail, "key": key, "line": line})

    return RefimplError(*(problem(path, detail) for path, detail in findings))


def _validated(model: type[Model], data: object, at: tuple[str | int, ...], found: list[Finding]) -> Model | None:
    try:
        return model.model_validate(data)
    except ValidationError as failure:
        found += [((*at, *e["loc"]), _said(e["type"], e["msg"])) for e in failure.errors()]
        return None


def _said(kind: str, message: str) -> str:
    return _PLAIN.get(kind) or message.removeprefix("Value error, ")


def _each(model: type[Model], rows: object) -> dict[int, Model]:
    """Return those rows that are good by themselves: they can be compared although others are not."""
    tried = enumerate(rows) if isinstance(rows, list) else ()
    made = {number: _validated(model, row, (), []) for number, row in tried}
    return {number: row for number, row in made.items() if row is not None}


def _crossed(hosts: Mapping[int, HostSpec], networks: Mapping[int, NetworkSpec]) -> Iterator[Finding]:
    yield from _twice("hosts", {number: host.name for number, host in hosts.items()})
    yield from _twice("networks", {number: network.name for number, network in networks.items()})
    taken: list[tuple[str, IPv4Network | IPv6Network]] = [
        ("the lab's own networks", ip_network(s)) for s in _OWN_SUBNETS
    ]
    for number, network in networks.items():
        subnet = ip_network(network.subnet)
        clash = next(
            (whose for whose, other in taken if subnet.version == other.version and subnet.overlaps(other)), None
        )
        if clash is not None:
            yield ("networks", number, "subnet"), f"{network.subnet} overlaps with {clash}"
        taken.append((f"network {network.name!r}", subnet))
        try:
            layout.host_address(network.subnet, max(hosts, default=0) + 1)
        except ValueError as failure:
            yield ("networks", number, "subnet"), str(failure)


def _twice(table: str, names: Mapping[int, str]) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for number, name in names.items():
        if first.setdefault(name, number) != number:
            yield (table, number, "name"), f"{name!r} is the name of {table}.{first[name]} already"


def _wish(spec: LabSpec) -> Wish:
    return Wish(
        name=spec.name,
        hosts=tuple(HostWish(h.name, h.memory_mib, h.settings) for h in spec.hosts),
        networks=tuple(layout.NetworkPlan(n.name, n.subnet, n.priority, n.rate_mbit_s) for n in spec.networks),
        keepalive=KeepAlive(spec.keepalive.interval_s, spec.keepalive.count),
        management_rate_mbit_s=spec.management.rate_mbit_s,
    )
