"""The forwarding database of a bridge, heard by netlink: at which port is a MAC address, and when does that change?"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_NEIGHBOUR_GROUP = 1 << 2
_NEW, _DELETED, _GET = 28, 29, 30
_REQUEST_DUMP = 0x301
_AF_BRIDGE = 7
_LLADDR = 2
_HEADER = struct.Struct("=IHHII")
_MESSAGE = struct.Struct("=BBHiHBB")
_ATTRIBUTE = struct.Struct("=HH")
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """What was said of a MAC address: learned at (or forgotten from) the link of an index."""

    mac: bytes
    link: int
    learned: bool


def open_neighbours() -> socket.socket:
    """Return a socket that hears every change in this network namespace, and first the state as it is. OSError."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    sock.bind((0, _NEIGHBOUR_GROUP))
    body = _MESSAGE.pack(_AF_BRIDGE, 0, 0, 0, 0, 0, 0)
    sock.send(_HEADER.pack(_HEADER.size + len(body), _GET, _REQUEST_DUMP, 1, 0) + body)
    return sock


def entries(data: bytes) -> Iterator[Entry]:
    """Yield what a datagram from such a socket says of bridges."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        if kind in (_NEW, _DELETED) and length >= _HEADER.size + _MESSAGE.size:
            family, _, _, link, *_ = _MESSAGE.unpack_from(data, at + _HEADER.size)
            mac = _attribute(data[at + _HEADER.size + _MESSAGE.size : at + length], _LLADDR)
            if family == _AF_BRIDGE and mac is not None:
                yield Entry(mac, link, kind == _NEW)
        at += (length + 3) & ~3


def _attribute(data: bytes, wanted: int) -> bytes | None:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if kind == wanted:
            return data[at + _ATTRIBUTE.size : at + length]
        at += max(_ATTRIBUTE.size, (length + 3) & ~3)
    return None
