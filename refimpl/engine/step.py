"""The step function: pure, without I/O, clock, threads or knowledge of a backend."""

from __future__ import annotations

from refimpl.engine.phases import TABLE, Row
from refimpl.model.events import Kind
from refimpl.model.phase import Phase


def step(phase: Phase, kind: Kind) -> Row:
    """Return the next phase and the commands. An event without a row changes nothing."""
    return TABLE.get((phase, kind), Row(phase))
