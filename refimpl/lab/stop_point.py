"""For tests only: a place at which the program can be made to stand still, so that it can be killed exactly there.

With REFIMPL_TEST_STOP=<name of the place> in the environment, the program writes that name to the file that
REFIMPL_TEST_STOP_FILE names and then waits for ever. Without the variable nothing happens.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

STOP_VARIABLE = "REFIMPL_TEST_STOP"
STOP_FILE_VARIABLE = "REFIMPL_TEST_STOP_FILE"


def stop_point(name: str) -> None:
    """Stand still here when a test asked for it; the marker file appears complete or not at all."""
    if os.environ.get(STOP_VARIABLE) != name:
        return
    marker = Path(os.environ[STOP_FILE_VARIABLE])
    unfinished = marker.with_suffix(".new")
    unfinished.write_text(name, encoding="utf-8")
    unfinished.rename(marker)
    threading.Event().wait()
