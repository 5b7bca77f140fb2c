"""The socket between a conductor process and those who attach to it: events out, wishes in.

One JSON object a line. A client sends `{"do": "events"}` and is sent every event, from the first on, as
`{"seq": n, "event": {...}}` until `{"outcome": {...}}`. With `{"do": "cancel"}`, `{"do": "post-copy"}` or
`{"do": "bandwidth", "mib_s": n}` it wishes something, and is answered `{"ok": true}`; what becomes of the wish is told
by events.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refimpl.model.events import Event, Kind
from refimpl.model.request import MOST_BANDWIDTH_MIB_S


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
        if not isinstance(request, dict):
            return
        try:
            if request.get("do") == "events":
                for line in self.server.log.follow():
                    self.wfile.write(line.encode())
            elif (wished := _wish(request)) is not None:
                self.server.wish(*wished)
                self.wfile.write(b'{"ok": true}\n')
        except OSError:
            return


def _wish(request: Mapping[str, Any]) -> tuple[Kind, Mapping[str, Any]] | None:
    """Return the wish that a request is, None when it is none."""
    mib_s = request.get("mib_s")
    if request.get("do") == "cancel":
        return Kind.CANCEL_WISHED, {}
    if request.get("do") == "post-copy":
        return Kind.POSTCOPY_WISHED, {}
    if request.get("do") == "bandwidth" and type(mib_s) is int and 0 <= mib_s <= MOST_BANDWIDTH_MIB_S:
        return Kind.BANDWIDTH_WISHED, {"mib_s": mib_s}
    return None


class ControlServer(socketserver.ThreadingUnixStreamServer):
    """Serves one operation's socket in threads of its own."""

    daemon_threads = False
    block_on_close = True

    def __init__(self, path: Path, log: EventLog, wish: Callable[[Kind, Mapping[str, Any]], None]) -> None:
        """`wish` takes what a client wishes, in a thread of that client's own."""
        self.log = log
        self.wish = wish
        # Under its name there is only a socket that listens: between bind and listen a client would be refused, and
        # take a conductor that has just begun for a dead one.
        unheard = path.with_name(f"{path.name}.new")
        unheard.unlink(missing_ok=True)
        with _short(unheard) as short:
            super().__init__(short, _Handler)
        unheard.replace(path)
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
    _ask(path, {"do": "cancel"})


def ask_bandwidth(path: Path, mib_s: int) -> None:
    """Ask a conductor to limit the transfer to so many MiB per second; 0: no limit. OSError when nobody listens."""
    _ask(path, {"do": "bandwidth", "mib_s": mib_s})


def ask_post_copy(path: Path) -> None:
    """Ask a conductor to begin post-copy. OSError when nobody listens."""
    _ask(path, {"do": "post-copy"})


def _ask(path: Path, request: Mapping[str, Any]) -> None:
    with _connect(path) as connection, connection.makefile("rw", encoding="utf-8") as stream:
        stream.write(json.dumps(request) + "\n")
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
