"""Receive the guest's heartbeat datagrams, and write down when each arrived: an observer in the guest's network.

It is a program of its own, so that it can run inside a network namespace and its clock does not wait for anybody:
`python -m refimpl.meter.receiver --address A --port P --output FILE`. It prints `ready` when it listens and ends on
SIGTERM or SIGINT. Arrival times are the kernel's (SO_TIMESTAMPNS), nanoseconds since the epoch by the clock of the
machine, the clock of QEMU's events too.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from refimpl.meter.lines import parse_line

DEFAULT_PORT = 7000
_SO_TIMESTAMPNS = 35
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
    for option, value in ((socket.SO_RCVBUF, _BUFFER_BYTES), (_SO_TIMESTAMPNS, 1), (_SO_RXQ_OVFL, 1)):
        sock.setsockopt(socket.SOL_SOCKET, option, value)
    sock.bind((address, port))
    return sock


def receive_all(sock: socket.socket, output: IO[str], stop_fd: int) -> None:
    """Write one line per heartbeat (`at_ns boot number overflowed`) until `stop_fd` is readable."""
    while True:
        readable, _, _ = select.select([sock.fileno(), stop_fd], [], [])
        if sock.fileno() in readable:
            data, control, _, _ = sock.recvmsg(256, 256)
            line = parse_line(data)
            if line is not None and line.kind == "udp":
                at_ns, overflowed = _read_control(control)
                output.write(f"{at_ns} {line.boot} {line.sequence} {overflowed}\n")
        elif stop_fd in readable:
            return


def _read_control(control: Sequence[tuple[int, int, bytes]]) -> tuple[int, int]:
    at_ns, overflowed = time.time_ns(), 0
    for _, kind, data in control:
        if kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("qq", data[:16])
            at_ns = seconds * 1_000_000_000 + nanoseconds
        elif kind == _SO_RXQ_OVFL:
            (overflowed,) = struct.unpack("I", data[:4])
    return at_ns, overflowed


def read_arrivals(path: Path) -> Arrivals:
    """Return what a receiver wrote so far, in order of arrival; a last line that is not complete is left out."""
    whole, _, _ = path.read_text().rpartition("\n")
    rows = [row.split() for row in whole.splitlines()]
    heartbeats = tuple(sorted((Arrival(int(at), boot, int(n)) for at, boot, n, _ in rows), key=lambda a: a.at_ns))
    return Arrivals(heartbeats, max((int(row[3]) for row in rows), default=0))


class Receiver:
    """A receiver process, started by `prefix` + command (for example `nsenter -t PID -n`). A context manager.

    RuntimeError when it does not come up; its standard error says why.
    """

    def __init__(self, output: Path, *, address: str = "0.0.0.0", port: int = DEFAULT_PORT, prefix: Sequence[str] = ()):
        self.output = output
        command = [sys.executable, "-m", "refimpl.meter.receiver"]
        command += ["--address", address, "--port", str(port), "--output", str(output)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [*prefix, *command], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=environment
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline().strip() != "ready":
            self.stop()
            raise RuntimeError(f"the heartbeat receiver did not start (status {self.process.returncode})")

    def arrivals(self) -> Arrivals:
        """Return what has arrived so far."""
        return read_arrivals(self.output)

    def stop(self) -> None:
        """End the process and wait for it; what arrived is in the file."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(timeout=10)
        if self.process.stdout:
            self.process.stdout.close()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def main(arguments: Sequence[str]) -> int:
    """Listen until SIGTERM or SIGINT; 1 when the address cannot be had."""
    parser = argparse.ArgumentParser(prog="refimpl.meter.receiver", description="Write down heartbeat datagrams.")
    parser.add_argument("--address", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    stop_fd, wake_fd = os.pipe()
    os.set_blocking(wake_fd, False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wake_fd)
    try:
        sock = open_socket(options.address, options.port)
    except OSError as exc:
        print(f"cannot listen at {options.address} port {options.port}: {exc}", file=sys.stderr)
        return 1
    with sock, options.output.open("a", buffering=1) as output:
        print("ready", flush=True)
        receive_all(sock, output, stop_fd)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
