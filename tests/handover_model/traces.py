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
from refimpl.model.phase import ENDS, Phase
from refimpl.model.request import CommandKind, HandOver, PostCopy
from tests.handover_model import backend
from tests.handover_model.faults import KINDS
from tests.handover_model.mind import Key
from tests.handover_model.model import Bounds, Model, Move
from tests.handover_model.world import Options, State, never_told

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
        Kind.NATIVE_REFUSAL,
        Kind.SOURCE_GONE,
        Kind.CALL_RETURNED,
        Kind.EVIDENCE_SEEN,
        Kind.ADOPTED_STORAGE,
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
NO_BEGINNING = "a journal without a beginning"
OUTSIDE = {
    Kind.LEFT_PAUSED: "a VM that does not run",
    Kind.BLACKOUT_TOO_LONG: "a limit of the blackout",
    Kind.GUEST_ENDED: "a guest that ends itself",
    Kind.RECORD_REFUSED: "another controller takes the VM over",
    Kind.FENCE_DUE: "a host that is cut off",
    Kind.JOURNAL_LOST: "a journal or a store that fails",
    Kind.LOCK_DAEMON_GONE: "a lock daemon whose end is heard of",
    Kind.LEASE_SPACE_GONE: "a lease space that is not seen any more",
    Kind.POSTCOPY_SEEN: "a move that may use post-copy",
    Kind.POSTCOPY_WISHED: "a move that may use post-copy",
    Kind.CANCEL_UNSUPPORTED: "a transfer that cannot be cancelled",
}
"""What the model is not about."""

OPAQUE = "a hand-over of which nothing is shown"
ENDED = "a recovery of what has ended and left nothing"
_DECIDE_NOTHING = frozenset(
    {
        Kind.STARTED,
        Kind.BANDWIDTH_WISHED,
        Kind.FACTS_SEEN,
        Kind.CLAIMED,
        Kind.PENDING_RECORDED,
        Kind.COMMIT_RECORDED,
        Kind.SOURCE_RECORDED,
        Kind.DESTINATION_RECORDED,
        Kind.PREPARED,
        Kind.TRANSFER_STARTED,
        Kind.PASS_ENDED,
        Kind.PASS_LIMIT_REACHED,
        Kind.PROGRESS,
        Kind.SOURCE_STOPPED,
        Kind.SOURCE_RESUMED,
        Kind.STEERED,
        Kind.NOT_STEERABLE,
    }
)
"""Reports after the order to transfer by which nothing is decided, and answers of the conductor's own."""

_COMMANDS = frozenset(
    {
        *backend.KNOWN,
        CommandKind.RELEASE,
        CommandKind.RECORD_COMMIT,
        CommandKind.RECORD_SOURCE,
        CommandKind.RECORD_DESTINATION,
        CommandKind.WAIT_TO_LOOK,
        CommandKind.ANSWER_TOO_LATE,
    }
)
"""Commands that the model knows: the backend's and, from the transfer on, the conductor's own."""

_SAME = {
    f"decision {Kind.FINISHED_WITH_WARNINGS}": f"decision {Kind.FINISHED}",
    f"phase {Phase.COMPLETED_WITH_WARNINGS}": f"phase {Phase.COMPLETED}",
}
"""Warnings of a completed move come from figures, too, which the model has not."""

_ONLY_WITH_A_REACTION = frozenset({*_FIRST, Kind.SWITCH_SEEN, Kind.DESTINATION_ARRIVED, Kind.SOURCE_GONE})
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


class TooMany(ValueError):
    """A search that has grown too big."""


class NotModelled(ValueError):
    """The trace holds nothing that the model is about, or something that it leaves out."""


@dataclass(frozen=True)
class Story:
    """A trace as it is followed: what the controller was told first of all, and then one thing after the other."""

    first: tuple[Kind, ...]
    seen: tuple[Observed, ...]

    @property
    def ended(self) -> bool:
        """Whether the last controller has come to an end, and done what belongs to it."""
        if not self.seen or not self.seen[-1].notes:
            return False
        last = self.seen[-1].notes[-1]
        return last in (f"command {CommandKind.RELEASE}", f"phase {Phase.INDETERMINATE}")


_ENDS = frozenset(f"phase {end}" for end in ENDS)


def story(trace: Iterable[Event | Mapping[str, Any]]) -> Story:
    """Return what was told from the order to transfer on, each with what the engine did. NotModelled without one."""
    found: list[Observed] = []
    begun = planned = answered_by_itself = False
    for number, event in enumerate(trace):
        kind, values = _parts(event)
        planned = planned or kind is Kind.STARTED
        # Its journal was lost; the plan that the claim kept says that a transfer may have been ordered.
        begun = begun or (number == 0 and kind is Kind.RECOVER_WISHED)
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
            if kind is Kind.RECOVER_WISHED and _has_ended(found):
                raise NotModelled(ENDED)
            found.append(Observed(kind, values, ()))
        elif kind not in _DECIDE_NOTHING:
            raise NotModelled(f"the event {kind}")
    if not begun or any(f"decision {Kind.NOTHING_TOUCHED}" in one.notes for one in found):
        raise NotModelled(NO_TRANSFER if planned or found else NO_BEGINNING)
    first = 0
    while first < len(found) and found[first].kind in _FIRST:
        first += 1
    told = [one for one in found[first:] if not _says_nothing(one)]
    return Story(tuple(one.kind for one in found[:first]), tuple(told))


def _has_ended(found: Sequence[Observed]) -> bool:
    """Whether nothing is left to recover: the move has ended, and everything was cleaned up."""
    ends = _ENDS - {f"phase {Phase.INDETERMINATE}"}
    left = any(one.kind is Kind.LEFT_BEHIND for one in found)
    return not left and any(note in ends for one in found[-1:] for note in one.notes)


def _must_be_modelled(kind: Kind, values: Mapping[str, Any]) -> None:
    if kind in OUTSIDE:
        raise NotModelled(OUTSIDE[kind])
    if kind is Kind.CHECKS_PASSED:
        plan_must_be_modelled(values["plan"])
    if kind is Kind.EVIDENCE_SEEN and any(side["ended_by_guest"] for side in values["evidence"].values()):
        raise NotModelled(OUTSIDE[Kind.GUEST_ENDED])


def plan_must_be_modelled(plan: Mapping[str, Any]) -> None:
    """Raise NotModelled for a move that the model is not about."""
    if plan["vm_state"] != VmState.RUNNING:
        raise NotModelled(OUTSIDE[Kind.LEFT_PAUSED])
    if plan.get("post_copy", PostCopy.OFF) != PostCopy.OFF:
        raise NotModelled(OUTSIDE[Kind.POSTCOPY_SEEN])
    if plan["hand_over"] == HandOver.OPAQUE:
        raise NotModelled(OPAQUE)


def _add_note(found: list[Observed], note: str) -> None:
    """Note what the engine did on the last thing that it was told."""
    kind, _, name = note.partition(" ")
    if kind == "command" and name not in _COMMANDS:
        raise NotModelled(f"the command {name}")
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
    trace: Sequence[Event | Mapping[str, Any]],
    options: Options,
    most_faults: int = 2,
    *,
    apart: bool = False,
    most_states: int = MOST_STATES,
) -> Explanation:
    """Look for a path of the model that explains a trace, with no fault first, then with one more at a time.

    `apart`: the hosts may have been looked at one after the other; takes longer.
    """
    told = story(trace)
    best = Explanation(False)
    for faults in range(most_faults + 1):
        found = follow(told, options, faults, apart=apart, most_states=most_states)
        if found.accepted:
            return found
        best = max(best, found, key=lambda explanation: explanation.at)
    return best


def follow(
    told: Story,
    options: Options,
    faults: int,
    *,
    apart: bool,
    most_states: int = MOST_STATES,
    kinds: tuple[str, ...] = (),
) -> Explanation:
    """Look for a path of the model with so many faults. TooMany: there are more states at one moment than that.

    `kinds`: of these kinds of faults, instead of all.
    """
    return _Follower(options, told, faults, apart, most_states, kinds).follow()


def all_kinds(options: Options) -> tuple[str, ...]:
    """Return all kinds of faults that a move may meet."""
    return tuple(kind for kind in KINDS if kind != "lock" or options.lease)


class _Follower:
    """One attempt: all states that the model can be in after each thing observed."""

    def __init__(
        self, options: Options, told: Story, faults: int, apart: bool, most_states: int, kinds: tuple[str, ...] = ()
    ) -> None:
        seen = told.seen
        wishes = [one.kind for one in seen]
        again = wishes.count(Kind.RECOVER_WISHED)
        self._cut = bool(seen) and not told.ended
        bounds = Bounds(
            faults=faults,
            kinds=kinds or all_kinds(options),
            deaths=again + self._cut,
            recoveries=again,
            hasty=wishes.count(Kind.DEADLINE),
            cancels=wishes.count(Kind.CANCEL_WISHED),
            late_cancels=True,
            stalls=True,
            apart=apart,
        )
        self._model = Model(options, bounds)
        self._first = told.first
        self._seen = seen
        self._faults = faults
        self._most_states = most_states

    def follow(self) -> Explanation:
        """Go through the trace."""
        states = {self._model.begin(self._first)}
        if not self._first and self._seen and self._seen[0].kind is Kind.RECOVER_WISHED:
            # The controller may have died before the source was told.
            states.add(never_told(self._model.begin()))
        if self._seen and self._seen[0].kind is Kind.NATIVE_REFUSAL:
            states = {never_told(self._model.begin(()))._replace(inbox=((Kind.NATIVE_REFUSAL,),))}
        last = len(self._seen) - 1
        for at, seen in enumerate(self._seen):
            killed = self._cut if at == last else self._seen[at + 1].kind is Kind.RECOVER_WISHED
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
                if len(met) > self._most_states:
                    raise TooMany(f"more than {self._most_states} states at one moment")

    def _same(self, key: Key, values: Mapping[str, Any]) -> bool:
        match key[0]:
            case Kind.BINDING_SEEN:
                return bool(key[1] is values["bound"])
            case Kind.DEADLINE:
                return bool(key[1] == values["name"])
            case Kind.CALL_RETURNED:
                # One that was followed has no answer of its own on real hosts; simulated ones tell it all the same.
                return bool((key[1] != "ok") or values.get("ok") is not False)
            case Kind.EVIDENCE_SEEN:
                evidence, views = values["evidence"], self._model.minds.views
                return _alike(views[key[1]], evidence["source"]) and _alike(views[key[2]], evidence["destination"])
        return True


def _alike(view: CopySeen, seen: Mapping[str, Any]) -> bool:
    """Whether a side of the model shows what was seen. Of a silent one nothing else counts."""
    if not seen["reachable"] or not view.reachable:
        return bool(seen["reachable"] == view.reachable)
    if seen["state"] == VmState.PLANNED and view.state is VmState.ABSENT:
        # A place is kept for it: there is no copy yet.
        seen = {**seen, "state": VmState.ABSENT}
    # A daemon may take a while to close the job of a copy that has died.
    names = ("state", "bound", "arrived") + (() if view.state in (VmState.OFF, VmState.ABSENT) else ("job_open",))
    return all(seen[name] == getattr(view, name) for name in names)


def _why(seen: Observed, offered: set[str]) -> str:
    did = ", ".join(seen.notes) or "nothing"
    heard = f"{seen.kind} {dict(seen.values)}" if seen.values else str(seen.kind)
    could = "; ".join(sorted(text for text in offered if str(seen.kind) in text)[:5]) or "nothing of the kind"
    return f"told {heard}, it did: {did}. The model has there: {could}"
