"""Stop points: places at which a test holds a conductor, to kill it there. Nothing else may use them.

`REFIMPL_TEST_STOP` names the point: a phase (`memory`: as soon as it was entered), `intended:<command>` (in the
journal, not yet done) or `given:<command>`. The process writes name and pid to `REFIMPL_TEST_STOP_FILE` and then waits
to be killed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path


def from_environment() -> Callable[[str], None]:
    """Return the stop point that the environment asks for, or one that never stops."""
    wanted, marker = os.environ.get("REFIMPL_TEST_STOP"), os.environ.get("REFIMPL_TEST_STOP_FILE")
    if not wanted or not marker:
        return lambda _: None

    def stop(name: str) -> None:
        if name == wanted:
            unfinished = Path(f"{marker}.new")
            unfinished.write_text(f"{name} {os.getpid()}\n", "ascii")
            unfinished.rename(marker)
            while True:
                signal.pause()

    return stop
