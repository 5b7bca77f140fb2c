"""The TCP stream: its verdict on samples made by hand, and the program against an echo on the loopback."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager

import pytest

from refimpl.hosts.wait import until
from refimpl.meter.program import Program
from refimpl.meter.records import RECORD_BYTES
from refimpl.meter.stream import answered_after, stream_verdict
from refimpl.meter.verdict import State
from tests.unit.meter.guest_lines import BOOT, line

MS = 1_000_000
MOVE = (1000 * MS, 1400 * MS)


def steady(last: int = 100) -> list[dict]:
    """A record each 20 ms, number n at n times 20 ms."""
    records = [
        {"kind": "record", "number": n, "at_ns": n * 20 * MS, "sent_ns": n * 20 * MS - MS} for n in range(1, last + 1)
    ]
    return [{"kind": "connected", "at_ns": MS, "boot": BOOT}, *records]


def wrong(what: str, count: int) -> dict:
    return {"kind": "wrong", "what": what, "number": 60, "count": count, "at_ns": 1200 * MS}


def judged(samples: list[dict]):
    return stream_verdict(samples, BOOT, MOVE, 20)


def test_a_stream_that_goes_on_is_good_and_its_longest_pause_is_told():
    paused = [s for s in steady() if not 1060 * MS < s["at_ns"] < 1360 * MS]
    found = judged(paused)
    assert (found.state, found.figures["longest_pause_ms"], found.figures["before_max_ms"]) == (State.OK, 300, 20)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ({"kind": "ended", "at_ns": 1200 * MS, "why": "reset"}, "connection ended: reset"),
        (wrong("gap", 2), "2 records missing"),
        (wrong("duplicate", 1), "1 records doubled"),
        (wrong("unreadable", 7), "7 bytes that nobody sent"),
    ],
)
def test_whatever_is_wrong_is_bad(fault, text):
    found = judged([*steady(), fault])
    assert (found.state, found.text) == (State.BAD, text)


def test_a_stream_in_which_nothing_comes_back_after_the_move_is_bad():
    assert "nothing that was sent after" in judged(steady(last=69)).text
    assert not answered_after(steady(last=69), MOVE[1])
    assert answered_after(steady(), MOVE[1])
    assert answered_after([{"kind": "ended", "at_ns": 0, "why": "reset"}], MOVE[1])


def test_without_a_connection_to_this_boot_before_the_move_nothing_is_measured():
    assert judged([]).state is State.NOT_MEASURED
    assert judged(steady()[:1]).state is State.NOT_MEASURED
    assert judged([steady()[0], *steady()[60:]]).state is State.NOT_MEASURED
    assert stream_verdict(steady(), "ffffff", MOVE, 20).state is State.NOT_MEASURED


@contextmanager
def echo(limit: int, *, reset: bool):
    """An echo that ends the one connection it takes after so many bytes; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(line(1, "stream"))
                left = limit
                while left > 0 and (data := connection.recv(min(left, 2048))):
                    connection.sendall(data)
                    left -= len(data)
                if reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(("reset", "why"), [(True, "reset"), (False, "closed")])
def test_the_observer_keeps_one_connection_and_says_how_it_ended(tmp_path, reset, why):
    with echo(5 * RECORD_BYTES, reset=reset) as port:
        told = {"address": "127.0.0.1", "port": port, "period-ms": 5}
        with Program("stream", tmp_path / "stream.jsonl", told) as program:
            program.await_ready()
            assert until(lambda: bool(program.samples("ended")), 20.0, 0.01)
    (connected,) = program.samples("connected")
    assert connected["boot"] == BOOT
    assert [s["number"] for s in program.samples("record")][:4] == [1, 2, 3, 4]
    assert program.samples("ended")[0]["why"] == why
    assert program.samples("wrong") == []


def test_an_observer_that_finds_nobody_says_so(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with Program("stream", tmp_path / "stream.jsonl", {"address": "127.0.0.1", "port": port}) as program:
        with pytest.raises(RuntimeError, match=f"no connection to 127.0.0.1 port {port}: .*refused"):
            program.await_ready()
