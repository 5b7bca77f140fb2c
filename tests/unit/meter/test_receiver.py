from __future__ import annotations

import socket
import time

import pytest

from refimpl.meter.receiver import Receiver, read_arrivals
from refimpl.meter.samples import Samples
from tests.unit.meter.guest_lines import BOOT, line


@pytest.fixture
def port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_it_writes_down_heartbeats_with_the_time_of_their_arrival(tmp_path, port):
    with Receiver(tmp_path / "arrivals", address="127.0.0.1", port=port) as receiver:
        receiver.await_ready()
        begin_ns = time.time_ns()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for payload in (line(1, "udp"), b"noise", line(2, "beat 2"), line(3, "udp")[:-3], line(4, "udp")):
                sock.sendto(payload, ("127.0.0.1", port))
        end_ns = time.time_ns()
    found = receiver.arrivals()
    assert [(a.boot, a.number) for a in found.heartbeats] == [(BOOT, 1), (BOOT, 4)]
    assert all(begin_ns <= a.at_ns <= end_ns for a in found.heartbeats)
    assert receiver.process.returncode == 0


def test_an_address_that_cannot_be_had_is_an_error(tmp_path, port):
    with (
        Receiver(tmp_path / "one", address="127.0.0.1", port=port).await_ready(),
        Receiver(tmp_path / "two", address="127.0.0.1", port=port) as second,
        pytest.raises(RuntimeError, match=r"cannot listen at 127\.0\.0\.1"),
    ):
        second.await_ready()


def test_what_the_observer_s_own_kernel_dropped_is_told(tmp_path):
    with (tmp_path / "arrivals").open("w") as output:
        samples = Samples(output, "heartbeat")
        samples.add("beat", 20, boot=BOOT, number=2, overflowed=0)
        samples.add("beat", 10, boot=BOOT, number=1, overflowed=3)
    found = read_arrivals(tmp_path / "arrivals")
    assert [a.number for a in found.heartbeats] == [1, 2]
    assert found.overflowed == 3
