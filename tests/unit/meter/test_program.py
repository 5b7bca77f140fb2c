"""An observer's process: it ends with whoever started it, however that ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from refimpl.hosts.process import alive, here
from refimpl.hosts.wait import until
from refimpl.meter.program import arrived_ns, readable
from refimpl.meter.receiver import Receiver

STARTER = """
import pathlib, sys, time
from refimpl.meter.receiver import Receiver
receiver = Receiver(pathlib.Path(sys.argv[1]), address="127.0.0.1", port=0).await_ready()
print(receiver.process.pid, flush=True)
time.sleep(60)
"""


def test_it_ends_when_its_starter_is_killed(tmp_path: Path):
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path / "samples")], stdout=subprocess.PIPE, text=True
    )
    with starter:
        assert starter.stdout is not None
        observer = here(int(starter.stdout.readline()))
        assert alive(observer)
        starter.kill()
    assert until(lambda: not alive(observer), 20.0, 0.01)


def test_a_person_s_ctrl_c_is_not_meant_for_it(tmp_path: Path):
    with Receiver(tmp_path / "samples", address="127.0.0.1", port=0).await_ready() as observer:
        assert Path(f"/proc/{observer.process.pid}/stat").read_text().split()[4] == str(observer.process.pid)
    assert observer.process.returncode == 0


def test_one_that_does_not_end_by_itself_is_ended(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("refimpl.meter.program._END_S", 0.1)
    with Receiver(tmp_path / "samples", address="127.0.0.1", port=0).await_ready() as observer:
        observer.process.send_signal(signal.SIGSTOP)
    assert observer.process.returncode == -signal.SIGKILL


def test_waiting_ends_with_its_time():
    assert readable((), time.monotonic_ns()) == []


def test_a_message_without_the_kernel_s_time_came_now():
    assert abs(arrived_ns(()) - time.time_ns()) < 60_000_000_000
    assert arrived_ns([(1, 35, (5).to_bytes(8, "little") + (7).to_bytes(8, "little"))]) == 5_000_000_007
