"""Words and numbers as people read them: what the phases are, and figures with their units."""

from __future__ import annotations

from collections.abc import Mapping

from refimpl.checks.post_copy import RISK
from refimpl.model.phase import Phase

PHASE_TEXTS: Mapping[Phase, str] = {
    Phase.CHECK: "compatibility check on both hosts",
    Phase.SETUP: "connection, planned VM and its memory at the destination",
    Phase.STORAGE: "disks are copied while the VM runs",
    Phase.MEMORY: "memory is copied while the VM runs (brownout)",
    Phase.SWITCH: "the VM stands still: last pages, CPU and device state (blackout)",
    Phase.COMMITTED: "the source is bound to end, the destination may run",
    Phase.POSTCOPY: "the VM runs at the destination, its memory follows page by page",
    Phase.RECONCILE: "looking at both hosts for what is true",
    Phase.UNDOING: "putting everything back as it was",
    Phase.SETTLING: "keeping what is left of the VM",
    Phase.CLEANUP: "removing the source's copy and what the move had made",
}
"""What happens in each phase that takes time."""

POST_COPY_RISK = RISK
"""What post-copy risks, in the words of the check."""

NOT_MEASURED = "not measured"
MIB = 1024 * 1024
_BYTE_UNITS = (("GiB", 1024**3), ("MiB", MIB), ("KiB", 1024), ("B", 1))


def duration(ms: float | None) -> str:
    """Return milliseconds with a unit that fits: `0.43 ms`, `12.4 ms`, `3.21 s`, `2 min 05 s`."""
    if ms is None:
        return NOT_MEASURED
    if ms < 1000:
        return f"{ms:.2f} ms" if 0 < ms < 10 else f"{ms:.1f} ms"
    if ms < 120_000:
        return f"{ms / 1000:.2f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    return f"{minutes} min {seconds:02d} s"


def size(count: float | None) -> str:
    """Return bytes in MiB, or in GiB from ten of them on."""
    if count is None:
        return NOT_MEASURED
    return f"{count / 1024**3:.2f} GiB" if count >= 10 * 1024**3 else f"{count / MIB:.1f} MiB"


def byte_unit(largest: float) -> tuple[str, int]:
    """Return the unit in which an axis up to `largest` bytes is best read, and how many bytes it is."""
    return next(((name, count) for name, count in _BYTE_UNITS if largest >= count), _BYTE_UNITS[-1])


def number(value: float) -> str:
    """Return a number for an axis: no digits that say nothing."""
    return f"{value:.6f}".rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"


def label(name: str) -> str:
    """Return a name of a value (`pass_limit`, `source-owns`) as words."""
    return name.replace("_", " ").replace("-", " ")
