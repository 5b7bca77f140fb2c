"""The wire: is the guest's memory to be read in what the hosts send to each other while they move it?

Every page of the guest's working set and every block of its disk holds a marker of 16 random bytes that is this VM's
alone. In a compressed stream those do not show; the ones in pages of noise do, for such pages are left as they are.
`python -m refimpl.meter.wire --port LINK... --marker NAME=HEX... --output FILE`, started by `Program` where the switch
is, looks for them in all TCP that comes in by these ports. It keeps no content: counts, and where the first was.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from refimpl.meter.frames import Segment, came_in, dropped, open_link, tcp_segment
from refimpl.meter.markers import MarkerFinder
from refimpl.meter.program import STOP, fail, readable, ready
from refimpl.meter.samples import Sample, Samples
from refimpl.meter.verdict import Figure, State, Verdict, not_measured

NAME = "wire"
FILE = "wire"
MEMORY, DISK = "memory", "disk"
LEAST_SHARE = 0.9
"""So much of what the move says it sent has to have been seen, else nothing is said about what was not found."""
_BUFFER_BYTES = 64 << 20
_FRAME_BYTES = 1 << 18
_COUNT_NS = 200_000_000
_AT_ONCE = 64


def markers_of(marker: str) -> dict[str, str]:
    """Return the markers in the memory and on the disk of a guest, hexadecimal, from its parameter."""
    turned = bytes(byte ^ 0xFF for byte in bytes.fromhex(marker))
    return {MEMORY: marker, DISK: turned.hex()}


def counted_until(samples: Sequence[Sample]) -> int:
    """Return until when (nanoseconds since the epoch) every port has been counted, 0 when not at all."""
    last: dict[str, int] = {s["port"]: s["at_ns"] for s in samples if s["kind"] == "count"}
    return min(last.values(), default=0)


def wire_verdict(
    samples: Sequence[Sample], ports: Collection[str], *, encrypted: bool, sent_bytes: int | None, marked: bool = True
) -> Verdict:
    """Judge what was seen of a move; `ports`: the source's, by which the memory travels; `sent_bytes` as QEMU says.

    Encrypted: bad when a marker was found at any port, not measured unless nearly all of what was sent was seen. Not
    encrypted: ok when a marker was found, for so the observer is known to see; else not measured. `marked` False: no
    marker of the guest is known, so only the amount is told.
    """
    last = {s["port"]: s for s in samples if s["kind"] == "count"}
    found = Counter[str]()
    for count in last.values():
        found.update(count["found"])
    seen_bytes = sum(count["bytes"] for port, count in last.items() if port in ports)
    missed = sum(count["dropped"] for count in last.values())
    figures: dict[str, Figure] = {
        "seen_bytes": seen_bytes,
        "sent_bytes": sent_bytes,
        "memory_markers": found[MEMORY],
        "disk_markers": found[DISK],
        "missed_frames": missed,
        "encrypted": encrypted,
    }
    amount = f"{seen_bytes / (1 << 20):.1f} MiB seen" + (f", {missed} frames missed" if missed else "")
    total = found.total()
    if encrypted and total:
        return Verdict(NAME, State.BAD, f"{total} markers of the guest in clear on an encrypted move", figures)
    if not last or not sent_bytes or seen_bytes < LEAST_SHARE * sent_bytes:
        sent = f"{(sent_bytes or 0) / (1 << 20):.1f} MiB"
        return not_measured(NAME, f"{amount} of {sent} that the move sent", **figures)
    if not marked:
        return not_measured(NAME, f"{amount}; no marker of this guest is known", **figures)
    if not encrypted and not total:
        return not_measured(NAME, f"{amount}, not encrypted, and yet no marker in it", **figures)
    words = f"{total} markers of the guest in clear, as it was asked for" if total else "no marker of the guest in it"
    return Verdict(NAME, State.OK, f"{amount}, {words}", figures)


class _Port:
    def __init__(self, name: str, sock: socket.socket, markers: Mapping[str, bytes], samples: Samples) -> None:
        self._name, self.sock, self._samples = name, sock, samples
        sock.setblocking(False)
        self._finder = MarkerFinder(markers)
        self._frames = self._bytes = self._dropped = 0
        self._found = Counter[str]()
        self._buffer = bytearray(_FRAME_BYTES)
        self._view = memoryview(self._buffer)

    def take(self) -> None:
        """Look at the frames that are there, at a bounded number of them."""
        for _ in range(_AT_ONCE):
            try:
                size, _, _, address = self.sock.recvmsg_into([self._buffer])
            except BlockingIOError:
                return
            segment = tcp_segment(self._view[:size]) if came_in(address) else None
            if segment is not None:
                self._look_at(segment)

    def _look_at(self, segment: Segment) -> None:
        self._frames += 1
        self._bytes += len(segment.payload)
        for name, count in self._finder.feed(segment).items():
            if not self._found[name]:
                peer = socket.inet_ntop(
                    socket.AF_INET if len(segment.flow[1]) == 6 else socket.AF_INET6, segment.flow[1][:-2]
                )
                self._samples.add("found", time.time_ns(), port=self._name, marker=name, peer=peer)
            self._found[name] += count

    def count(self, at_ns: int) -> None:
        """Write down what was seen so far."""
        self._dropped += dropped(self.sock)
        values = {"frames": self._frames, "bytes": self._bytes, "dropped": self._dropped}
        self._samples.add("count", at_ns, port=self._name, found=dict(self._found), **values)


def watch_wire(ports: Sequence[_Port]) -> None:
    """Look at everything that comes in, until this program has to end. A count covers what came before its time."""
    by_descriptor = {port.sock.fileno(): port for port in ports}
    next_ns = time.monotonic_ns()
    while True:
        at_ns = time.time_ns()
        found = readable((*by_descriptor, STOP), next_ns)
        busy = [by_descriptor[descriptor] for descriptor in found if descriptor in by_descriptor]
        for port in busy:
            port.take()
        if time.monotonic_ns() >= next_ns and not busy:
            next_ns = time.monotonic_ns() + _COUNT_NS
            for port in ports:
                port.count(at_ns)
        if STOP in found and not busy:
            for port in ports:
                port.count(at_ns)
            return


def _marker(text: str) -> tuple[str, bytes]:
    name, _, digits = text.partition("=")
    return name, bytes.fromhex(digits)


def main(arguments: Sequence[str]) -> int:
    """Watch until standard input ends; 1 when a port cannot be watched."""
    parser = argparse.ArgumentParser(prog="refimpl.meter.wire", description="Look for a guest's markers in a network.")
    parser.add_argument("--port", action="append", required=True)
    parser.add_argument("--marker", action="append", type=_marker, default=[])
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    with ExitStack() as opened:
        try:
            sockets = {name: opened.enter_context(open_link(name, buffer_bytes=_BUFFER_BYTES)) for name in options.port}
        except OSError as failure:
            return fail(f"cannot watch the ports {', '.join(options.port)}", failure)
        output = opened.enter_context(options.output.open("a", encoding="utf-8"))
        samples = Samples(output, FILE, ports=options.port, markers=[name for name, _ in options.marker])
        ports = [_Port(name, sock, dict(options.marker), samples) for name, sock in sockets.items()]
        ready()
        watch_wire(ports)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
