"""Tell a running guest something: one UDP datagram each way, from a place that reaches the guest's network.

| verb | value | effect |
| --- | --- | --- |
| `rate` | pages per second | the memory writer's new rate, 0 stops it |
| `check` | | a new check pass of the whole working set, now and at full speed |
| `mute` | beats | that many heartbeats are counted but not sent, on both channels |
| `corrupt` | | one bit of one page of the working set turns; the checker is not told |
| `disk` | 0 or 1 | the disk worker rests or goes on |
| `skip` | bytes | that many bytes that come by TCP connections are not sent back |
| `where` | page number | answers with the page's guest-physical address (hexadecimal) |
| `off` | | the guest switches itself off |
| `reboot` | | it starts anew |
| `panic` | | its kernel panics, and says so by the panic device if it has one |

Every command also leaves a `command` line on the line channel.
"""

from __future__ import annotations

import socket

COMMAND_PORT = 7001
STREAM_PORT = 7002
"""The TCP port at which the guest sends back what it gets, after a line of kind `stream` that says which boot it is."""


def send_command(
    address: str, verb: str, value: int = 0, *, timeout_s: float = 2.0, attempts: int = 5, port: int = COMMAND_PORT
) -> str:
    """Send a command and return the guest's answer (`done`, the verb by which it ends, `unknown`, an address).

    A datagram without an answer is sent again, so a command can be carried out more than once. TimeoutError when no
    attempt was answered.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect((address, port))
        for _ in range(attempts):
            try:
                sock.send(f"{verb} {value}".encode())
                return sock.recv(128).decode()
            except (TimeoutError, ConnectionRefusedError):
                continue
    raise TimeoutError(f"the guest at {address} did not answer {verb!r} ({attempts} attempts of {timeout_s:g} s)")
