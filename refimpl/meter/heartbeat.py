"""The heartbeat as a whole: on the line channel, which may lose nothing, every number has to be there exactly once.

This says whether the guest went on as one and the same guest, not how long it stood still: see `outside_gap` and
`blackout` for that. The numbers are judged per boot; a guest that was started again did not survive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from refimpl.meter.lines import JoinedLog
from refimpl.meter.verdict import State, Verdict, not_measured

NAME = "heartbeat"


@dataclass(frozen=True, slots=True)
class Continuity:
    """Numbers of one boot. `lines` and `beats`: how many different ones; missing ones are counted up to the highest.

    Missing lines were lost by the channel; a beat that is missing while no line is was never sent. Duplicated: lines
    that stand in the files more than once, which is what two running copies of a guest leave behind.
    """

    lines: int
    lines_missing: int
    first_missing: int | None
    beats: int
    beats_missing: int
    duplicated: int
    reordered: int
    torn: int
    unreadable: int


def missing_numbers(numbers: Iterable[int]) -> list[int]:
    """Return the numbers from 1 to the highest that are not there, ascending."""
    present = set(numbers)
    return [number for number in range(1, max(present, default=0) + 1) if number not in present]


def continuity(log: JoinedLog, boot: str) -> Continuity:
    """Count what is there and what is not, of one boot."""
    seen = Counter(line.sequence for line in log.lines if line.boot == boot)
    beats = {int(line.fields[0]) for line in log.of_kind("beat", boot=boot)}
    missing = missing_numbers(seen)
    return Continuity(
        lines=len(seen),
        lines_missing=len(missing),
        first_missing=missing[0] if missing else None,
        beats=len(beats),
        beats_missing=len(missing_numbers(beats)),
        duplicated=sum(count - 1 for count in seen.values()),
        reordered=log.reordered,
        torn=log.torn,
        unreadable=len(log.unreadable),
    )


def heartbeat_verdict(log: JoinedLog, boot: str, last_host: str) -> Verdict:
    """Judge the line channel of the boot that ran before the move; `last_host` is where the guest has to be now.

    Bad: a number is missing, doubled or out of order, or the guest was started again. Not measured: nothing of that
    boot, or its newest line is not from `last_host`.
    """
    found = continuity(log, boot)
    newest = log.last_sequence(boot)
    if not newest:
        return not_measured(NAME, f"no line of boot {boot}")
    on_last = log.last_sequence(boot, last_host)
    figures = {name: getattr(found, name) for name in Continuity.__slots__}
    figures["lines_on_last_host"] = sum(line.boot == boot and line.host == last_host for line in log.lines)
    faults = _faults(found, restarted=log.boots[-1] != boot)
    if faults:
        return Verdict(NAME, State.BAD, "; ".join(faults), figures)
    if on_last < newest:
        return not_measured(
            NAME, f"no newer line on host {last_host} than elsewhere: the guest is not heard", **figures
        )
    text = f"{found.beats} heartbeats in {found.lines} lines, none missing, doubled or out of order"
    return Verdict(NAME, State.OK, text, figures)


def _faults(found: Continuity, restarted: bool) -> Sequence[str]:
    faults = []
    if restarted:
        faults.append("the guest was started again")
    if found.lines_missing:
        faults.append(f"{found.lines_missing} lines lost, the first is number {found.first_missing}")
    if found.beats_missing and not found.lines_missing:
        faults.append(f"{found.beats_missing} heartbeats never sent")
    if found.duplicated:
        faults.append(f"{found.duplicated} lines doubled: two copies may have run")
    if found.reordered:
        faults.append(f"{found.reordered} lines out of order")
    return faults
