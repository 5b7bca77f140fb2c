"""Frames on a link, as a packet socket hands them over: opening such sockets, and reading the frames' headers."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from refimpl.meter.program import SO_TIMESTAMPNS

_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_EVERY_PROTOCOL = 3
_OUTGOING = 4
_VLAN, _ARP, _RARP, _IPV4, _IPV6 = 0x8100, 0x0806, 0x8035, 0x0800, 0x86DD
_TCP = 6
_LOAD_HALF, _LOAD_WORD, _EQUAL, _RETURN = 0x28, 0x20, 0x15, 0x06


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment: both ends as they stand in its headers, sequence number, payload."""

    flow: tuple[bytes, bytes]
    sequence: int
    payload: memoryview


def mac_bytes(mac: str) -> bytes:
    """Return the six bytes of a MAC address such as `52:54:00:00:00:01`; ValueError when it is none."""
    found = bytes.fromhex(mac.replace(":", ""))
    if len(found) != 6:
        raise ValueError(f"not a MAC address: {mac!r}")
    return found


def open_link(link: str, *, buffer_bytes: int, source_mac: bytes | None = None) -> socket.socket:
    """Return a packet socket on a link, with the kernel's times of arrival; needs root. OSError.

    `source_mac`: only frames that this address sent.
    """
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
        if source_mac is not None:
            _attach(sock, _from(source_mac))
        sock.bind((link, _EVERY_PROTOCOL))
    except OSError:
        sock.close()
        raise
    return sock


def came_in(address: Sequence[object]) -> bool:
    """Tell whether a frame came in by the link, from what `recvmsg` says of where it was; else it went out there."""
    return address[2] != _OUTGOING


def dropped(sock: socket.socket) -> int:
    """Return how many frames the kernel dropped at this socket since it was asked last."""
    _, drops = struct.unpack("II", sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    return int(drops)


def frame_type(frame: bytes) -> str:
    """Return what a frame is: `rarp`, `announcement` (ARP about its own address), `arp`, `ipv4`, `ipv6`, `other`."""
    kind = int.from_bytes(frame[12:14], "big")
    if kind == _ARP:
        return "announcement" if frame[28:32] == frame[38:42] else "arp"
    return {_RARP: "rarp", _IPV4: "ipv4", _IPV6: "ipv6"}.get(kind, "other")


def tcp_segment(frame: memoryview) -> Segment | None:
    """Return the TCP segment in a frame, None when it holds none. Fragments are not put together."""
    if len(frame) < 54:
        return None
    kind, at = int.from_bytes(frame[12:14], "big"), 14
    if kind == _VLAN:
        kind, at = int.from_bytes(frame[16:18], "big"), 18
    if kind == _IPV4:
        return _tcp(frame, at + (frame[at] & 15) * 4, at + 12, 4, int.from_bytes(frame[at + 2 : at + 4], "big") + at)
    if kind == _IPV6:
        return _tcp(frame, at + 40, at + 8, 16, int.from_bytes(frame[at + 4 : at + 6], "big") + at + 40)
    return None


def _tcp(frame: memoryview, at: int, addresses: int, size: int, end: int) -> Segment | None:
    protocol = frame[addresses - 3] if size == 4 else frame[addresses - 2]
    if protocol != _TCP or at + 20 > len(frame):
        return None
    source = bytes(frame[addresses : addresses + size]) + bytes(frame[at : at + 2])
    target = bytes(frame[addresses + size : addresses + 2 * size]) + bytes(frame[at + 2 : at + 4])
    begin = at + (frame[at + 12] >> 4) * 4
    # A length of nothing: a frame so big that its length does not go into the header. Short frames are padded.
    payload = frame[begin:end] if end > begin else frame[begin:]
    return Segment((source, target), int.from_bytes(frame[at + 4 : at + 8], "big"), payload)


def _from(mac: bytes) -> list[tuple[int, int, int, int]]:
    high, low = int.from_bytes(mac[:2], "big"), int.from_bytes(mac[2:], "big")
    return [
        (_LOAD_HALF, 0, 0, 6),
        (_EQUAL, 0, 3, high),
        (_LOAD_WORD, 0, 0, 8),
        (_EQUAL, 0, 1, low),
        (_RETURN, 0, 0, 0x40000),
        (_RETURN, 0, 0, 0),
    ]


def _attach(sock: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(code)))
