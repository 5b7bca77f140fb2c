"""Frames made by hand."""

from __future__ import annotations

import socket
import struct

SOURCE, TARGET = "10.90.1.11", "10.90.1.12"


def ethernet(target: bytes, source: bytes, kind: int, payload: bytes) -> bytes:
    return target + source + struct.pack(">H", kind) + payload


def tcp_frame(payload: bytes, sequence: int = 1, *, port: int = 49152, ipv6: bool = False, padding: int = 0) -> bytes:
    """A TCP segment from one host's migration address to the other's; its checksums are not right."""
    tcp = struct.pack(">HHIIBBHHH", port, 49153, sequence, 0, 5 << 4, 0x18, 8192, 0, 0) + payload
    if ipv6:
        ends = socket.inet_pton(socket.AF_INET6, "fd00::11") + socket.inet_pton(socket.AF_INET6, "fd00::12")
        head = struct.pack(">IHBB", 6 << 28, len(tcp), 6, 64) + ends
    else:
        ends = socket.inet_aton(SOURCE) + socket.inet_aton(TARGET)
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + ends
    return ethernet(b"\xff" * 6, b"\x02" + bytes(5), 0x86DD if ipv6 else 0x0800, head + tcp + bytes(padding))
