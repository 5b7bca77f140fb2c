"""Where the VM is on the switch: the verdict on samples made by hand (R16), and the netlink messages behind them."""

from __future__ import annotations

import struct

import pytest

from refimpl.meter.neighbours import Entry, entries
from refimpl.meter.switch import seen_at, switch_verdict
from refimpl.meter.verdict import State

pytestmark = pytest.mark.rule("R16")
MS = 1_000_000
STOPPED, RAN = 1000 * MS, 1100 * MS
PORTS = ("p1", "p2")


def learned(at_ms: float, port: str) -> dict:
    return {"kind": "learned", "at_ns": int(at_ms * MS), "port": port}


def frame(at_ms: float, port: str, type: str = "ipv4") -> dict:
    return {"kind": "frame", "at_ns": int(at_ms * MS), "port": port, "type": type}


def move() -> list[dict]:
    """Learned at the source, its last frame just before STOP, then a RARP and the VM's own at the destination."""
    return [
        learned(1, "p1"),
        *(frame(at, "p1") for at in range(10, 1000, 10)),
        frame(1100.2, "p2", "rarp"),
        learned(1100.5, "p2"),
        *(frame(at, "p2") for at in range(1105, 1500, 10)),
    ]


def judged(samples: list[dict]):
    return switch_verdict(samples, PORTS, STOPPED, RAN)


def test_a_move_in_which_one_port_speaks_after_the_other_is_good():
    found = judged(move())
    assert (found.state, found.figures["told_by"], found.figures["announcements"]) == (State.OK, "rarp", 1)
    assert found.figures["mac_relearned_ms"] == pytest.approx(0.5)
    assert found.figures["first_frame_ms"] == pytest.approx(0.2)
    assert found.figures["last_frame_ms"] == pytest.approx(-10)
    assert "0.5 ms after RESUME, told by a RARP frame" in found.text


def test_a_frame_before_resume_is_bad():
    found = judged([*move()[:-41], frame(1099.9, "p2", "rarp"), *move()[-41:]])
    assert (found.state, found.figures["frames_before_resume"]) == (State.BAD, 1)


def test_two_ports_at_once_are_bad():
    found = judged([*move(), frame(1200, "p1")])
    assert (found.state, found.figures["frames_from_both"]) == (State.BAD, 1)


def test_a_switch_that_has_it_elsewhere_in_the_end_is_bad():
    found = judged([*move(), learned(1300, "p1")])
    assert found.state is State.BAD
    assert "has the VM's address at p1, not at p2" in found.text


def test_what_was_not_seen_before_or_after_is_not_measured():
    assert judged(move()[1:]).state is State.NOT_MEASURED
    assert judged([learned(1, "p3"), *move()[1:]]).state is State.NOT_MEASURED
    assert judged([s for s in move() if s["port"] == "p1"]).state is State.NOT_MEASURED
    assert not seen_at(move(), "p3")
    assert not seen_at([s for s in move() if s["kind"] == "frame"], "p2")
    assert seen_at(move(), "p2")


def message(kind: int, family: int, link: int, *attributes: tuple[int, bytes]) -> bytes:
    body = struct.pack("=BBHiHBB", family, 0, 0, link, 0, 0, 0)
    for name, value in attributes:
        body += struct.pack("=HH", 4 + len(value), name) + value + bytes(-len(value) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


def test_what_the_kernel_says_of_bridges_is_read_and_nothing_else():
    mac = b"\x52\x54\0\0\0\1"
    data = (
        message(28, 7, 5, (9, b"\1\0\0\0"), (2, mac))
        + message(29, 7, 4, (2, mac))
        + message(28, 2, 3, (1, b"\n\0\0\1"), (2, mac))
        + message(28, 7, 5, (9, b"\1\0\0\0"))
        + struct.pack("=IHHII", 20, 3, 0, 1, 0)
        + bytes(4)
    )
    assert list(entries(data)) == [Entry(mac, 5, True), Entry(mac, 4, False)]
    assert list(entries(data[:-1] + bytes(3))) == list(entries(data))
    assert list(entries(struct.pack("=IHHII", 0, 28, 0, 1, 0))) == []
