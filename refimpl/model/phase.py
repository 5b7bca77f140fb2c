"""Phases of a migration, its ends, and the exit code that each end has (docs/how-it-works.md)."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Phase(StrEnum):
    """Where a migration stands. The last nine are ends; POSTCOPY_PAUSED is one that a recovery goes on from."""

    NEW = "new"
    CHECK = "check"
    SETUP = "setup"
    STORAGE = "storage"
    MEMORY = "memory"
    SWITCH = "switch"
    COMMITTED = "committed"
    POSTCOPY = "post-copy"
    RECONCILE = "reconcile"
    UNDOING = "undoing"
    SETTLING = "settling"
    CLEANUP = "cleanup"
    COMPLETED = "completed"
    COMPLETED_WITH_WARNINGS = "completed-with-warnings"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INDETERMINATE = "indeterminate"
    POSTCOPY_PAUSED = "post-copy-paused"
    LOST = "lost"
    DUAL_RUN = "dual-run"


class Side(StrEnum):
    """Which end of the migration saw a thing: Hyper-V's *at the source* and *at the destination* (R19)."""

    SOURCE = "source"
    DESTINATION = "destination"


class ExitCode(IntEnum):
    """Exit codes of the command line."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    REFUSED = 3
    FAILED = 4
    CANCELLED = 5
    INDETERMINATE = 6
    LOST = 7
    ENVIRONMENT = 8
    DETACHED = 11


EXIT_CODES: dict[Phase, ExitCode] = {
    Phase.COMPLETED: ExitCode.OK,
    Phase.COMPLETED_WITH_WARNINGS: ExitCode.OK,
    Phase.REFUSED: ExitCode.REFUSED,
    Phase.FAILED: ExitCode.FAILED,
    Phase.CANCELLED: ExitCode.CANCELLED,
    Phase.INDETERMINATE: ExitCode.INDETERMINATE,
    Phase.POSTCOPY_PAUSED: ExitCode.INDETERMINATE,
    Phase.LOST: ExitCode.LOST,
    Phase.DUAL_RUN: ExitCode.LOST,
}

ENDS = frozenset(EXIT_CODES)
