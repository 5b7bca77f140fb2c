"""What holds a QEMU's second monitor on a host through a post-copy, for whoever has to resume it (libvirt-qemu 3.4).

A destination's main loop may wait for a page that does not come. Then QEMU takes no new client, and of one that it has
only what passes the main loop by, which that client has to have agreed on before. So one is there from before post-copy
begins, in a process of its own that outlives its controller, and passes on what it is asked for.

It stands alone as `monitorside` does. It ends with its QEMU, or when it is told to, and takes its socket with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import sys
import time
from typing import Any

START_S = 5.0
CHUNK_BYTES = 65536


class Held:
    """The monitor: commands are told from each other by number, and one at a time may wait for the main loop."""

    def __init__(self, path: str) -> None:
        """Connect and agree on commands that pass the main loop by. OSError when QEMU does not answer."""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(START_S)
        self.socket.connect(path)
        self._rest = b""
        self._count = 0
        self._waiting: int | None = None
        self.socket.sendall(b'{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}, "id": 0}\n')
        if self._answer(0, START_S) is None:
            raise OSError("QEMU does not take a client")

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Pass a command on and return QEMU's answer, or why there is none."""
        oob = bool(question["oob"])
        if self._waiting is not None and not oob:
            # QEMU keeps few commands: with its queue full it would take none that passes the main loop by.
            self.read(0.0)
            if self._waiting is not None:
                return {"why": "timed out"}
        self._count += 1
        number, word = self._count, "exec-oob" if oob else "execute"
        message = {word: question["execute"], "arguments": question["arguments"], "id": number}
        self.socket.sendall(json.dumps(message).encode() + b"\n")
        self._waiting = self._waiting if oob else number
        answer = self._answer(number, float(question["timeout"]))
        return {"why": "timed out"} if answer is None else {"answer": answer}

    def read(self, timeout_s: float) -> list[dict[str, Any]]:
        """Return what QEMU has said by now, events among it. OSError when it has gone."""
        self.socket.settimeout(max(0.001, timeout_s))
        with contextlib.suppress(TimeoutError):
            data = self.socket.recv(CHUNK_BYTES)
            if not data:
                raise OSError("QEMU has gone")
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        found: list[dict[str, Any]] = [json.loads(line) for line in lines if line.strip()]
        if self._waiting in [message.get("id") for message in found]:
            self._waiting = None
        return found

    def _answer(self, number: int, timeout_s: float) -> dict[str, Any] | None:
        end = time.monotonic() + timeout_s
        while (left_s := end - time.monotonic()) > 0:
            for message in self.read(left_s):
                if message.get("id") == number:
                    return message
        return None


def listen(path: str) -> socket.socket:
    """Listen under a name; what an ended keeper has left there is replaced."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    os.chmod(path, 0o600)
    listening.listen()
    return listening


def serve(held: Held, listening: socket.socket) -> None:
    """Answer one client after the other, until QEMU has gone or one of them says that it is enough."""
    with selectors.DefaultSelector() as selector:
        selector.register(held.socket, selectors.EVENT_READ)
        selector.register(listening, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if held.socket in ready:
                held.read(0.0)
            if listening in ready:
                client, _ = listening.accept()
                with client:
                    if not answer(held, client):
                        return


def answer(held: Held, client: socket.socket) -> bool:
    """Answer one question; False when it says that it is enough."""
    client.settimeout(START_S)
    try:
        line = client.makefile("rb").readline()
        question = json.loads(line or b"{}")
    except (OSError, ValueError):
        return True
    told = {"answer": {}} if "execute" not in question else held.ask(question)
    with contextlib.suppress(OSError):
        client.sendall(json.dumps(told).encode() + b"\n")
    return not question.get("end")


def stay() -> bool:
    """Go on in a process of one's own; False in the one that was asked."""
    if os.fork():
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.chdir("/")
    return True


def main() -> None:
    """Hold the monitor that the one question names, and say so."""
    question = json.loads(sys.stdin.readline())
    try:
        held, listening = Held(question["path"]), listen(question["held"])
    except OSError as error:
        print(json.dumps({"why": str(error)}), flush=True)
        return
    if not stay():
        print(json.dumps({"answer": True}), flush=True)
        os._exit(0)
    try:
        with contextlib.suppress(OSError):
            serve(held, listening)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(question["held"])
        os._exit(0)


if __name__ == "__main__":
    main()
