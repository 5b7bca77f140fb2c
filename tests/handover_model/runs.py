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
from tests.handover_model.faults import KINDS
from tests.handover_model.mind import Step
from tests.handover_model.model import DUAL, THROWN, TWO_HISTORIES, Bounds, Model
from tests.handover_model.world import Options

DELEGATED, LEASED = Options(strict=False), Options(strict=False, lease=True)
SHARED = Options(strict=False, shared_image=True)
STRICT, BOTH = Options(), Options(lease=True)
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


_ONE, _TWO = Bounds(faults=1, kinds=DAEMONS), Bounds(faults=2, kinds=DAEMONS)
_BUSY = replace(_ONE, deaths=1, hasty=1, cancels=1)
_AFTER_DEATH = Options(death_binds=False, removes_blindly=False)

RUNS: Mapping[str, Run] = {
    "none": Run("none", DELEGATED, _ONE, DUAL, quick=True),
    "lease": Run("lease", LEASED, _ONE, quick=True),
    "image": Run("image lock", SHARED, _ONE, quick=True),
    "strict": Run("strict", STRICT, _ONE, quick=True),
    "both": Run("strict, lease", BOTH, _ONE, quick=True),
    "strict-qemu": Run("strict", STRICT, Bounds(kinds=("qemu",), deaths=1), quick=True),
    "lease-qemu": Run("lease", LEASED, Bounds(kinds=("qemu",)), TWO_HISTORIES, quick=True),
    "on-arrival": Run("strict, let run on arrival", STRICT, _ONE, DUAL, quick=True, step=_on_arrival),
    "kill-in-finish": Run(
        "strict, source ended in finish3",
        Options(kill_in_finish=True),
        _ONE,
        THROWN,
        quick=True,
    ),
    "strict-looks": Run("strict", STRICT, replace(_BUSY, apart=True)),
    "both-busy": Run("strict, lease", BOTH, replace(_BUSY, kinds=KINDS)),
    "lease-busy": Run("lease", LEASED, _BUSY),
    "lease-2": Run("lease", LEASED, _TWO),
    "image-2": Run("image lock", SHARED, _TWO),
    "strict-2": Run("strict", STRICT, _TWO),
    "both-2": Run("strict, lease", BOTH, replace(_TWO, kinds=("freeze", "crash", "lock"))),
    "lease-lock": Run("lease", LEASED, Bounds(faults=2, kinds=("freeze", "lock")), DUAL),
    "strict-dies": Run("strict", STRICT, Bounds(faults=2, kinds=("freeze", "qemu")), TWO_HISTORIES),
    "mended-dies": Run(
        "strict, a death binds only if seen", _AFTER_DEATH, Bounds(faults=2, kinds=("freeze", "crash", "qemu"))
    ),
}


def carry_out(name: str) -> tuple[Result, str]:
    """Check a run; return what was found, and how it comes about."""
    run = RUNS[name]
    model = Model(run.options, run.bounds, run.step)
    result = check(model)
    return replace(result, trace=[]), told(model, result.trace) if result.trace else ""
