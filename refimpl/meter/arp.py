"""The outside gap of a guest that has no program of ours in it: any IP stack answers when its address is asked for.

`python -m refimpl.meter.arp --address A --mac M --link LINK --own O --output FILE`, started by `Program` in the guest's
network. Every period an ARP question goes to the guest's MAC address itself, so that a switch that does not know yet
where the guest is shows too.
"""

from __future__ import annotations

import argparse
import ipaddress
import socket
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from refimpl.meter.frames import came_in, mac_bytes, open_link
from refimpl.meter.program import STOP, arrived_ns, fail, readable, ready
from refimpl.meter.samples import Sample, Samples

FILE = "arp"
PERIOD_MS = 10
_ARP = 0x0806
_BODY = struct.Struct(">HHBBH6s4s6s4s")
_ETHERNET = struct.Struct(">6s6sH")
_QUESTION, _ANSWER = 1, 2
_BUFFER_BYTES = 1 << 20
_HEAD_BYTES = 64


def question(own_mac: bytes, own: bytes, mac: bytes, address: bytes) -> bytes:
    """Return the frame that asks the owner of an IPv4 address for its MAC address."""
    body = _BODY.pack(1, 0x0800, 6, 4, _QUESTION, own_mac, own, bytes(6), address)
    return _ETHERNET.pack(mac, own_mac, _ARP) + body


def answers(frame: bytes, address: bytes) -> bool:
    """Tell whether a frame is the answer of the owner of an address."""
    if len(frame) < _ETHERNET.size + _BODY.size or frame[12:14] != _ARP.to_bytes(2, "big"):
        return False
    _, _, _, _, operation, _, sender, _, _ = _BODY.unpack_from(frame, _ETHERNET.size)
    return bool(operation == _ANSWER and sender == address)


def reply_times(samples: Sequence[Sample]) -> list[int]:
    """Return when the guest answered (nanoseconds since the epoch)."""
    return [sample["at_ns"] for sample in samples if sample["kind"] == "reply"]


def probe(sock: socket.socket, frame: bytes, address: bytes, period_ns: int, samples: Samples) -> None:
    """Ask every period and write down the answers, until this program has to end."""
    asked = answered = 0
    next_ns = time.monotonic_ns()
    while True:
        found = readable((sock.fileno(), STOP), next_ns)
        if sock.fileno() in found:
            data, control, _, where = sock.recvmsg(_HEAD_BYTES, 256)
            if came_in(where) and answers(data, address):
                answered += 1
                samples.add("reply", arrived_ns(control), number=answered)
        elif STOP in found:
            return
        if time.monotonic_ns() >= next_ns:
            next_ns = time.monotonic_ns() + period_ns
            asked += 1
            samples.add("probe", time.time_ns(), number=asked)
            sock.send(frame)


def main(arguments: Sequence[str]) -> int:
    """Ask until standard input ends; 1 when that cannot be done on this link."""
    parser = argparse.ArgumentParser(prog="refimpl.meter.arp", description="Ask again and again where an address is.")
    parser.add_argument("--address", type=ipaddress.IPv4Address, required=True)
    parser.add_argument("--mac", type=mac_bytes, required=True)
    parser.add_argument("--link", required=True)
    parser.add_argument("--own", type=ipaddress.IPv4Address, required=True)
    parser.add_argument("--period-ms", type=float, default=PERIOD_MS)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    address = options.address.packed
    try:
        sock = open_link(options.link, buffer_bytes=_BUFFER_BYTES, source_mac=options.mac)
    except OSError as failure:
        return fail(f"cannot ask on link {options.link}", failure)
    with sock, options.output.open("a", encoding="utf-8") as output:
        own_mac = sock.getsockname()[4]
        samples = Samples(output, FILE, address=str(options.address), period_ms=options.period_ms)
        ready()
        frame = question(own_mac, options.own.packed, options.mac, address)
        probe(sock, frame, address, int(options.period_ms * 1e6), samples)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
