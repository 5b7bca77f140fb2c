from __future__ import annotations

import pytest

from refimpl.meter.records import RECORD_BYTES, Found, RecordReader, record

STREAM = b"".join(record(number) for number in range(1, 6))


def read(*pieces: bytes) -> list[Found]:
    reader = RecordReader()
    return [found for piece in pieces for found in reader.feed(piece)]


@pytest.mark.parametrize("size", [1, 7, RECORD_BYTES, len(STREAM)])
def test_records_are_read_however_the_stream_is_cut(size):
    pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    assert read(*pieces) == [Found("record", number) for number in range(1, 6)]


def test_missing_records_are_a_gap_of_their_number():
    assert read(STREAM[:RECORD_BYTES] + STREAM[3 * RECORD_BYTES :])[1:3] == [Found("gap", 2, 2), Found("record", 4)]


@pytest.mark.parametrize("again", [1, 2])
def test_a_record_that_comes_again_is_a_duplicate(again):
    assert read(record(1), record(2), record(again), record(3))[2:] == [Found("duplicate", 3), Found("record", 3)]


def test_bytes_that_nobody_sent_are_counted_and_left():
    torn = STREAM[:RECORD_BYTES] + STREAM[RECORD_BYTES + 5 :]
    assert read(torn) == [
        Found("record", 1),
        Found("unreadable", 2, RECORD_BYTES - 5),
        Found("gap", 2),
        *(Found("record", number) for number in range(3, 6)),
    ]
