"""Comparing a VM with a destination (Compare-VM): facts of both hosts, judged by the checks that a move makes too.

Nothing is changed: what a probe writes removes itself. A report that was kept is the way back to its choices (R11).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from refimpl.app.home import new_operation_id, write_json
from refimpl.checks.report import compared
from refimpl.checks.subject import subject
from refimpl.engine.backend import Backend
from refimpl.engine.store import Store, completed
from refimpl.model.compatibility import CompatibilityReport
from refimpl.model.errors import RefimplError, error
from refimpl.model.request import MOST_BANDWIDTH_MIB_S, HandOver, MigrationRequest, PerformanceOption, PostCopy


def compare(backend: Backend, store: Store, group: str, request: MigrationRequest) -> CompatibilityReport:
    """Look at the group's hosts, probe the VM's storage, and return what a move would find."""
    operation = new_operation_id()
    can = backend.capabilities()
    seen = replace(backend.probe(operation, request), hand_overs=can.hand_overs, post_copy=can.post_copy)
    facts = completed(seen, store, operation)
    return compared(subject(request, operation, group, facts))


def save_report(file: Path, report: CompatibilityReport) -> None:
    """Keep a report for a second comparison or a move. OSError when the file cannot be written."""
    write_json(file, report.to_json())


class StorageFile(BaseModel):
    """What is to become of the disks: the fields of `StorageWish`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include: bool
    destination_path: str | None
    vhds: list[Annotated[list[str], Len(2, 2)]]
    retain_vhd_copies_on_source: bool
    remove_source_unmanaged_vhds: bool
    avoid_removing_vhds: bool
    allow_overwrite: bool


class ChoicesFile(BaseModel):
    """The choices of a report as its file has them: the fields of `MigrationRequest`, maybe changed by hand."""

    model_config = ConfigDict(extra="forbid", strict=True)

    vm: str
    destination: str
    source: str | None
    encryption: bool
    performance_option: PerformanceOption | None = Field(strict=False)
    pass_limit: int | None = Field(ge=1, le=100)
    bandwidth_mib_s: int = Field(ge=0, le=MOST_BANDWIDTH_MIB_S)
    cancel_if_blackout_exceeds_ms: int | None = Field(ge=1)
    vm_id: str | None
    storage: StorageFile | None
    hand_over: HandOver | None = Field(default=None, strict=False)
    post_copy: PostCopy = Field(default=PostCopy.OFF, strict=False)


def load_report(file: Path) -> CompatibilityReport:
    """Return a report that was kept. RefimplError `report.unreadable`: it is no report, or makes no sense."""
    try:
        data = json.loads(file.read_text("utf-8"))
        report = _report(data)
    except OSError as failure:
        raise _unreadable(file, failure.strerror or str(failure)) from None
    except ValidationError as failure:
        first = failure.errors()[0]
        key = ".".join(map(str, ("Choices", *first["loc"])))
        raise _unreadable(file, f"{key}: {first['msg']}") from None
    except KeyError as failure:
        raise _unreadable(file, f"{failure} is missing, or not known to this version") from None
    except (ValueError, TypeError, AttributeError) as failure:
        raise _unreadable(file, str(failure)) from None
    return report


def _report(data: Any) -> CompatibilityReport:
    if not isinstance(data, dict):
        raise ValueError("it is no JSON object")
    ChoicesFile.model_validate(data["Choices"])
    report = CompatibilityReport.from_json(data)
    named = (data["VM"]["Name"], data["Destination"])
    if named != (report.request.vm, report.request.destination):
        raise ValueError("its VM or Destination is not that of its Choices")
    return report


def _unreadable(file: Path, detail: str) -> RefimplError:
    return error("report.unreadable", file=str(file), detail=detail)


def choices_of(file: Path, vm: str | None, destination: str | None) -> MigrationRequest:
    """Return the choices of a kept report. `report.other`: it is not about the VM or the destination that was named."""
    request = load_report(file).choices
    if vm not in (None, request.vm) or destination not in (None, request.destination):
        asked = " and ".join(repr(name) for name in (vm, destination) if name is not None)
        raise error("report.other", vm=request.vm, destination=request.destination, asked=asked)
    return request
