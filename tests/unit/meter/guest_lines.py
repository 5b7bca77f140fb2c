"""Make what a guest would write, for the tests of the observers."""

from __future__ import annotations

import struct
import zlib

from refimpl.meter.disk import MAGIC
from refimpl.meter.lines import JoinedLog, join

BOOT = "a1b2c3"


def line(sequence: int, text: str, boot: str = BOOT) -> bytes:
    body = f"{boot} {sequence} {text}".encode()
    return b"~%s *%08x\n" % (body, zlib.crc32(body))


def beats(first: int, last: int, boot: str = BOOT) -> list[bytes]:
    """Lines whose own number is that of their heartbeat."""
    return [line(number, f"beat {number}", boot) for number in range(first, last + 1)]


def said(*texts: str, boot: str = BOOT, first: int = 1) -> list[bytes]:
    return [line(first + i, text, boot) for i, text in enumerate(texts)]


def log_of(**hosts: list[bytes]) -> JoinedLog:
    return join({host: b"".join(lines) for host, lines in hosts.items()})


def block(number: int, slot: int, boot: str = BOOT) -> bytes:
    """A disk block as the guest writes it."""
    head = struct.pack("<8s6s2xQQ", MAGIC, boot.encode(), number, slot)
    body = bytes(4) + bytes((number + i) % 256 for i in range(4096 - 40))
    return head + struct.pack("<I", zlib.crc32(head + bytes(4) + body)) + body


def block_crc(data: bytes) -> int:
    return int(struct.unpack_from("<I", data, 32)[0])
