"""An observer as a process of its own, in whatever network namespace it has to be, whose clock waits for nobody.

It prints `ready` when it observes, and ends when its standard input ends: with whoever started it, however that ends.
A person's Ctrl-C is not meant for it, so it has a process group of its own.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from refimpl.meter.samples import Sample, read_samples

STOP = 0
"""The descriptor (standard input) that becomes readable when an observer has to end."""
SO_TIMESTAMPNS = 35
_END_S = 10.0


def ready() -> None:
    """Tell whoever started this program that it observes now."""
    print("ready", flush=True)


def readable(descriptors: Iterable[int], until_ns: int | None = None) -> list[int]:
    """Wait until something can be read, or until a time (CLOCK_MONOTONIC, None: for ever); return where."""
    left_s = None if until_ns is None else max(0.0, (until_ns - time.monotonic_ns()) / 1e9)
    found, _, _ = select.select(list(descriptors), [], [], left_s)
    return found


def arrived_ns(control: Sequence[tuple[int, int, bytes]]) -> int:
    """Return the kernel's time of arrival from a message's control data, else the present time."""
    for _, kind, data in control:
        if kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = int.from_bytes(data[:8], sys.byteorder), int.from_bytes(data[8:16], sys.byteorder)
            return seconds * 1_000_000_000 + nanoseconds
    return time.time_ns()


class Program:
    """An observer's process. A context manager; RuntimeError from `await_ready` when it does not come up."""

    def __init__(
        self,
        module: str,
        output: Path,
        arguments: Mapping[str, object],
        *,
        prefix: Sequence[str] = (),
        lists: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        """Start `prefix` + `python -m refimpl.meter.MODULE --output FILE --NAME VALUE...`.

        `lists`: options that are given several times. Several programs come up faster when all are started before
        the first is waited for.
        """
        self.name = module
        self.output = output
        options = [("output", output), *arguments.items()]
        options += [(name, value) for name, values in (lists or {}).items() for value in values]
        command = [sys.executable, "-m", f"refimpl.meter.{module}", *(f"--{name}={value}" for name, value in options)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [*prefix, *command], stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment, process_group=0
        )

    def await_ready(self) -> Program:
        """Wait until it observes; RuntimeError, with what it said, when it ends instead."""
        assert self.process.stdout is not None
        if self.process.stdout.readline().strip() != "ready":
            _, said = self.process.communicate(timeout=_END_S)
            last = said.strip().rpartition("\n")[2] or f"status {self.process.returncode}"
            raise RuntimeError(f"the observer {self.name!r} did not start: {last}")
        return self

    def samples(self, *kinds: str) -> list[Sample]:
        """Return what it has written so far."""
        return read_samples(self.output, *kinds)

    def stop(self) -> None:
        """End the process and wait for it; what it observed is in the file."""
        try:
            self.process.communicate(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def fail(what: str, failure: OSError) -> int:
    """Say why an observer cannot observe; return its exit status."""
    print(f"{what}: {failure}", file=sys.stderr)
    return 1
