"""Reading frames, and finding markers in them, without a network."""

from __future__ import annotations

import pytest

from refimpl.meter.arp import answers, question
from refimpl.meter.frames import Segment, frame_type, mac_bytes, tcp_segment
from refimpl.meter.markers import MarkerFinder
from tests.unit.meter.packets import ethernet, tcp_frame

MARKER = bytes(range(16))
VM, OWN = mac_bytes("52:54:00:00:00:01"), mac_bytes("02:00:00:00:00:01")
GUEST, ASKER = bytes([10, 90, 2, 50]), bytes([10, 90, 2, 1])


def segment(frame: bytes) -> Segment:
    found = tcp_segment(memoryview(frame))
    assert found is not None
    return found


@pytest.mark.parametrize("ipv6", [False, True])
def test_a_segment_is_read_without_the_padding_of_a_short_frame(ipv6):
    found = segment(tcp_frame(b"payload", 77, ipv6=ipv6, padding=9))
    assert (found.sequence, bytes(found.payload)) == (77, b"payload")
    assert len(found.flow[0]) == (18 if ipv6 else 6)


def test_a_frame_too_big_for_its_length_field_is_read_to_its_end():
    frame = bytearray(tcp_frame(b"x" * 70))
    frame[16:18] = b"\0\0"
    assert len(segment(bytes(frame)).payload) == 70


def test_other_frames_hold_no_segment():
    udp = bytearray(tcp_frame(b"x" * 20))
    udp[23] = 17
    for frame in (bytes(udp), question(OWN, ASKER, VM, GUEST), tcp_frame(b"")[:30], b""):
        assert tcp_segment(memoryview(frame)) is None


def test_the_type_of_a_frame_is_told():
    asked = question(OWN, ASKER, VM, GUEST)
    assert frame_type(asked) == "arp"
    assert frame_type(question(OWN, GUEST, VM, GUEST)) == "announcement"
    assert frame_type(ethernet(VM, OWN, 0x8035, bytes(46))) == "rarp"
    assert frame_type(tcp_frame(b"")) == "ipv4"
    assert frame_type(ethernet(VM, OWN, 0x88B5, bytes(46))) == "other"


def test_only_the_answer_of_the_one_who_was_asked_counts():
    asked = question(OWN, ASKER, VM, GUEST)
    answer = asked[:20] + b"\0\2" + VM + GUEST + OWN + ASKER
    assert answers(answer, GUEST)
    assert not answers(answer, ASKER)
    assert not answers(asked, GUEST)
    assert not answers(answer[:30], GUEST)


@pytest.mark.parametrize("text", ["", "52:54:00:00:00", "52:54:00:00:00:0g"])
def test_what_is_no_mac_address_is_refused(text):
    with pytest.raises(ValueError):
        mac_bytes(text)


def count(*frames: bytes) -> int:
    finder = MarkerFinder({"memory": MARKER, "disk": MARKER[::-1]})
    return sum(finder.feed(segment(frame)).get("memory", 0) for frame in frames)


@pytest.mark.parametrize("cut", range(1, 16))
def test_a_marker_that_two_segments_share_is_found_once(cut):
    first, second = b"before" + MARKER[:cut], MARKER[cut:] + b"after"
    assert count(tcp_frame(first, 100), tcp_frame(second, 100 + len(first))) == 1


def test_a_marker_in_bytes_that_come_one_by_one_is_found_across_the_wrap_of_the_numbers():
    start = (1 << 32) - 5
    assert count(*(tcp_frame(MARKER[i : i + 1], (start + i) % (1 << 32)) for i in range(16))) == 1


def test_parts_that_do_not_belong_together_make_no_marker():
    first, second = MARKER[:8], MARKER[8:]
    assert count(tcp_frame(first, 1), tcp_frame(second, 10)) == 0
    assert count(tcp_frame(first, 1), tcp_frame(second, 9, port=1)) == 0
    assert count(tcp_frame(first, 1, port=1), tcp_frame(b"", 9, port=1), tcp_frame(second, 9, port=1)) == 1


def test_every_marker_of_a_segment_is_counted_and_each_by_its_name():
    finder = MarkerFinder({"memory": MARKER, "disk": MARKER[::-1]})
    payload = MARKER * 3 + b"x" + MARKER[::-1]
    assert finder.feed(segment(tcp_frame(payload))) == {"memory": 3, "disk": 1}


def test_without_markers_nothing_is_kept():
    finder = MarkerFinder({})
    assert finder.feed(segment(tcp_frame(bytes(1000)))) == {}
    assert not finder._ends


def test_no_more_is_kept_than_the_ends_of_the_newest_flows():
    finder = MarkerFinder({"memory": MARKER})
    for port in range(1000):
        finder.feed(segment(tcp_frame(MARKER[:8] + bytes(1000) + MARKER[:8], port=port)))
    assert finder.feed(segment(tcp_frame(MARKER[8:], 1017, port=999))) == {"memory": 1}
    assert finder.feed(segment(tcp_frame(MARKER[8:], 1017, port=1))) == {}
    assert sum(len(end) for _, end in finder._ends.values()) <= 256 * 15
