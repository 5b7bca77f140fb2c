"""What this machine can do, in a few figures that stand beside every measured time: they tell slow machines apart."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass
from typing import Any

import psutil

LOOPS = 1_000_000


@dataclass(frozen=True, slots=True)
class Machine:
    """Cores that this process may use, memory in MiB, and how long a fixed loop takes here in milliseconds."""

    cores: int
    memory_mib: int
    loop_ms: float
    system: str
    python: str

    @property
    def text(self) -> str:
        """One line."""
        return (
            f"{self.cores} cores, {self.memory_mib} MiB, {self.system}, Python {self.python}, "
            f"calibration loop {self.loop_ms:.0f} ms"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def machine() -> Machine:
    """Measure this machine; takes a fraction of a second."""
    allowed = getattr(os, "sched_getaffinity", None)
    return Machine(
        cores=len(allowed(0)) if allowed else os.cpu_count() or 1,
        memory_mib=psutil.virtual_memory().total // 2**20,
        loop_ms=min(_loop_ms() for _ in range(3)),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def _loop_ms() -> float:
    begin, total = time.perf_counter(), 0
    for number in range(LOOPS):
        total += number & 7
    return (time.perf_counter() - begin) * 1000
