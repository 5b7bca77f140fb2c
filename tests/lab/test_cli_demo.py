"""The demo as a newcomer runs it, and as one who has seen enough stops it: nothing is left either way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from refimpl.lab import leftovers, list_labs
from tests.lab.cli_support import Command
from tests.lab.lab_support import state_directory

pytestmark = pytest.mark.lab


@pytest.fixture
def refimpl(tmp_path: Path) -> Iterator[Command]:
    with state_directory() as root:
        yield Command(root, tmp_path / "home")


def test_the_demo_is_green_and_leaves_nothing(refimpl: Command) -> None:
    done = refimpl("demo", "--json")
    assert done.code == 0, done
    report = done.json["report"]
    assert report["green"] is True
    assert report["left"] == []
    assert leftovers(report["lab"], refimpl.root) == []
    assert not refimpl.home.exists()
    ways = [("h1", "h2"), ("h2", "h1")]
    modes = [(option, encryption) for option in ("TCPIP", "Compression") for encryption in (True, False)]
    outcomes = [move["outcome"] for move in report["moves"]]
    made = [(o["performance_option"], o["encryption"], o["source"], o["destination"]) for o in outcomes]
    assert made == [(*mode, *way) for mode in modes for way in ways]
    for move in report["moves"]:
        figures = {v["name"]: v["figures"] for v in move["verdicts"]}
        guest, network = {"heartbeat", "disk", "memory", "tcp stream"}, {"outside gap", "switch", "wire"}
        assert set(figures) == {"blackout", *guest, *network}
        assert (figures["wire"]["memory_markers"] == 0) == move["outcome"]["encryption"]
        assert figures["outside gap"]["outside_gap_ms"] >= figures["blackout"]["blackout_ms"]
        assert figures["blackout"]["blackout_ms"] == pytest.approx(move["outcome"]["blackout_ms"])


def test_ctrl_c_takes_everything_away(refimpl: Command) -> None:
    with refimpl.running("demo", "--jsonl") as demo:
        demo.wait_for('"started"')
        (lab,) = [summary.id for summary in list_labs(refimpl.root)]
        demo.ctrl_c()
        done = demo.end()
    assert done.code == 130, done
    assert leftovers(lab, refimpl.root) == []
    assert list_labs(refimpl.root) == ()
    assert json.loads(done.out.splitlines()[-1]) == {
        "kind": "step",
        "step": "lab down",
        "took_s": pytest.approx(0, abs=60),
    }
