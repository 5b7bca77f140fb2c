"""One TCP connection to the guest, kept for as long as the observer lives: what is sent has to come back, in order.

`python -m refimpl.meter.stream --address A --output FILE`, started by `Program` in the guest's network. Every period
one record (see `records`) goes to the guest, which sends it back: so both directions are judged. The connection is
never made again; when it ends, the observer says why, and that is the verdict.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import itertools
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from refimpl.meter.lines import parse_line
from refimpl.meter.program import SO_TIMESTAMPNS, STOP, arrived_ns, fail, readable, ready
from refimpl.meter.records import Found, RecordReader, record
from refimpl.meter.samples import Sample, Samples
from refimpl.meter.verdict import Figure, State, Verdict, not_measured

NAME = "tcp stream"
FILE = "stream"
DEFAULT_PORT = 7002
PERIOD_MS = 20
_CONNECT_S = 20.0
_BUFFER_BYTES = 65536
_WRONG = ("gap", "duplicate", "unreadable")


def stream_verdict(samples: Sequence[Sample], boot: str, around_ns: tuple[int, int], period_ms: float) -> Verdict:
    """Judge a connection around a move (start and end, nanoseconds since the epoch).

    Bad: it ended, a record is missing, doubled or unreadable, or what was sent after the move never came back. Not
    measured: no connection to this boot before the move. Figures, times in milliseconds: `longest_pause_ms` between
    two records that came back, around the move (TCP's own waiting before it sends again is in it); `before_max_ms` the
    same before the move; `records`; `gaps`, `duplicates`, `unreadable`.
    """
    start_ns, end_ns = around_ns
    connected = [s for s in samples if s["kind"] == "connected"]
    records = [s for s in samples if s["kind"] == "record"]
    times = [s["at_ns"] for s in records]
    if not connected or connected[0]["boot"] != boot or not times or times[0] >= start_ns:
        return not_measured(NAME, "there was no connection to the guest, with records coming back, before the move")
    pauses = list(itertools.pairwise(times))
    before = [(b - a) / 1e6 for a, b in pauses if b < start_ns]
    around = [(b - a) / 1e6 for a, b in pauses if b >= start_ns and a <= end_ns]
    counts = {what: sum(s["count"] for s in samples if s["kind"] == "wrong" and s["what"] == what) for what in _WRONG}
    figures: dict[str, Figure] = {
        "records": len(records),
        "period_ms": period_ms,
        "gaps": counts["gap"],
        "duplicates": counts["duplicate"],
        "unreadable": counts["unreadable"],
    }
    for name, found in (("longest_pause_ms", around), ("before_max_ms", before)):
        figures |= {name: max(found)} if found else {}
    faults = [f"connection ended: {s['why']}" for s in samples if s["kind"] == "ended"]
    faults += [f"{count} {_words(what)}" for what, count in counts.items() if count]
    if not faults and not any(s["sent_ns"] > end_ns for s in records):
        faults.append("nothing that was sent after the move came back")
    if faults:
        return Verdict(NAME, State.BAD, "; ".join(faults), figures)
    text = f"one connection, {len(records)} records there and back in order; longest pause {max(around):.1f} ms"
    return Verdict(NAME, State.OK, text, figures)


def _words(what: str) -> str:
    return {"gap": "records missing", "duplicate": "records doubled", "unreadable": "bytes that nobody sent"}[what]


def answered_after(samples: Sequence[Sample], at_ns: int) -> bool:
    """Tell whether there is something to judge after a time: a record sent since came back, or it has ended."""
    return any(s["kind"] == "ended" or s.get("sent_ns", 0) > at_ns for s in samples)


class _Stream:
    def __init__(self, sock: socket.socket, samples: Samples, period_ms: float) -> None:
        self._sock, self._samples = sock, samples
        self._reader = RecordReader()
        self._sent: dict[int, int] = {}
        self._number = 0
        self._unsent = b""
        self._period_ns = int(period_ms * 1e6)

    def run(self) -> str:
        """Send and receive until the program has to end (empty) or the connection does (why)."""
        next_ns = time.monotonic_ns()
        while True:
            found = readable((self._sock.fileno(), STOP), next_ns)
            if STOP in found:
                return ""
            try:
                if self._sock.fileno() in found and not self._receive():
                    return "closed"
                if time.monotonic_ns() >= next_ns:
                    next_ns = time.monotonic_ns() + self._period_ns
                    self._send()
            except OSError as failure:
                name = errno.errorcode.get(failure.errno or 0, "")
                return "reset" if isinstance(failure, ConnectionResetError) else f"{name} {failure.strerror}".strip()

    def _send(self) -> None:
        self._number += 1
        self._sent[self._number] = time.time_ns()
        self._unsent += record(self._number)
        with contextlib.suppress(BlockingIOError):
            self._unsent = self._unsent[self._sock.send(self._unsent) :]

    def _receive(self) -> bool:
        data, control, _, _ = self._sock.recvmsg(_BUFFER_BYTES, 256)
        at_ns = arrived_ns(control)
        for found in self._reader.feed(data):
            self._write(found, at_ns)
        return bool(data)

    def _write(self, found: Found, at_ns: int) -> None:
        if found.what == "record":
            sent_ns = self._sent.pop(found.number, 0)
            self._samples.add("record", at_ns, number=found.number, sent_ns=sent_ns)
        else:
            self._samples.add("wrong", at_ns, what=found.what, number=found.number, count=found.count)


def _connect(address: str, port: int) -> tuple[socket.socket, str]:
    """Return a connection and the boot id of the guest that took it. OSError."""
    sock = socket.create_connection((address, port), timeout=_CONNECT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    greeting = b""
    while not greeting.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        greeting += byte
    line = parse_line(greeting)
    if line is None or line.kind != "stream":
        raise OSError(errno.EPROTO, "this is not the guest's stream")
    sock.setblocking(False)
    return sock, line.boot


def main(arguments: Sequence[str]) -> int:
    """Keep the stream until standard input or the connection ends; 1 when there is no connection to begin with."""
    parser = argparse.ArgumentParser(prog="refimpl.meter.stream", description="Keep a TCP connection to the guest.")
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--period-ms", type=float, default=PERIOD_MS)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        sock, boot = _connect(options.address, options.port)
    except OSError as failure:
        return fail(f"no connection to {options.address} port {options.port}", failure)
    with sock, options.output.open("a", encoding="utf-8") as output:
        samples = Samples(output, FILE, address=options.address, port=options.port, period_ms=options.period_ms)
        samples.add("connected", time.time_ns(), boot=boot)
        ready()
        why = _Stream(sock, samples, options.period_ms).run()
        if why:
            samples.add("ended", time.time_ns(), why=why)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
