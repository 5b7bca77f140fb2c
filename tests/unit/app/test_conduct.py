"""Where a conductor process begins: a move's hand-over is that of its journal, its plan, its request or its backend."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from refimpl.app import conduct
from refimpl.engine.backend import WORKER, Capabilities
from refimpl.engine.journal import FileJournal
from refimpl.model.ledger import Ledger
from refimpl.model.request import HandOver
from tests.builders import plan, request

STRICT, DELEGATED = HandOver.STRICT, HandOver.DELEGATED
CAN = Capabilities(STRICT, *[True] * 6, others=(DELEGATED,))


def standing(directory: Path, asked: HandOver | None, kept: HandOver | None) -> Ledger:
    wish = request(hand_over=asked).to_json()
    spec: dict[str, Any] = {"operation": "0a1b2c3d", "group": {"id": "0a1b2c", "name": "lab"}, "request": wish}
    if kept is not None:
        spec["plan"] = plan(hand_over=kept).to_json()
    with closing(FileJournal(directory / "journal")) as journal:
        return conduct._standing(spec, journal, CAN)[1]


@pytest.mark.parametrize(
    ("asked", "kept", "chosen"),
    [
        (None, None, STRICT),
        (DELEGATED, None, DELEGATED),
        (STRICT, None, STRICT),
        (None, DELEGATED, DELEGATED),
        (DELEGATED, STRICT, STRICT),
    ],
)
def test_a_kept_plan_counts_more_than_the_request_and_that_more_than_the_backends_own(
    tmp_path: Path, asked: HandOver | None, kept: HandOver | None, chosen: HandOver
) -> None:
    assert standing(tmp_path, asked, kept).hand_over is chosen


DIES = """
import threading
from refimpl.app import conduct
threading.excepthook = conduct._end_with_worker
thread = threading.Thread(target=lambda: {}["a defect"], name=NAME)
thread.start()
thread.join()
raise SystemExit(42)
"""


@pytest.mark.parametrize(("name", "code"), [(f"{WORKER}0a1b2c3d", 1), ("control", 42)])
def test_a_worker_of_the_backend_that_dies_of_a_defect_ends_the_conductor_as_if_killed(name: str, code: int) -> None:
    ended = subprocess.run([sys.executable, "-c", DIES.replace("NAME", repr(name))], capture_output=True, text=True)
    assert (ended.returncode, "KeyError: 'a defect'" in ended.stderr) == (code, True), ended.stderr
