"""Errors as data: every problem that a user can meet has a stable id, a text and a mend in `errors.toml`.

A `Problem` is one finding with its measured values; a `RefimplError` carries one or more of them (rule 7).
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from refimpl.model.phase import ExitCode, Phase, Side

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class ErrorEntry:
    """One entry of the error data: texts with `{placeholders}` that the values of a problem fill.

    For findings of a compatibility report: `message_id` is Hyper-V's MessageId where one is known, `object` the type
    and name of the object at fault (Hyper-V's Source).
    """

    id: str
    text: str
    why: str
    mend: str
    exit: ExitCode
    hyperv: str
    message_id: int | None = None
    object: str = "VirtualMachine {vm}"


@dataclass(frozen=True, slots=True)
class Native:
    """What the system below said: its error domain and code, and its own text."""

    domain: str
    code: int | str
    text: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding: id, where and when it was seen, measured values, and what the system below said."""

    id: str
    values: Mapping[str, Value] = field(default_factory=dict)
    phase: Phase | None = None
    side: Side | None = None
    host: str | None = None
    native: Native | None = None

    def __post_init__(self) -> None:
        entry(self.id)

    @property
    def text(self) -> str:
        """The sentence for a user, the side and the host named where they are known (R19)."""
        said = _fill(entry(self.id).text, self._named)
        place = f" at the {self.side}" if self.side else ""
        return f"{said} (seen{place} on host {self.host!r})" if place and self.host else said

    @property
    def why(self) -> str:
        """Why it matters."""
        return _fill(entry(self.id).why, self._named)

    @property
    def mend(self) -> str:
        """The command or step that mends it."""
        return _fill(entry(self.id).mend, {name: _as_word(name, value) for name, value in self._named.items()})

    @property
    def refuses(self) -> bool:
        """Whether it stands in the way; what ends with exit code 0 is a warning."""
        return entry(self.id).exit is not ExitCode.OK

    @property
    def object(self) -> tuple[str, str]:
        """Type and name of the object at fault, under Hyper-V's names of types."""
        type, _, name = entry(self.id).object.partition(" ")
        return type, _fill(name, self._named)

    @property
    def _named(self) -> Mapping[str, Value]:
        """The values of the texts; the host of the finding is one of them where no other is meant."""
        return {"host": self.host, **self.values} if self.host else self.values

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "id": self.id,
            "text": self.text,
            "why": self.why,
            "mend": self.mend,
            "phase": self.phase,
            "side": self.side,
            "host": self.host,
            "values": dict(self.values),
            "native": asdict(self.native) if self.native else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Problem:
        """Build a problem from what `to_json` gave."""
        return cls(
            id=data["id"],
            values=dict(data["values"]),
            phase=Phase(data["phase"]) if data["phase"] else None,
            side=Side(data["side"]) if data["side"] else None,
            host=data["host"],
            native=Native(**data["native"]) if data["native"] else None,
        )


class RefimplError(Exception):
    """An error that a user can act on. `problems` holds at least one finding; `exit_code` is that of the first."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("\n".join(f"{p.text} [{p.id}] Mend: {p.mend}" for p in problems))

    @property
    def exit_code(self) -> ExitCode:
        """The exit code that the command line ends with."""
        return entry(self.problems[0].id).exit


def error(id: str, *, native: Native | None = None, host: str | None = None, **values: Value) -> RefimplError:
    """Return a `RefimplError` with one problem made from an id and its values."""
    return RefimplError(Problem(id=id, values=values, native=native, host=host))


@cache
def catalogue() -> Mapping[str, ErrorEntry]:
    """Return all entries of the error data by id."""
    data = tomllib.loads(files("refimpl.model").joinpath("errors.toml").read_text("utf-8"))
    return {id: _entry(id, row) for id, row in _flat(data)}


def entry(id: str) -> ErrorEntry:
    """Return one entry; an unknown id is a programming error (KeyError)."""
    return catalogue()[id]


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Mapping[str, Any]]]:
    for key, value in data.items():
        if "text" in value:
            yield prefix + key, value
        else:
            yield from _flat(value, f"{prefix}{key}.")


def _entry(id: str, row: Mapping[str, Any]) -> ErrorEntry:
    return ErrorEntry(
        id=id,
        text=row["text"],
        why=row["why"],
        mend=row["mend"],
        exit=ExitCode[row.get("exit", "REFUSED")],
        hyperv=row.get("hyperv", ""),
        message_id=row.get("message_id"),
        object=row.get("object", "VirtualMachine {vm}"),
    )


_NAMES = frozenset({"vm", "host", "lab", "path", "target", "directory"})


class _Word(str):
    """A name as a shell has to be given it, where a mend shows it as it is; `{name!r}` shows it as in a sentence."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return format(shlex.quote(str(self)), spec)


def _as_word(name: str, value: Value) -> Value:
    return _Word(value) if name in _NAMES and isinstance(value, str) else value


class _Missing(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


def _fill(template: str, values: Mapping[str, Value]) -> str:
    return template.format_map(_Missing(values))
