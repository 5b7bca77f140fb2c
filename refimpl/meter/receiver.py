"""Receive the guest's heartbeat datagrams, and write down when each arrived: an observer in the guest's network.

`python -m refimpl.meter.receiver --address A --port P --output FILE`, started by `Program`. Arrival times are the
kernel's (SO_TIMESTAMPNS), nanoseconds since the epoch by the clock of the machine, the clock of QEMU's events too.
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from refimpl.meter.lines import parse_line
from refimpl.meter.program import SO_TIMESTAMPNS, STOP, Program, arrived_ns, fail, readable, ready
from refimpl.meter.samples import Sample, Samples, read_samples

NAME = "heartbeat"
DEFAULT_PORT = 7000
_SO_RXQ_OVFL = 40
_BUFFER_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Arrival:
    """One heartbeat datagram: when it arrived (nanoseconds since the epoch), boot id, heartbeat number."""

    at_ns: int
    boot: str
    number: int


@dataclass(frozen=True, slots=True)
class Arrivals:
    """All that one receiver wrote down. `overflowed`: datagrams that the observer's own kernel dropped (its fault)."""

    heartbeats: tuple[Arrival, ...]
    overflowed: int


def open_socket(address: str, port: int) -> socket.socket:
    """Return a bound UDP socket with kernel timestamps; OSError when the address cannot be had."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option, value in ((socket.SO_RCVBUF, _BUFFER_BYTES), (SO_TIMESTAMPNS, 1), (_SO_RXQ_OVFL, 1)):
        sock.setsockopt(socket.SOL_SOCKET, option, value)
    sock.bind((address, port))
    return sock


def receive_all(sock: socket.socket, samples: Samples) -> None:
    """Write down every heartbeat until this program has to end."""
    while True:
        found = readable((sock.fileno(), STOP))
        if sock.fileno() in found:
            data, control, _, _ = sock.recvmsg(256, 256)
            line = parse_line(data)
            if line is not None and line.kind == "udp":
                overflowed = _overflowed(control)
                samples.add("beat", arrived_ns(control), boot=line.boot, number=line.sequence, overflowed=overflowed)
        elif STOP in found:
            return


def _overflowed(control: Sequence[tuple[int, int, bytes]]) -> int:
    return next((int(struct.unpack("I", data[:4])[0]) for _, kind, data in control if kind == _SO_RXQ_OVFL), 0)


def read_arrivals(path: Path) -> Arrivals:
    """Return what a receiver wrote so far, in order of arrival."""
    beats = read_samples(path, "beat")
    heartbeats = sorted((_arrival(beat) for beat in beats), key=lambda arrival: arrival.at_ns)
    return Arrivals(tuple(heartbeats), max((beat["overflowed"] for beat in beats), default=0))


def _arrival(beat: Sample) -> Arrival:
    return Arrival(beat["at_ns"], beat["boot"], beat["number"])


class Receiver(Program):
    """A receiver's process, started by `prefix` + command (for example `nsenter -t PID -n`)."""

    def __init__(self, output: Path, *, address: str = "0.0.0.0", port: int = DEFAULT_PORT, prefix: Sequence[str] = ()):
        super().__init__("receiver", output, {"address": address, "port": port}, prefix=prefix)

    def arrivals(self) -> Arrivals:
        """Return what has arrived so far."""
        return read_arrivals(self.output)


def main(arguments: Sequence[str]) -> int:
    """Listen until standard input ends; 1 when the address cannot be had."""
    parser = argparse.ArgumentParser(prog="refimpl.meter.receiver", description="Write down heartbeat datagrams.")
    parser.add_argument("--address", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        sock = open_socket(options.address, options.port)
    except OSError as failure:
        return fail(f"cannot listen at {options.address} port {options.port}", failure)
    with sock, options.output.open("a", encoding="utf-8") as output:
        samples = Samples(output, NAME, address=options.address, port=options.port)
        ready()
        receive_all(sock, samples)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
