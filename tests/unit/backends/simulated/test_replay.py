"""A seed replays a move to the byte, in any process, without the wall clock (rule 8)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.benches import world
from tests.moves import Rig

ROOT = Path(__file__).parents[4]

SCRIPT = """
import sys, time, datetime
def forbidden(*_, **__):
    raise AssertionError("the wall clock was asked for")
for name in ("time", "time_ns", "sleep", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"):
    setattr(time, name, forbidden)
class NoNow(datetime.datetime):
    now = utcnow = classmethod(forbidden)
datetime.datetime = NoNow
from tests.contract.benches import world
from tests.moves import Rig
rig = Rig(world(seed=int(sys.argv[1]), jitter=0.4, faults=[{"kind": "run-refused"}]))
rig.start(kill_at="switch")
first = rig.lines()
rig.recover(after_ms=50)
sys.stdout.write(first + rig.lines())
"""


def lines(seed: int, hash_seed: str) -> str:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(seed)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_seed_replays_to_the_byte_under_any_hash_seed_and_without_a_clock() -> None:
    first = lines(7, "0")
    assert first.count("\n") > 50
    assert all(lines(7, hash_seed) == first for hash_seed in ("1", "4711"))
    assert lines(8, "0") != first


def test_without_jitter_the_seed_does_not_matter() -> None:
    told = []
    for seed in (1, 2):
        rig = Rig(world(seed=seed))
        rig.start()
        told.append(rig.lines())
    assert told[0] == told[1]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_jitter_the_vm_arrives(seed: int) -> None:
    rig = Rig(world(seed=seed, jitter=0.9))
    rig.start()
    assert rig.copies() == {"b": "running"}
