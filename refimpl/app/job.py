"""The job of a move as Hyper-V shows it: Msvm_MigrationJob's state, percent and error (semantics 4.4, R9).

A fold over the events of one operation (the JSON values of the event stream) and how it ended; it stays readable for
as long as the operation is kept. Percent never falls: below 10 while nothing but set-up was done, below 70 while disks
and below 90 while memory is copied (below 99 while it follows a VM in post-copy), 100 only when the VM is at the
destination, and where it stood when the move ended otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from refimpl.app.live import JsonEvent
from refimpl.model.errors import Problem, entry
from refimpl.model.events import Kind
from refimpl.model.outcome import Outcome
from refimpl.model.phase import ENDS, Phase

E_FAIL = 0x80004005
LIVE_MIGRATION = 32768
LIVE_MIGRATION_WITH_STORAGE = 32771
CHECKING, CHECKING_WITH_STORAGE, MOVING, MOVING_WITH_STORAGE = 301, 302, 305, 306
_STORAGE_FROM, _STORAGE_TO = 10, 69
_MEMORY_FROM, _MEMORY_TO = 10, 89
_SWITCHED, _POST_COPY_TO = 91, 98


class JobState(IntEnum):
    """JobState of Msvm_MigrationJob, and what OpenStack saw of warnings."""

    NEW = 2
    STARTING = 3
    RUNNING = 4
    COMPLETED = 7
    TERMINATED = 8
    EXCEPTION = 10
    COMPLETED_WITH_WARNINGS = 32768


_AT_LEAST: Mapping[str, int] = {
    Phase.SETUP: 1,
    Phase.STORAGE: _STORAGE_FROM,
    Phase.MEMORY: _MEMORY_FROM,
    Phase.SWITCH: 90,
    Phase.COMMITTED: 99,
    Phase.POSTCOPY: _SWITCHED,
    Phase.CLEANUP: 99,
}

_END_STATES: Mapping[Phase, JobState] = {
    Phase.COMPLETED: JobState.COMPLETED,
    Phase.COMPLETED_WITH_WARNINGS: JobState.COMPLETED_WITH_WARNINGS,
    Phase.CANCELLED: JobState.TERMINATED,
}


@dataclass(frozen=True, slots=True)
class MigrationJob:
    """One job. `percent` 0 to 100; `error_code` an HRESULT, 0 if and only if the move succeeded or has not ended."""

    vm: str
    destination: str
    state: JobState = JobState.NEW
    percent: int = 0
    with_storage: bool = False
    phase: str = Phase.NEW
    cancellable: bool = True
    error_code: int = 0
    errors: tuple[Problem, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return Hyper-V's names. `Errors` is what GetErrorEx gives: only after a failure or a cancel."""
        return {
            "VirtualSystemName": self.vm,
            "DestinationHost": self.destination,
            "JobState": int(self.state),
            "JobStatus": self.state.name.replace("_", " ").lower(),
            "JobType": self._type,
            "MigrationType": LIVE_MIGRATION_WITH_STORAGE if self.with_storage else LIVE_MIGRATION,
            "PercentComplete": self.percent,
            "Cancellable": self.cancellable,
            "ErrorCode": self.error_code,
            "ErrorDescription": "; ".join(problem.text for problem in self.errors),
            "Errors": [problem.to_json() for problem in self.errors],
        }

    @property
    def _type(self) -> int:
        if self.phase == Phase.CHECK:
            return CHECKING_WITH_STORAGE if self.with_storage else CHECKING
        return MOVING_WITH_STORAGE if self.with_storage else MOVING


def job_of(vm: str, destination: str, events: Iterable[JsonEvent], outcome: Outcome | None) -> MigrationJob:
    """Return the job of a move by its events so far and, if it has ended, its outcome."""
    job = MigrationJob(vm, destination)
    for event in events:
        job = _fold(job, event)
    return _ended(job, outcome) if outcome is not None else job


def _fold(job: MigrationJob, event: JsonEvent) -> MigrationJob:
    values = event["values"]
    match event["kind"]:
        case Kind.STARTED:
            with_storage = (values.get("request") or {}).get("storage") is not None
            return replace(job, state=JobState.STARTING, with_storage=with_storage)
        case Kind.PHASE_ENTERED if values["phase"] not in ENDS:
            return _entered(job, values["phase"])
        case Kind.PREPARED:
            return replace(job, percent=max(job.percent, _MEMORY_FROM - 1))
        case Kind.PROGRESS if job.phase == Phase.STORAGE:
            share = _share(values.get("disks_total_bytes"), values.get("disks_remaining_bytes"))
            return _at(job, share, _STORAGE_FROM, _STORAGE_TO)
        case Kind.PROGRESS if job.phase == Phase.POSTCOPY:
            share = _share(values.get("total_bytes"), values.get("remaining_bytes"))
            return _at(job, share, _SWITCHED, _POST_COPY_TO)
        case Kind.PROGRESS if job.phase == Phase.MEMORY:
            share = _share(values.get("total_bytes"), values.get("remaining_bytes"))
            return _at(job, share, _STORAGE_TO if job.with_storage else _MEMORY_FROM, _MEMORY_TO)
    return job


def _entered(job: MigrationJob, phase: str) -> MigrationJob:
    """Note a phase. A cancel is taken until the switch (R4)."""
    cancellable = phase in (Phase.NEW, Phase.CHECK, Phase.SETUP, Phase.STORAGE, Phase.MEMORY)
    percent = max(job.percent, _AT_LEAST.get(phase, 0))
    return replace(job, phase=phase, percent=percent, cancellable=cancellable, state=JobState.RUNNING)


def _share(total: float | None, remaining: float | None) -> float | None:
    """Return which part is copied, None while that is not known."""
    if not total or remaining is None:
        return None
    return min(1.0, max(0.0, 1 - remaining / total))


def _at(job: MigrationJob, share: float | None, begin: int, end: int) -> MigrationJob:
    return job if share is None else replace(job, percent=max(job.percent, begin + int(share * (end - begin))))


def _ended(job: MigrationJob, outcome: Outcome) -> MigrationJob:
    state = _END_STATES.get(outcome.end, JobState.EXCEPTION)
    if outcome.completed:
        return replace(job, state=state, percent=100, cancellable=False)
    code = next((code for problem in outcome.problems if (code := _hresult(problem))), E_FAIL)
    return replace(job, state=state, cancellable=False, error_code=code, errors=outcome.problems)


def _hresult(problem: Problem) -> int | None:
    """Return Hyper-V's own code of an error where one is known as such (event ids are none)."""
    known = entry(problem.id).hyperv
    return int(known, 16) if known.startswith("0x") else None
