"""A helper process on a host that answers questions, one line of JSON for one, for as long as it is asked.

Many looks at a host cost one start of a process instead of one each. The helper ends with its standard input, so it
does not outlive the one who asks, however that one ends; what it has made by then it has to take away itself.
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

CLOSE_TIMEOUT_S = 2.0
_CHUNK_BYTES = 65536


class Talk:
    """One helper process; what goes wrong with it is OSError, and after that it answers nothing any more."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start the helper and do not wait for it. OSError when it cannot be started."""
        pipe = subprocess.PIPE
        # Ctrl-C at the caller's terminal is not for the helper: it ends when the caller does.
        self._process = subprocess.Popen(
            list(command), bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        self._rest = b""
        self._broken = ""
        self._asking = threading.Lock()

    def ask(self, question: Mapping[str, Any], timeout_s: float) -> Any:
        """Return the answer to a question. TimeoutError after `timeout_s` seconds, OSError when the helper ended."""
        with self._asking:
            if self._broken:
                raise OSError(self._broken)
            try:
                return self._ask(question, timeout_s)
            except (OSError, ValueError) as error:
                self._broken = str(error) or type(error).__name__
                if isinstance(error, TimeoutError):
                    raise
                raise OSError(self._broken) from error

    def close(self) -> None:
        """Let the helper end and wait for it, at most two seconds; a helper that hangs is left to the host."""
        with contextlib.suppress(OSError):
            self._pipe(self._process.stdin).close()
        try:
            self._process.wait(0 if self._broken else CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            self._pipe(stream).close()

    def _ask(self, question: Mapping[str, Any], timeout_s: float) -> Any:
        try:
            self._pipe(self._process.stdin).write(json.dumps(question).encode() + b"\n")
        except BrokenPipeError:
            raise OSError(self._last_words()) from None
        return json.loads(self._line(time.monotonic() + timeout_s, timeout_s))

    def _line(self, end: float, timeout_s: float) -> bytes:
        output = self._pipe(self._process.stdout)
        poller = select.poll()
        poller.register(output, select.POLLIN)
        while b"\n" not in self._rest:
            left_ms = (end - time.monotonic()) * 1000
            if left_ms <= 0 or not poller.poll(left_ms):
                raise TimeoutError(f"the host did not answer within {timeout_s:g} s")
            data = output.read(_CHUNK_BYTES)
            if not data:
                raise OSError(self._last_words())
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_TIMEOUT_S)
        if self._process.returncode is None:
            return "the helper on the host closed its output"
        lines = self._pipe(self._process.stderr).read().decode(errors="replace").strip().splitlines()
        said = f": {lines[-1]}" if lines else ""
        return f"the helper on the host ended with status {self._process.returncode}{said}"

    @staticmethod
    def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
        assert stream is not None
        return stream
