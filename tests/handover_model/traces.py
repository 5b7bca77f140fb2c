"""Whether a recorded move could have happened in the model: some path of it explains all that was observed.

A trace is the event stream of one operation (`Event`s, or the JSON values that a journal keeps), recoveries included.
What the engine decided, entered and commanded has to be exactly what the real engine does on what it was told; what it
was told has to be what the hosts of the model can show at that point, with as few faults as will do. Left out:
everything before the transfer is ordered, figures, and reports that change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from refimpl.model.events import DECISIONS, Event, Kind
from refimpl.model.facts import CopySeen, VmState
from refimpl.model.phase import Phase
from refimpl.model.request import CommandKind, PostCopy
from tests.handover_model.mind import Key
from tests.handover_model.model import Bounds, Model, Move
from tests.handover_model.world import Options, State

MOST_STATES = 200_000
"""More states at one moment of a trace than any needs: a search that grows beyond is given up, with an error."""

_TOLD = frozenset(
    {
        Kind.RECOVER_WISHED,
        Kind.DEADLINE,
        Kind.LOOK_DUE,
        Kind.CANCEL_WISHED,
        Kind.CANCEL_ACCEPTED,
        Kind.CANCEL_TOO_LATE,
        Kind.SWITCH_SEEN,
        Kind.DESTINATION_ARRIVED,
        Kind.BINDING_SEEN,
        Kind.SOURCE_ENDED,
        Kind.SOURCE_NOT_ENDED,
        Kind.DESTINATION_RAN,
        Kind.RUN_REFUSED,
        Kind.SOURCE_GONE,
        Kind.CALL_RETURNED,
        Kind.EVIDENCE_SEEN,
        Kind.ADOPTED_MEMORY,
        Kind.ADOPTED_SWITCH,
        Kind.SETTLED,
        Kind.CANNOT_SETTLE,
        Kind.CLEANED,
        Kind.LEFT_BEHIND,
    }
)
_FIRST = (Kind.STORAGE_SEEN, Kind.MEMORY_SEEN)
NO_TRANSFER = "no transfer was ordered"
OUTSIDE = {
    Kind.LEFT_PAUSED: "a VM that does not run",
    Kind.BLACKOUT_TOO_LONG: "a limit of the blackout",
    Kind.ADOPTED_STORAGE: "disks are copied when a controller takes the move up",
    Kind.GUEST_ENDED: "a guest that ends itself",
    Kind.RECORD_REFUSED: "another controller takes the VM over",
    Kind.JOURNAL_LOST: "a journal or a store that fails",
    Kind.LOCK_DAEMON_GONE: "a lock daemon whose end is heard of",
    Kind.LEASE_SPACE_GONE: "a lease space that is not seen any more",
    Kind.POSTCOPY_SEEN: "a move that may use post-copy",
}
"""What the model is not about."""

_SAME = {
    f"decision {Kind.FINISHED_WITH_WARNINGS}": f"decision {Kind.FINISHED}",
    f"phase {Phase.COMPLETED_WITH_WARNINGS}": f"phase {Phase.COMPLETED}",
}
"""Warnings of a completed move come from figures, too, which the model has not."""

_ONLY_WITH_A_REACTION = frozenset({Kind.SWITCH_SEEN, Kind.DESTINATION_ARRIVED, Kind.SOURCE_GONE})
_FOREIGN = frozenset({f"command {CommandKind.STEER_BANDWIDTH}", f"command {CommandKind.STEER_SWITCH}"})
"""Commands by which nothing is decided: a person or the passes call for them."""


class Observed(NamedTuple):
    """One thing that the controller was told, and what it did then."""

    kind: Kind
    values: Mapping[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """Whether a trace is explained, and with how many faults; `at`, `why`: the first thing without an explanation."""

    accepted: bool
    faults: int = 0
    at: int = -1
    why: str = ""


class NotModelled(ValueError):
    """The trace holds nothing that the model is about, or something that it leaves out."""


@dataclass(frozen=True)
class Story:
    """A trace as it is followed: what the controller was told first of all, and then one thing after the other."""

    first: tuple[Kind, ...]
    seen: tuple[Observed, ...]


def story(trace: Iterable[Event | Mapping[str, Any]]) -> Story:
    """Return what was told from the order to transfer on, each with what the engine did. NotModelled without one."""
    found: list[Observed] = []
    begun = answered_by_itself = False
    for event in trace:
        kind, values = _parts(event)
        _must_be_modelled(kind, values)
        note = _note(kind, values)
        if not begun:
            begun = note == f"command {CommandKind.START_TRANSFER}"
        elif note:
            answered_by_itself = note == f"command {CommandKind.ANSWER_TOO_LATE}"
            _add_note(found, note)
        elif kind is Kind.CANCEL_TOO_LATE and answered_by_itself:
            continue
        elif kind in _TOLD or kind in _FIRST:
            found.append(Observed(kind, values, ()))
    if not begun:
        raise NotModelled(NO_TRANSFER)
    first = 0
    while first < len(found) and found[first].kind in _FIRST:
        first += 1
    told = [one for one in found[first:] if one.kind not in _FIRST and not _says_nothing(one)]
    return Story(tuple(one.kind for one in found[:first]), tuple(told))


def _must_be_modelled(kind: Kind, values: Mapping[str, Any]) -> None:
    if kind in OUTSIDE:
        raise NotModelled(OUTSIDE[kind])
    if kind is Kind.CHECKS_PASSED and values["plan"]["vm_state"] != VmState.RUNNING:
        raise NotModelled(OUTSIDE[Kind.LEFT_PAUSED])
    if kind is Kind.CHECKS_PASSED and values["plan"].get("post_copy", PostCopy.OFF) != PostCopy.OFF:
        raise NotModelled(OUTSIDE[Kind.POSTCOPY_SEEN])
    if kind is Kind.EVIDENCE_SEEN and any(side["ended_by_guest"] for side in values["evidence"].values()):
        raise NotModelled(OUTSIDE[Kind.GUEST_ENDED])


def _add_note(found: list[Observed], note: str) -> None:
    """Note what the engine did on the last thing that it was told."""
    if found and note not in _FOREIGN:
        found[-1] = found[-1]._replace(notes=(*found[-1].notes, _SAME.get(note, note)))


def _parts(event: Event | Mapping[str, Any]) -> tuple[Kind, Mapping[str, Any]]:
    if isinstance(event, Event):
        event = event.to_json()
    try:
        return Kind(event["kind"]), event["values"]
    except ValueError as unknown:
        raise NotModelled(f"an event of another version: {unknown}") from unknown


def _note(kind: Kind, values: Mapping[str, Any]) -> str:
    if kind is Kind.PHASE_ENTERED:
        return f"phase {values['phase']}"
    if kind is Kind.COMMANDED:
        return f"command {values['command']['kind']}"
    # That the passes are over comes from figures, and only steers.
    return f"decision {kind}" if kind in DECISIONS and kind is not Kind.PASS_LIMIT_REACHED else ""


def _says_nothing(seen: Observed) -> bool:
    if seen.kind is Kind.BINDING_SEEN:
        return not (seen.values["bound"] or seen.notes)
    return seen.kind in _ONLY_WITH_A_REACTION and not seen.notes


def explain(
    trace: Sequence[Event | Mapping[str, Any]], options: Options, most_faults: int = 2, *, apart: bool = False
) -> Explanation:
    """Look for a path of the model that explains a trace, with no fault first, then with one more at a time.

    `apart`: the hosts may have been looked at one after the other; takes longer.
    """
    told_story = story(trace)
    best = Explanation(False)
    for faults in range(most_faults + 1):
        told = _Follower(options, told_story, faults, apart).follow()
        if told.accepted:
            return told
        best = max(best, told, key=lambda explanation: explanation.at)
    return best


class _Follower:
    """One attempt: all states that the model can be in after each thing observed."""

    def __init__(self, options: Options, told: Story, faults: int, apart: bool) -> None:
        seen = told.seen
        wishes = [one.kind for one in seen]
        again = wishes.count(Kind.RECOVER_WISHED)
        kinds = ("freeze", "crash", "qemu", "link") + (("lock",) if options.lease else ())
        bounds = Bounds(
            faults=faults,
            kinds=kinds,
            deaths=again,
            recoveries=again,
            hasty=wishes.count(Kind.DEADLINE),
            cancels=wishes.count(Kind.CANCEL_WISHED),
            late_cancels=True,
            apart=apart,
        )
        self._model = Model(options, bounds)
        self._first = told.first
        self._seen = seen
        self._faults = faults

    def follow(self) -> Explanation:
        """Go through the trace."""
        states = {self._model.begin(self._first)}
        last = len(self._seen) - 1
        for at, seen in enumerate(self._seen):
            killed = at < last and self._seen[at + 1].kind is Kind.RECOVER_WISHED
            after, offered = self._after(states, seen, killed)
            if not after:
                return Explanation(False, self._faults, at, _why(seen, offered))
            states = after
        return Explanation(True, self._faults)

    def _after(self, states: set[State], seen: Observed, killed: bool) -> tuple[set[State], set[str]]:
        """Return the states after one thing more. `killed`: the controller may have died amid its answer."""
        after: set[State] = set()
        offered: set[str] = set()
        for before, move in self._unseen(states, unheard=seen.kind is Kind.RECOVER_WISHED):
            if not move.key:
                continue
            if move.key[0] is seen.kind and self._same(move.key, seen.values):
                done = tuple(_SAME.get(note, note) for note in move.notes if note not in _FOREIGN)
                if done == seen.notes and (killed or not move.dies):
                    after.add(move.state)
                elif killed and done[: len(seen.notes)] == seen.notes:
                    # It had not come far enough for anybody else to notice.
                    after.add(before)
            offered.add(str(move))
        return after, offered

    def _unseen(self, states: set[State], *, unheard: bool) -> Iterator[tuple[State, Move]]:
        """Yield all states that can be reached without the controller being told anything, with all their moves.

        `unheard`: a controller that was killed may have been told things that its journal lost.
        """
        met, border = set(states), list(states)
        while border:
            state = border.pop()
            for move in self._model.moves(state):
                yield state, move
                if (move.key and not (unheard and state.alive)) or move.state in met:
                    continue
                met.add(move.state)
                border.append(move.state)
                if len(met) > MOST_STATES:
                    raise NotModelled(f"more than {MOST_STATES} states at one moment")

    def _same(self, key: Key, values: Mapping[str, Any]) -> bool:
        match key[0]:
            case Kind.BINDING_SEEN:
                return bool(key[1] is values["bound"])
            case Kind.DEADLINE:
                return bool(key[1] == values["name"])
            case Kind.CALL_RETURNED:
                return bool((key[1] in ("failed", "lost", "cancelled")) or values.get("ok") is not False)
            case Kind.EVIDENCE_SEEN:
                evidence, views = values["evidence"], self._model.minds.views
                return _alike(views[key[1]], evidence["source"]) and _alike(views[key[2]], evidence["destination"])
        return True


def _alike(view: CopySeen, seen: Mapping[str, Any]) -> bool:
    """Whether a side of the model shows what was seen. Of a silent one nothing else counts."""
    if not seen["reachable"] or not view.reachable:
        return bool(seen["reachable"] == view.reachable)
    # A daemon may take a while to close the job of a copy that has died.
    names = ("state", "bound", "arrived") + (() if view.state in (VmState.OFF, VmState.ABSENT) else ("job_open",))
    return all(seen[name] == getattr(view, name) for name in names)


def _why(seen: Observed, offered: set[str]) -> str:
    did = ", ".join(seen.notes) or "nothing"
    heard = f"{seen.kind} {dict(seen.values)}" if seen.values else str(seen.kind)
    could = "; ".join(sorted(text for text in offered if str(seen.kind) in text)[:5]) or "nothing of the kind"
    return f"told {heard}, it did: {did}. The model has there: {could}"
