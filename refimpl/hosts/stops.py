"""Stop points: places at which a test holds a process, to kill it there or to let it go on. Nothing else may use them.

`REFIMPL_TEST_STOP` names the point. The process writes name and pid to the file that `REFIMPL_TEST_STOP_FILE` names,
and waits until it is killed or until a file of that name with `.go` behind it exists. A conductor's points are its
phases (`memory`: as soon as it was entered), `intended:<command>` (in the journal, not yet done), `given:<command>`,
`entry:<phase>:<what>` (an entry of its journal was written); `probing`: its probe's files are there.
`REFIMPL_TEST_STOPS_PASSED` names a file to which every point is written that the process comes to.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

STOP_VARIABLE = "REFIMPL_TEST_STOP"
STOP_FILE_VARIABLE = "REFIMPL_TEST_STOP_FILE"
PASSED_VARIABLE = "REFIMPL_TEST_STOPS_PASSED"
LOOK_AGAIN_S = 0.01


def stop_point(name: str) -> None:
    """Wait here when a test asked for it; the marker file appears complete or not at all."""
    passed = os.environ.get(PASSED_VARIABLE)
    if passed:
        with open(passed, "a", encoding="utf-8") as file:
            file.write(f"{name}\n")
    marker = os.environ.get(STOP_FILE_VARIABLE)
    if os.environ.get(STOP_VARIABLE) != name or not marker:
        return
    unfinished = Path(f"{marker}.new")
    unfinished.write_text(f"{name} {os.getpid()}\n", "utf-8")
    unfinished.rename(marker)
    while not Path(f"{marker}.go").exists():
        time.sleep(LOOK_AGAIN_S)
