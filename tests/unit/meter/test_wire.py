from __future__ import annotations

from refimpl.meter.verdict import State, Verdict
from refimpl.meter.wire import counted_until, markers_of, wire_verdict

SENT = 100 << 20


def count(port: str, size: int, at_ns: int = 9, dropped: int = 0, **found: int) -> dict:
    return {
        "kind": "count",
        "at_ns": at_ns,
        "port": port,
        "frames": 9,
        "bytes": size,
        "dropped": dropped,
        "found": found,
    }


def judged(*samples: dict, encrypted: bool = True, sent_bytes: int | None = SENT, marked: bool = True) -> Verdict:
    return wire_verdict(samples, ["p1", "q1"], encrypted=encrypted, sent_bytes=sent_bytes, marked=marked)


def test_an_encrypted_move_that_was_seen_and_held_no_marker_is_good():
    found = judged(count("p1", 5), count("p1", SENT - 10), count("q1", 10), count("p2", 100))
    assert (found.state, found.figures["seen_bytes"], found.figures["memory_markers"]) == (State.OK, SENT, 0)


def test_frames_that_were_missed_are_told():
    assert "3 frames missed" in judged(count("p1", SENT, dropped=2), count("p2", 1, dropped=1)).text


def test_one_marker_at_any_port_of_an_encrypted_move_is_bad():
    assert judged(count("p1", SENT), count("p2", 1, disk=1)).state is State.BAD
    assert judged(count("p1", 1, memory=1)).state is State.BAD


def test_of_an_encrypted_move_that_was_not_seen_nothing_is_said():
    for samples in ((), [count("p2", SENT)], [count("p1", SENT // 2, dropped=1)]):
        assert judged(*samples).state is State.NOT_MEASURED
    assert judged(count("p1", SENT), sent_bytes=None).state is State.NOT_MEASURED
    assert judged(count("p1", SENT), marked=False).state is State.NOT_MEASURED


def test_a_plain_move_is_good_when_its_markers_are_seen_for_so_the_observer_sees():
    found = judged(count("p1", SENT, memory=2000, disk=3), encrypted=False)
    assert (found.state, found.figures["memory_markers"], found.figures["disk_markers"]) == (State.OK, 2000, 3)
    assert judged(count("p1", SENT), encrypted=False).state is State.NOT_MEASURED


def test_it_was_counted_until_the_port_that_was_counted_first():
    assert counted_until([count("p1", 1, 10), count("p2", 1, 5), count("p2", 1, 12)]) == 10
    assert counted_until([]) == 0


def test_the_disk_s_marker_is_not_the_memory_s():
    assert markers_of("0f" * 16) == {"memory": "0f" * 16, "disk": "f0" * 16}
