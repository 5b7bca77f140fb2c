"""Port forwards: a loopback port of the machine leads to a port of a guest, and stays so wherever the guest moves.

A forward is one process in the lab's management network. It was given a socket that listens where the lab's user is,
and connects to the guest's address, which a move does not change.
"""

from __future__ import annotations

import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from refimpl.hosts import netns
from refimpl.lab.errors import LabError
from refimpl.lab.service import INHERITED, Services

LOOPBACK = "127.0.0.1"
_RELAY = Path(__file__).with_name("relay.py")
_BACKLOG = 64
_HIGHEST = 65535


@dataclass(frozen=True, slots=True)
class Forward:
    """A TCP port of the machine's loopback address, and the guest's port to which it leads."""

    port: int
    guest_port: int

    def __str__(self) -> str:
        return f"{LOOPBACK}:{self.port} to port {self.guest_port}"

    @classmethod
    def parse(cls, text: str) -> Forward:
        """Read `PORT` or `PORT:GUESTPORT`; ValueError when it is neither."""
        words = text.split(":")
        numbers = [int(word) for word in words if word.isascii() and word.isdigit() and 1 <= int(word) <= _HIGHEST]
        if len(words) > 2 or len(numbers) != len(words):
            raise ValueError(f"{text!r} is not PORT or PORT:GUESTPORT with numbers from 1 to {_HIGHEST}")
        return cls(numbers[0], numbers[-1])


@dataclass(frozen=True, slots=True)
class Forwards:
    """The forwards of one lab. `outside`: an open network namespace, the one in which the ports listen."""

    services: Services
    outside: int

    def up(self, forward: Forward, address: str) -> bool:
        """Tell whether a forward to a guest's address runs."""
        return self.services.find(_name(forward, address)) is not None

    def ensure(self, forward: Forward, address: str) -> None:
        """Start a forward unless it runs. LabError `forward.port_taken` when its port cannot be listened on."""
        with self.services.held():
            if self.up(forward, address):
                return
            with self._listen(forward.port) as listener:
                command = [sys.executable, "-I", str(_RELAY), str(INHERITED), address, str(forward.guest_port)]
                log = self.services.directory / f"forward-{forward.port}.log"
                self.services.start(_name(forward, address), command, log=log, inherited=listener.fileno())

    def end(self, forward: Forward, address: str) -> None:
        """End a forward; nothing when it does not run."""
        with self.services.held():
            self.services.stop(_name(forward, address))

    def _listen(self, port: int) -> socket.socket:
        # A thread of its own enters the other network: what it leaves behind there is only the socket.
        with ThreadPoolExecutor(max_workers=1) as pool:
            try:
                return pool.submit(_listen_in, self.outside, port).result()
            except OSError as error:
                raise LabError("forward.port_taken", port=port, detail=error.strerror or str(error)) from error


def _listen_in(network: int, port: int) -> socket.socket:
    netns.enter_open(network)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _name(forward: Forward, address: str) -> str:
    return f"forward {forward.port} {address} {forward.guest_port}"
