"""What runs on a host to ask a VM's QEMU something beside libvirt: one question a line, over its second monitor socket.

It is sent to the host as a text, so it stands alone: nothing of this project, the standard library only. It ends with
its standard input, or after a minute without a question. The socket takes one client at a time, so each question has a
connection of its own; a QEMU that does not answer in time is let go. Who holds the socket, if somebody does, is asked
instead (`keeperside`).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from typing import Any

LIFE_S = 60
CHUNK_BYTES = 65536


class Lines:
    """A connection that is read line by line until a given time. OSError when it ends, TimeoutError at that time."""

    def __init__(self, connection: socket.socket, end: float) -> None:
        self._connection = connection
        self._end = end
        self._rest = b""

    def send(self, message: dict[str, Any]) -> None:
        """Send one message."""
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def answer(self) -> dict[str, Any]:
        """Return the next message that is no event."""
        while True:
            message: dict[str, Any] = json.loads(self._line())
            if "event" not in message:
                return message

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            self._connection.settimeout(max(0.01, self._end - time.monotonic()))
            data = self._connection.recv(CHUNK_BYTES)
            if not data:
                raise OSError("QEMU has closed its monitor")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def ask(question: dict[str, Any]) -> dict[str, Any]:
    """Put one command to QEMU and return its answer: `return`, or `error` with QEMU's own words."""
    with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
        return ask_keeper(question)
    end = time.monotonic() + float(question["timeout"])
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(float(question["timeout"]))
        connection.connect(question["path"])
        lines = Lines(connection, end)
        lines.answer()
        lines.send({"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}})
        lines.answer()
        word = "exec-oob" if question["oob"] else "execute"
        lines.send({word: question["execute"], "arguments": question["arguments"]})
        return lines.answer()


def ask_keeper(question: dict[str, Any]) -> dict[str, Any]:
    """Ask whoever holds the monitor. FileNotFoundError or ConnectionRefusedError when nobody does."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(float(question["timeout"]) + 1)
        connection.connect(question["held"])
        connection.sendall(json.dumps(question).encode() + b"\n")
        told: dict[str, Any] = json.loads(connection.makefile("rb").readline() or b'{"why": "its keeper has ended"}')
    if "why" in told:
        raise OSError(told["why"])
    answer: dict[str, Any] = told["answer"]
    return answer


def release(question: dict[str, Any]) -> dict[str, Any]:
    """Have whoever holds the monitor let it go; nothing when nobody does."""
    with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
        ask_keeper({**question, "end": True})
    return {}


def main() -> None:
    """Answer until the questions end."""
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.alarm(LIFE_S)
    for line in sys.stdin.buffer:
        answer: dict[str, Any]
        try:
            question = json.loads(line)
            answer = {"answer": ask(question) if "execute" in question else release(question)}
        except OSError as error:
            answer = {"why": str(error) or type(error).__name__}
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        signal.alarm(LIFE_S)


if __name__ == "__main__":
    main()
