"""`python -m tests.handover_model`, which `ci/model` runs: checks the runs, prints the table, or checks a record."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.handover_model.checker import Result
from tests.handover_model.model import Bounds
from tests.handover_model.records import Word, judge, read_record
from tests.handover_model.runs import RUNS, Run, carry_out
from tests.handover_model.world import Options

NOT_AS_EXPECTED = 1
_HEAD = ("run", "guards", "faults", "more", "states", "moves", "engine states", "s", "found")


def main(arguments: Sequence[str]) -> int:
    """Do what was asked for. Ends with 1 when a run found what it should not, or a record is not explained."""
    wanted = _arguments(arguments)
    if wanted.record is not None:
        return _check_record(wanted.record, wanted.delegated, wanted.no_lease)
    names = wanted.only or [name for name, run in RUNS.items() if run.quick or not wanted.quick]
    print(f"| {' | '.join(_HEAD)} |\n|{' --- |' * len(_HEAD)}")
    wrong: list[str] = []
    with ProcessPoolExecutor(wanted.jobs, max_tasks_per_child=1) as pool:
        for name, (result, story) in zip(names, pool.map(carry_out, names), strict=True):
            run = RUNS[name]
            print(_row(name, run, result), flush=True)
            as_expected = result.violation == run.finds and (result.complete or run.finds is not None)
            if not as_expected:
                wrong.append(name)
            if wanted.traces or not as_expected:
                print(f"\n{name}: {result.violation or 'not all states were visited'}\n{story}\n", file=sys.stderr)
    for name in wrong:
        print(f"ci/model: {name} did not find what it has to ({RUNS[name].finds or 'nothing'})", file=sys.stderr)
    return NOT_AS_EXPECTED if wrong else 0


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ci/model", description="Check hand-over and recovery exhaustively.")
    parser.add_argument("--quick", action="store_true", help="only the runs with one fault, about a minute")
    parser.add_argument("--only", action="append", choices=list(RUNS), help="this run; can be repeated")
    parser.add_argument("--jobs", type=int, default=2, help="how many runs at a time (default 2)")
    parser.add_argument("--traces", action="store_true", help="print how each violation comes about, to stderr")
    parser.add_argument(
        "--record", type=Path, help="check a record instead: an operation's journal, or its events as JSON lines"
    )
    parser.add_argument("--delegated", action="store_true", help="the record is of a delegated hand-over")
    parser.add_argument("--no-lease", action="store_true", help="the record is of a VM without a lease")
    return parser.parse_args(arguments)


def _row(name: str, run: Run, result: Result) -> str:
    found = result.violation or ("nothing" if result.complete else "not finished")
    figures = (f"{result.states:,}", f"{result.moves:,}", f"{result.minds:,}", f"{result.seconds:.0f}")
    faults = f"{run.bounds.faults}: {', '.join(run.bounds.kinds)}"
    return f"| {' | '.join((name, run.guards, faults, _more(run.bounds), *figures, found))} |"


def _more(bounds: Bounds) -> str:
    parts = (
        (bounds.deaths, f"controller dies {bounds.deaths}×"),
        (bounds.hasty, f"{bounds.hasty} early deadline"),
        (bounds.cancels, f"{bounds.cancels} cancel"),
        (bounds.apart, "hosts looked at apart"),
    )
    return ", ".join(text for given, text in parts if given) or "–"


def _check_record(path: Path, delegated: bool, no_lease: bool) -> int:
    try:
        trace = read_record(path)
        # A sequence of events alone may not tell which guards there were.
        guards = Options(strict=not delegated, lease=not no_lease) if delegated or no_lease else None
        said = judge(trace, guards)
    except (KeyError, ValueError, OSError) as failure:
        print(f"ci/model: {path}: {failure}", file=sys.stderr)
        return NOT_AS_EXPECTED
    if said.word is not Word.EXPLAINED:
        print(f"{path}: {said.word}: {said.why}")
        return NOT_AS_EXPECTED
    print(f"{path}: explained, with {said.faults} fault(s)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
