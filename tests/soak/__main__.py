"""`python -m tests.soak`, which `ci/soak` runs: plays schedules of a seed or a history, and says what must not be."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

from tests.soak import lab_schedule, simulated
from tests.soak.history import History, Row, schedules, table

FOUND, USAGE, NOT_PLAYED = 1, 2, 8
_CHUNK = 50
_JOBS = 2
_LABS = 2


def main(arguments: Sequence[str]) -> int:
    """Play what was asked for. Ends with 1 when something was seen that must never be, 8 when the lab broke."""
    wanted = _arguments(arguments)
    output = wanted.output or Path("soak-results") / f"{wanted.backend}-{wanted.seed}"
    try:
        told = list(_told(wanted))
    except (OSError, ValueError) as failure:
        print(f"ci/soak: {failure}", file=sys.stderr)
        return USAGE
    history = History(output)
    deadline = time.monotonic() + wanted.minutes * 60 if wanted.minutes else None
    print(f"seed {wanted.seed}: {len(told)} moves on {wanted.backend}; history: {history.path}", file=sys.stderr)
    print(f"the same again: ci/soak {_again(wanted)}", file=sys.stderr)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    broke = ""
    try:
        if wanted.backend == simulated.BACKEND:
            _simulated(told, history, deadline)
        else:
            broke = _lab(told, history, deadline)
    except KeyboardInterrupt:
        broke = "interrupted"
    finally:
        signal.signal(signal.SIGTERM, before)
    _tell(history, output)
    if broke:
        print(f"not all was played: {broke}", file=sys.stderr)
        return NOT_PLAYED
    return FOUND if any(row["violations"] for row in history.rows) else 0


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ci/soak",
        description="Random moves under random faults, by a seed: what must never be is looked for after each.",
    )
    parser.add_argument("--seed", type=int, default=1, help="decides every schedule (default 1)")
    parser.add_argument("--moves", type=_positive, default=20, help="how many (default 20)")
    parser.add_argument("--first", type=int, default=0, help="number of the first schedule (default 0)")
    parser.add_argument("--minutes", type=float, help="begin no move after so many minutes")
    parser.add_argument("--backend", choices=[simulated.BACKEND, lab_schedule.BACKEND], default=lab_schedule.BACKEND)
    parser.add_argument("--replay", type=Path, metavar="FILE", help="play the schedules of a history instead")
    parser.add_argument("--output", type=Path, help="directory (default soak-results/BACKEND-SEED)")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("at least 1")
    return number


def _again(wanted: argparse.Namespace) -> str:
    if wanted.replay:
        return shlex.join(["--replay", str(wanted.replay), "--backend", wanted.backend])
    what = ["--seed", str(wanted.seed), "--first", str(wanted.first), "--moves", str(wanted.moves)]
    return shlex.join([*what, "--backend", wanted.backend])


def _told(wanted: argparse.Namespace) -> Iterator[Row]:
    """Yield the schedules that are to be played."""
    if wanted.replay:
        yield from (row for row in schedules(wanted.replay) if row["backend"] == wanted.backend)
        return
    make = simulated.schedule if wanted.backend == simulated.BACKEND else lab_schedule.schedule
    yield from (make(wanted.seed, number) for number in range(wanted.first, wanted.first + wanted.moves))


def _simulated(told: Sequence[Row], history: History, deadline: float | None) -> None:
    waiting = iter(told)
    with ProcessPoolExecutor(max_workers=_JOBS) as pool:
        while chunks := [chunk for _ in range(_JOBS * 2) if (chunk := list(islice(waiting, _CHUNK)))]:
            for rows in pool.map(simulated.play_all, chunks):
                history.add(rows)
            if _over(deadline):
                return


def _lab(told: Sequence[Row], history: History, deadline: float | None) -> str:
    """Play on real hosts, in a new lab whenever one was left in a state with which no move can begin."""
    # Here and not above: the simulated half runs where there is no libvirt.
    from tests.soak.lab_scene import FAILURES, LabLeft

    waiting, labs_without_a_move = list(told), 0
    while waiting and not _over(deadline):
        before = len(waiting)
        try:
            _in_one_lab(waiting, history, deadline)
        except (*FAILURES, LabLeft) as failure:
            return f"{type(failure).__name__}: {failure}"
        labs_without_a_move = labs_without_a_move + 1 if len(waiting) == before else 0
        if labs_without_a_move == _LABS:
            return f"{_LABS} labs in a row could not begin a move"
    return ""


def _in_one_lab(waiting: list[Row], history: History, deadline: float | None) -> None:
    """Play what is waiting, until the scene is broken or the time is over."""
    from tests.soak.lab import Broken, Move, judged
    from tests.soak.lab_scene import scene

    with tempfile.TemporaryDirectory(prefix="rs-", ignore_cleanup_errors=True) as directory:
        with scene(Path(directory)) as made:
            try:
                while waiting and not _over(deadline):
                    move = Move(made, waiting[0], Path(directory))
                    waiting.pop(0)
                    played, broken = judged(move)
                    history.add([played.to_json()])
                    _say(history.rows[-1])
                    if broken:
                        raise Broken(broken)
            except Broken as reason:
                print(f"a new lab is needed: {reason}", file=sys.stderr)


def _over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _say(row: Row) -> None:
    told, found = row["schedule"], row["verdicts"]
    what = f"{told['fault'] or 'no fault'} at the {told['side']}" if told["fault"] else "no fault"
    moment = " ".join(told["moment"].values())
    ways = [told.get("hand_over") or "", "by force" if told.get("force") else ""]
    ways += [f"post-copy {told['post_copy']}"] if told.get("post_copy", "off") != "off" else []
    moment += "".join(f", {way}" for way in ways if way not in ("", "strict"))
    missed = "" if found.get("struck") or not told["fault"] else " (did not strike)"
    wrong = "".join(f"\n    MUST NOT BE: {v['what']}: {v['seen']}" for v in row["violations"])
    wrong += "".join(f"\n    limit: {v['what']}: {v['seen']}" for v in row["limits"])
    print(f"{told['number']:4} {what}, {moment}{missed}: {' -> '.join(row['ends'])}{wrong}", flush=True)


def _tell(history: History, output: Path) -> None:
    text = table(history.rows)
    (output / "summary.md").write_text(text + "\n", "utf-8")
    print(text)
    for row in history.rows:
        for violation in row["violations"]:
            number, seed = row["schedule"].get("number"), row["schedule"].get("seed")
            print(f"seed {seed} number {number}: {violation['what']}: {violation['seen']}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
