"""The runs of `ci/model`: which guards within which bounds, and what has to be found: nothing, or what follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from refimpl.engine.phases import Row
from refimpl.engine.step import step as table_step
from refimpl.model.events import Kind
from refimpl.model.phase import Phase
from refimpl.model.request import CommandKind
from tests.handover_model.checker import Result, check, told
from tests.handover_model.mind import Step
from tests.handover_model.model import DUAL, FILE_GONE, THROWN, TWO_HISTORIES, Bounds, Model
from tests.handover_model.world import Options

DELEGATED, LEASED = Options(strict=False), Options(strict=False, lease=True)
SHARED = Options(strict=False, shared_image=True)
STRICT, BOTH = Options(), Options(lease=True)
DISKS = Options(disks=True)
SEES_ALL = Options(death_binds=False)
"""A controller that misses nothing of a source that runs again, however short."""
BLIND = Options(death_binds=False, removes_blindly=True)
DAEMONS = ("freeze", "crash", "link")


@dataclass(frozen=True)
class Run:
    """One run. `finds`: the violation that it has to find, None for none. `quick`: also without the big bounds."""

    guards: str
    options: Options
    bounds: Bounds
    finds: str | None = None
    quick: bool = False
    step: Step = table_step


def _on_arrival(phase: Phase, kind: Kind) -> Row:
    """Let the destination run as soon as it has arrived."""
    if kind is Kind.DESTINATION_ARRIVED and phase in (Phase.MEMORY, Phase.SWITCH):
        return Row(Phase.COMMITTED, (CommandKind.RECORD_COMMIT,))
    return table_step(phase, kind)


def _at_commit(phase: Phase, kind: Kind) -> Row:
    """Remove the source's disks once the commit is recorded, and only then let the destination run."""
    if (phase, kind) == (Phase.COMMITTED, Kind.COMMIT_RECORDED):
        return Row(Phase.COMMITTED, (CommandKind.CLEAN_UP_MOVED, CommandKind.ALLOW_RUN))
    return table_step(phase, kind)


_ONE, _TWO = Bounds(faults=1, kinds=DAEMONS), Bounds(faults=2, kinds=DAEMONS)
_BUSY = replace(_ONE, deaths=1, hasty=1, cancels=1)


RUNS: Mapping[str, Run] = {
    "none": Run("none", DELEGATED, _ONE, DUAL, quick=True),
    "lease": Run("lease", LEASED, _ONE, quick=True),
    "image": Run("image lock", SHARED, _ONE, quick=True),
    "strict": Run("strict", STRICT, _ONE, quick=True),
    "both": Run("strict, lease", BOTH, _ONE, quick=True),
    "strict-qemu": Run("strict", STRICT, Bounds(kinds=("qemu",), deaths=1), quick=True),
    "lease-qemu": Run("lease", LEASED, Bounds(kinds=("qemu",)), TWO_HISTORIES, quick=True),
    "on-arrival": Run("strict, let run on arrival", STRICT, _ONE, DUAL, quick=True, step=_on_arrival),
    "ends-silent": Run("strict, silent source ended", Options(ends_silent=True), _ONE),
    "kill-in-finish": Run(
        "strict, source ended in finish3",
        Options(kill_in_finish=True),
        _ONE,
        THROWN,
        quick=True,
    ),
    "strict-looks": Run("strict", STRICT, replace(_ONE, apart=True), quick=True),
    "strict-busy": Run("strict", STRICT, replace(_BUSY, kinds=("crash",))),
    "lease-busy": Run("lease", LEASED, replace(_BUSY, kinds=("crash",))),
    "disks": Run("strict, disks", DISKS, _ONE, quick=True),
    "disks-qemu": Run("strict, disks", DISKS, Bounds(kinds=("qemu",), deaths=1), quick=True),
    "disks-busy": Run("strict, disks", DISKS, replace(_BUSY, kinds=("crash",))),
    "disks-lease": Run("lease, disks", Options(strict=False, lease=True, disks=True), _ONE),
    "disks-early": Run(
        "strict, disks, removed at the commit", DISKS, Bounds(faults=0), FILE_GONE, quick=True, step=_at_commit
    ),
    "power": Run("strict", STRICT, Bounds(kinds=("power",), deaths=1), quick=True),
    "orders": Run("strict", STRICT, Bounds(kinds=("order",), deaths=1, cancels=1), quick=True),
    "strict-2": Run("strict", STRICT, _TWO),
    "lease-2": Run("lease", LEASED, _TWO),
    "both-2": Run("strict, lease", BOTH, Bounds(faults=2, kinds=("crash", "lock"))),
    "lease-lock": Run("lease", LEASED, Bounds(faults=2, kinds=("freeze", "lock")), DUAL),
    "dies-later": Run("strict", STRICT, Bounds(faults=2, kinds=("freeze", "qemu")), TWO_HISTORIES),
    "dies-then": Run("strict, removes blindly", BLIND, Bounds(faults=2, kinds=("crash", "qemu")), THROWN),
    "dies-later-seen": Run("strict, sees all", SEES_ALL, Bounds(faults=2, kinds=("freeze", "qemu"))),
    "dies-then-seen": Run("strict, sees all", SEES_ALL, Bounds(faults=2, kinds=("crash", "qemu"))),
}


def carry_out(name: str) -> tuple[Result, str]:
    """Check a run; return what was found, and how it comes about."""
    run = RUNS[name]
    model = Model(run.options, run.bounds, run.step)
    result = check(model)
    return replace(result, trace=[]), told(model, result.trace) if result.trace else ""
