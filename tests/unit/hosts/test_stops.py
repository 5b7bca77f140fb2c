"""Stop points hold a process exactly where a test asked for it, until it is killed or let go on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = (
    "from refimpl.hosts.stops import stop_point\n"
    "stop_point('before'); print('before', flush=True); stop_point('here'); print('after', flush=True)\n"
)


@contextmanager
def held(marker: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {
        "REFIMPL_TEST_STOP": "here",
        "REFIMPL_TEST_STOP_FILE": str(marker),
        "REFIMPL_TEST_STOPS_PASSED": f"{marker}.passed",
        "PYTHONPATH": ".",
    }
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        for _ in range(400):
            if marker.exists():
                break
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        assert marker.read_text() == f"here {process.pid}\n"
        yield process
    finally:
        process.kill()
        process.wait()


def test_held_there_and_nowhere_else(tmp_path: Path) -> None:
    with held(tmp_path / "marker") as process:
        process.kill()
        assert process.communicate()[0] == "before\n"
    assert (tmp_path / "marker.passed").read_text() == "before\nhere\n"


def test_let_go_on(tmp_path: Path) -> None:
    with held(tmp_path / "marker") as process:
        (tmp_path / "marker.go").touch()
        assert process.communicate(timeout=20)[0] == "before\nafter\n"
