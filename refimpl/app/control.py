"""The socket between a conductor process and those who attach to it: events out, a wish to cancel in.

One JSON object a line. A client sends `{"do": "events"}` and is sent every event, from the first on, as
`{"seq": n, "event": {...}}` until `{"outcome": {...}}`, or `{"do": "cancel"}` and is answered `{"ok": true}`.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refimpl.model.events import Event


class EventLog:
    """The events of a running operation, for any number of followers. Appending never blocks."""

    def __init__(self, lines: list[str] | None = None) -> None:
        self._lines: list[str] = list(lines or [])
        self._outcome: str | None = None
        self._closed = False
        self._changed = threading.Condition()

    def append(self, event: Event) -> None:
        """Add an event."""
        line = json.dumps(event.to_json(), ensure_ascii=False)
        with self._changed:
            self._lines.append(line)
            self._changed.notify_all()

    def close(self, outcome: dict[str, Any] | None = None) -> None:
        """End it, with the outcome if there is one; followers end after it. The first close counts."""
        with self._changed:
            if not self._closed and outcome is not None:
                self._outcome = json.dumps(outcome, ensure_ascii=False)
            self._closed = True
            self._changed.notify_all()

    def follow(self) -> Iterator[str]:
        """Yield lines as they are sent to a client, until the outcome, or the end without one."""
        at = 0
        while True:
            with self._changed:
                while len(self._lines) <= at and not self._closed:
                    self._changed.wait()
                fresh, closed, outcome = self._lines[at:], self._closed, self._outcome
            for number, line in enumerate(fresh, at + 1):
                yield f'{{"seq": {number}, "event": {line}}}\n'
            at += len(fresh)
            if closed and not fresh:
                if outcome is not None:
                    yield f'{{"outcome": {outcome}}}\n'
                return


class _Handler(socketserver.StreamRequestHandler):
    server: ControlServer

    def handle(self) -> None:
        try:
            request = json.loads(self.rfile.readline() or b"{}")
        except ValueError:
            return
        try:
            if request.get("do") == "cancel":
                self.server.cancel()
                self.wfile.write(b'{"ok": true}\n')
            elif request.get("do") == "events":
                for line in self.server.log.follow():
                    self.wfile.write(line.encode())
        except OSError:
            return


class ControlServer(socketserver.ThreadingUnixStreamServer):
    """Serves one operation's socket in threads of its own."""

    daemon_threads = False
    block_on_close = True

    def __init__(self, path: Path, log: EventLog, cancel: Callable[[], None]) -> None:
        self.log = log
        self.cancel = cancel
        path.unlink(missing_ok=True)
        with _short(path) as short:
            super().__init__(short, _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="control", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop accepting and wait until every follower has been sent the rest."""
        self.shutdown()
        self.server_close()


def follow(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what a conductor sends, until its outcome or its death. OSError when nobody listens."""
    with _connect(path) as connection, connection.makefile("rw", encoding="utf-8") as stream:
        stream.write('{"do": "events"}\n')
        stream.flush()
        for line in stream:
            if not line.endswith("\n"):
                return  # the conductor was killed in the middle of it
            yield json.loads(line)


def ask_cancel(path: Path) -> None:
    """Ask a conductor to cancel. OSError when nobody listens."""
    with _connect(path) as connection, connection.makefile("rw", encoding="utf-8") as stream:
        stream.write('{"do": "cancel"}\n')
        stream.flush()
        if not stream.readline():
            raise ConnectionResetError("the conductor did not answer")


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        with _short(path) as short:
            connection.connect(short)
    except OSError:
        connection.close()
        raise
    return connection


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a name of a socket that fits the kernel's 108 bytes, however deep its directory is."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
