"""`python -m tests.bench`, which `ci/bench` runs: takes the samples, keeps them, judges, prints the table."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from refimpl.app.machine import machine
from refimpl.lab import leftovers, list_labs, reap
from refimpl.model.errors import RefimplError
from tests.bench.catalogue import EXPERIMENTS
from tests.bench.experiments import Bench
from tests.bench.results import Recorder

MISSED, NOT_MEASURED = 1, 8


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for. Ends with 1 when a bound was missed, with 8 when something could not be measured."""
    wanted = _arguments(arguments)
    calibrated = machine()
    recorder = Recorder(
        wanted.output, {"text": calibrated.text, **calibrated.to_json()}, shlex.join(["ci/bench", *arguments])
    )
    root = Path(tempfile.mkdtemp(prefix="rb-"))
    print(f"{calibrated.text}; raw samples: {recorder.samples}", file=sys.stderr)
    # Whoever ends it gets everything taken away first, as after Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for name in wanted.only or EXPERIMENTS:
            _one(name, Bench(wanted.pairs, root, recorder))
            recorder.write()
    finally:
        left = _take_away(root)
        signal.signal(signal.SIGTERM, before)
    print(recorder.markdown())
    print(f"written to {recorder.directory}", file=sys.stderr)
    for line in left:
        print(f"left behind: {line}", file=sys.stderr)
    for name in recorder.missed:
        print(f"missed: {name}", file=sys.stderr)
    if recorder.not_measured or left:
        return NOT_MEASURED
    return MISSED if recorder.missed else 0


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ci/bench", description="Measure, in interleaved pairs, what the documentation gives figures of."
    )
    parser.add_argument("--pairs", type=_positive, default=20, help="how many pairs of each kind (default 20)")
    parser.add_argument("--only", action="append", choices=list(EXPERIMENTS), help="this one; can be repeated")
    parser.add_argument("--output", type=Path, default=Path("bench-results"), help="directory (default bench-results)")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _one(name: str, bench: Bench) -> None:
    print(f"{name} ...", file=sys.stderr, flush=True)
    if name != "start-up" and os.geteuid() != 0:
        bench.recorder.not_measured[name] = "it needs root: run it with sudo"
        return
    try:
        EXPERIMENTS[name](bench)
    except (RefimplError, OSError, RuntimeError, LookupError) as failure:
        bench.recorder.not_measured[name] = f"{type(failure).__name__}: {failure}"
        print(f"  not measured: {failure}", file=sys.stderr, flush=True)


def _take_away(root: Path) -> list[str]:
    labs = [summary.id for summary in list_labs(root)]
    reap(tuple(labs), root)
    left = [line for lab in labs for line in leftovers(lab, root)]
    if not left:
        shutil.rmtree(root, ignore_errors=True)
    return left


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
