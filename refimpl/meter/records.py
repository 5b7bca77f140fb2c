"""The bytes of the TCP stream: numbered records, and a reader that says what is missing, doubled or not readable.

A record is 16 bytes, big-endian: magic `REFS`, number (8 bytes, from 1 on), CRC-32 of the twelve bytes before.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

RECORD_BYTES = 16
_MAGIC = b"REFS"
_RECORD = struct.Struct(">4sQI")

What = Literal["record", "gap", "duplicate", "unreadable"]


@dataclass(frozen=True, slots=True)
class Found:
    """What the reader met: a record of a number, or what is wrong before the next one and how many (records, bytes)."""

    what: What
    number: int
    count: int = 1


def record(number: int) -> bytes:
    """Return the record of a number."""
    head = struct.pack(">4sQ", _MAGIC, number)
    return head + struct.pack(">I", zlib.crc32(head))


class RecordReader:
    """Reads records from a stream of bytes that come in pieces; it finds its way again after bytes that are none."""

    def __init__(self) -> None:
        self._left = b""
        self._expected = 1
        self._unreadable = 0

    def feed(self, data: bytes) -> Iterator[Found]:
        """Take more of the stream and yield what is in it, in order."""
        self._left += data
        while len(self._left) >= RECORD_BYTES:
            magic, number, crc = _RECORD.unpack_from(self._left)
            if magic != _MAGIC or zlib.crc32(self._left[:12]) != crc:
                self._left, self._unreadable = self._left[1:], self._unreadable + 1
                continue
            self._left = self._left[RECORD_BYTES:]
            yield from self._judge(number)

    def _judge(self, number: int) -> Iterator[Found]:
        if self._unreadable:
            yield Found("unreadable", self._expected, self._unreadable)
            self._unreadable = 0
        if number < self._expected:
            yield Found("duplicate", self._expected)
            return
        if number > self._expected:
            yield Found("gap", self._expected, number - self._expected)
        yield Found("record", number)
        self._expected = number + 1
