"""The experiments of `ci/bench`, by the name that `--only` takes."""

from __future__ import annotations

from collections.abc import Callable

from tests.bench.disks import shared_nothing
from tests.bench.experiments import Bench, compression, convergence, lab_up, payload, start_up, transfer
from tests.bench.hand_over import hand_over

EXPERIMENTS: dict[str, Callable[[Bench], None]] = {
    "start-up": start_up,
    "lab": lab_up,
    "transfer-encrypted": lambda bench: transfer(bench, True),
    "transfer-plain": lambda bench: transfer(bench, False),
    "shared-nothing": shared_nothing,
    "hand-over": hand_over,
    "payload": payload,
    "compression": compression,
    "convergence": convergence,
}
"""`start-up` alone needs no root."""
