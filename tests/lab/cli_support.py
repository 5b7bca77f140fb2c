"""The `refimpl` command as a user types it: in a process of its own, with a state directory and a home of the test."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refimpl.lab import leftovers
from tests.lab.lab_support import state_directory
from tests.unit.report.published import unpublished

TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last line as JSON."""
        return json.loads(self.out.splitlines()[-1])


class Running:
    """A command that runs; its lines are read as they come."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._rest = b""

    def wait_for(self, text: str) -> None:
        """Read until a line of the output holds this text."""
        assert self.process.stdout is not None
        end = time.monotonic() + TIMEOUT_S
        while not any(text in line for line in self.lines):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            assert data, f"{text!r} was not printed; so far: {self.lines}"
            *whole, self._rest = (self._rest + data).split(b"\n")
            self.lines += [line.decode() for line in whole]

    def ctrl_c(self) -> None:
        """Press Ctrl-C: the signal goes to this process alone, as a conductor has a session of its own."""
        self.process.send_signal(signal.SIGINT)

    def end(self) -> Done:
        """Wait for the end."""
        out, err = self.process.communicate(timeout=TIMEOUT_S)
        whole = "\n".join([*self.lines, (self._rest + out).decode()])
        return Done(self.process.returncode, whole, err.decode())


@dataclass(frozen=True)
class Command:
    """Runs `refimpl` with everything of its own below one directory."""

    root: Path
    home: Path

    def __call__(self, *arguments: str, **environment: str) -> Done:
        """Run a command to its end; what it prints as JSON has to be as published."""
        with self.running(*arguments, **environment) as running:
            done = running.end()
        assert unpublished(arguments, done.out) == [], done
        return done

    @contextmanager
    def running(self, *arguments: str, **environment: str) -> Iterator[Running]:
        """Start a command; it is ended with the block at the latest."""
        full = os.environ | {"REFIMPL_LAB_ROOT": str(self.root), "REFIMPL_HOME": str(self.home)} | environment
        # A shell's background job ignores Ctrl-C, and so would everything started from it.
        command = ["env", "--default-signal=INT", sys.executable, "-m", "refimpl", *arguments]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=full)
        try:
            yield Running(process)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def vm(self, name: str) -> dict[str, Any]:
        """Return the one place of a VM, as `vm list` shows it."""
        (found,) = [vm for vm in self("vm", "list", "--json").json["vms"] if vm["name"] == name]
        return dict(found)


@contextmanager
def command_with_lab(home: Path, name: str, memory_mib: int) -> Iterator[Command]:
    """The command with one lab that is up, made and taken away by itself; at the end nothing of it is left."""
    with state_directory() as root:
        command = Command(root, home)
        up = command("lab", "up", name, "--memory", str(memory_mib), "--json")
        assert up.code == 0, up
        yield command
        down = command("lab", "down", "--json")
        assert down.code == 0, down
        assert leftovers(up.json["id"], root) == []
