"""The compatibility report: what Compare-VM gives, with Hyper-V's fields (semantics 3.1) and more of ours beside them.

It is a snapshot: an entry does not go away when its cause is mended; a report is compared again or moved with, and a
move looks at everything anew (R11). A VM on shared storage keeps its files, so that all paths of a report are null.
Hyper-V's value of OperationType for a move is not published; ours is `MoveVirtualMachine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from refimpl.model.errors import Problem, entry
from refimpl.model.request import MigrationRequest

SCHEMA_VERSION = 1
OPERATION_TYPE = "MoveVirtualMachine"
_PATHS = ("Path", "SnapshotPath", "VhdDestinationPath", "VhdSourcePath")


class Verdict(StrEnum):
    """What a family of checks came to. NOT_SEEN: nothing stands in the way, but nothing was seen of it either."""

    OK = "ok"
    WARNING = "warning"
    REFUSED = "refused"
    NOT_SEEN = "not seen"


@dataclass(frozen=True, slots=True)
class Checked:
    """One family of checks: its verdict, and in a few words what was seen."""

    family: str
    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True)
class CompatibilityReport:
    """A comparison of a VM with a destination. `compared_s`: when, seconds since the epoch; `vm_id` None: not found.

    `problems` are all findings, those that are only warnings too; `checked` has every family, also those in order.
    """

    group: str
    request: MigrationRequest
    vm_id: str | None
    source: str | None
    compared_s: float
    problems: tuple[Problem, ...]
    checked: tuple[Checked, ...]

    @property
    def incompatibilities(self) -> tuple[Problem, ...]:
        """The findings that stand in the way."""
        return tuple(p for p in self.problems if p.refuses)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The findings that do not."""
        return tuple(p for p in self.problems if not p.refuses)

    @property
    def compatible(self) -> bool:
        """Whether nothing stood in the way when it was made."""
        return not self.incompatibilities

    @property
    def choices(self) -> MigrationRequest:
        """The request to compare again or to move with: the same choices, for the VM of this id alone."""
        return replace(self.request, vm_id=self.vm_id or self.request.vm_id)

    def to_json(self) -> dict[str, Any]:
        """Return Hyper-V's fields under their names, then ours, as plain JSON values."""
        return {
            "schema": SCHEMA_VERSION,
            "VM": {"Name": self.request.vm, "Id": self.vm_id},
            "OperationType": OPERATION_TYPE,
            "Destination": self.request.destination,
            **dict.fromkeys(_PATHS),
            "Incompatibilities": [_entry(p) for p in self.incompatibilities],
            "Warnings": [_entry(p) for p in self.warnings],
            "Compatible": self.compatible,
            "SourceHost": self.source,
            "Group": self.group,
            "ComparedAt": self.compared_s,
            "Choices": self.request.to_json(),
            "Checked": [{"Family": c.family, "Verdict": c.verdict, "Text": c.text} for c in self.checked],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CompatibilityReport:
        """Build a report from what `to_json` gave. KeyError, TypeError or ValueError when it is none of this schema."""
        if data["schema"] != SCHEMA_VERSION or data["OperationType"] != OPERATION_TYPE:
            raise ValueError(f"it is no report of a move with schema {SCHEMA_VERSION}")
        rows = (*data["Incompatibilities"], *data["Warnings"])
        return cls(
            group=data["Group"],
            request=MigrationRequest.from_json(data["Choices"]),
            vm_id=data["VM"]["Id"],
            source=data["SourceHost"],
            compared_s=data["ComparedAt"],
            problems=tuple(Problem.from_json(row) for row in rows),
            checked=tuple(Checked(c["Family"], Verdict(c["Verdict"]), c["Text"]) for c in data["Checked"]),
        )


def _entry(problem: Problem) -> dict[str, Any]:
    """Return one entry: Message, MessageId and Source as Hyper-V has them, then what a `Problem` has."""
    type, name = problem.object
    told = problem.to_json()
    return {
        "Message": told.pop("text"),
        "MessageId": entry(problem.id).message_id,
        "Source": {"Type": type, "Name": name},
        **told,
    }
