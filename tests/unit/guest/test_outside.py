"""Commands to the guest and damage to it, against a stand-in on the loopback and files of this process."""

from __future__ import annotations

import ctypes
import os
import socket
import threading

import pytest

from refimpl.guest import commands
from refimpl.guest.tamper import flip_in_file, flip_in_process, host_address


@pytest.fixture
def guest():
    """A stand-in that answers the second datagram it gets."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        heard: list[bytes] = []

        def answer() -> None:
            for _ in range(2):
                data, peer = sock.recvfrom(100)
                heard.append(data)
            sock.sendto(b"done", peer)

        thread = threading.Thread(target=answer)
        thread.start()
        yield sock.getsockname()[1], heard
        thread.join()


def test_a_command_is_sent_until_it_is_answered(guest):
    port, heard = guest
    assert commands.send_command("127.0.0.1", "mute", 20, timeout_s=0.2, port=port) == "done"
    assert heard == [b"mute 20", b"mute 20"]


def test_a_guest_that_does_not_answer_is_a_timeout():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(TimeoutError, match="did not answer"):
            commands.send_command("127.0.0.1", "check", timeout_s=0.01, attempts=2, port=silent.getsockname()[1])


def test_the_monitor_s_answer_is_read():
    answer = "Host virtual address for 0x79d6000 (mem) is 0x7f31b59d6000\r\n"
    assert host_address(answer) == 0x7F31B59D6000
    with pytest.raises(ValueError):
        host_address("No memory is mapped at address 0x79d6000\r\n")


def test_memory_of_a_process_is_changed():
    memory = ctypes.create_string_buffer(b"\x10\x20")
    flip_in_process(os.getpid(), ctypes.addressof(memory) + 1, mask=0x0F)
    assert memory.raw[:2] == b"\x10\x2f"


def test_nothing_is_written_behind_the_end_of_a_file(tmp_path):
    (tmp_path / "image").write_bytes(b"ab")
    flip_in_file(tmp_path / "image", 1)
    assert (tmp_path / "image").read_bytes() == b"a\x9d"
    with pytest.raises(ValueError):
        flip_in_file(tmp_path / "image", 2)
