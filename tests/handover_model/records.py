"""Records of moves: where they are read from, which guards a move had, and whether it could have happened in the model.

A record that the model is not about is not checked, and says why; it is never taken for explained.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

from refimpl.model.events import Event, Kind
from refimpl.model.request import HandOver, VmState
from tests.handover_model.traces import (
    MOST_STATES,
    NotModelled,
    Observed,
    Story,
    TooMany,
    follow,
    plan_must_be_modelled,
    story,
)
from tests.handover_model.world import Options

Trace = Sequence[Event | Mapping[str, Any]]

NO_PLAN = "a record without its plan"
LEASE_FORGOTTEN = "a source that runs on without its lease, its lock daemon alive, and the other host is silent"
"""libvirt has given it back, and QEMU let the VM run: with a host that does not answer, that is what decides."""

MOST_FAULTS = 2
"""With how many faults of the hosts a move is tried to be explained."""


class Word(StrEnum):
    """What the model says of a record."""

    EXPLAINED = "explained"
    NOT_CHECKED = "not checked"
    REFUSED = "could not have happened"


class Judgement(NamedTuple):
    """What the model says of a record, with how many faults it happened, and why it was not explained or checked.

    `whole`: every path within the bounds was tried.
    """

    word: Word
    why: str = ""
    faults: int = 0
    whole: bool = True


_KNOWN: dict[tuple[object, ...], Judgement] = {}


def judge(
    trace: Trace,
    guards: Options | None = None,
    most_states: int = MOST_STATES,
    *,
    kept: Mapping[str, Any] | None = None,
) -> Judgement:
    """Say whether a move could have happened; `guards` are told by the record itself where they are not given.

    `kept`: the plan by which it was recovered when its journal was lost.
    """
    values = [event.to_json() if isinstance(event, Event) else event for event in trace]
    try:
        told = story(values)
        options = guards or guards_of(values, kept)
    except NotModelled as outside:
        return Judgement(Word.NOT_CHECKED, str(outside))
    if options.lease and _lease_forgotten(values):
        return Judgement(Word.NOT_CHECKED, LEASE_FORGOTTEN)
    name = (options, most_states, told.first, *(_name(one) for one in told.seen))
    if name not in _KNOWN:
        _KNOWN[name] = _judge(told, options, most_states)
    return _KNOWN[name]


def _lease_forgotten(values: Sequence[Mapping[str, Any]]) -> bool:
    if any(event["kind"] == Kind.LOCK_DAEMON_GONE for event in values):
        return False
    looks = [event["values"]["evidence"] for event in values if event["kind"] == Kind.EVIDENCE_SEEN]
    return any(
        look["source"]["state"] == VmState.RUNNING
        and look["source"]["lease_held"] is False
        and not look["destination"]["reachable"]
        for look in looks
    )


def _judge(told: Story, options: Options, most_states: int) -> Judgement:
    """Try with no fault first. What would take more states than are looked at is not explained within the bounds."""
    why = too_many = ""
    for faults, apart in product(range(MOST_FAULTS + 1), (False, True)):
        for kinds in _attempts(options, faults):
            try:
                found = follow(told, options, faults, apart=apart, most_states=most_states, kinds=kinds)
            except TooMany as reason:
                too_many = f"{reason} with {faults} faults"
                continue
            if found.accepted:
                return Judgement(Word.EXPLAINED, faults=faults)
            why = found.why
            if not kinds:
                break
    if too_many:
        return Judgement(Word.REFUSED, f"{why or 'nothing was tried to its end'} ({too_many})", whole=False)
    return Judgement(Word.REFUSED, why)


def _attempts(options: Options, faults: int) -> Iterator[tuple[str, ...]]:
    """Yield the kinds of faults to try: all at once, and where that is too much, no more at a time than are met."""
    yield ()
    if faults:
        yield from combinations(_kinds(options), faults)


def _kinds(options: Options) -> list[str]:
    """Return the kinds of faults that a move may meet, those first after which there are the fewest states."""
    few = ("order", "stream", "power", "qemu", "freeze", "crash", "link")
    return [*few, *(["lock"] if options.lease else [])]


def _name(seen: Observed) -> tuple[object, ...]:
    """Return what an observation is told apart by: texts, times and operations are not."""
    values: dict[str, Any] = dict(seen.values)
    values.pop("reason", None)
    if "evidence" in values:
        sides = values["evidence"].values()
        named = ("reachable", "state", "bound", "arrived", "job_open")
        values["evidence"] = [[side[name] for name in named] for side in sides]
    kept = {name: values[name] for name in ("bound", "name", "ok", "evidence") if name in values}
    return seen.kind, json.dumps(kept, sort_keys=True), seen.notes


def guards_of(trace: Sequence[Mapping[str, Any]], kept: Mapping[str, Any] | None = None) -> Options:
    """Return what guarded a move: its hand-over by the plan, a lease by what was seen. NotModelled without a plan.

    Where nothing was seen, as the journal was lost, it had a lease: the checks let nothing pass without one.
    """
    plan = next((event["values"]["plan"] for event in trace if event["kind"] == Kind.CHECKS_PASSED), kept)
    if plan is None:
        raise NotModelled(NO_PLAN)
    plan_must_be_modelled(plan)
    seen = [event["values"]["facts"]["hosts"].values() for event in trace if event["kind"] == Kind.FACTS_SEEN]
    vms = [vm for hosts in seen for host in hosts for vm in host["vms"] if vm["id"] == plan["vm_id"]]
    strict = plan["hand_over"] == HandOver.STRICT
    lease = not vms or any(vm["lease"] is not None for vm in vms)
    disks = bool(plan["storage"] and plan["storage"]["disks"])
    return Options(strict=strict, lease=lease, ends_silent=strict, disks=disks)


def read_record(path: Path) -> list[dict[str, Any]]:
    """Return the events of an operation's journal, or of a file of JSON lines. OSError, ValueError: it is neither."""
    with path.open("rb") as file:
        is_journal = file.read(15) == b"SQLite format 3"
    if is_journal:
        with sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True) as journal:
            lines = [line for (line,) in journal.execute("SELECT line FROM events ORDER BY seq")]
    else:
        lines = path.read_text("utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    return [event for event in events if "kind" in event and "values" in event]
