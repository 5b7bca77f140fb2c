"""The whole model: hosts, backend and controller side by side, what may happen next, and what must never have happened.

`Model.moves` yields every next state of a state. Faults come only while a controller has not come to an end, repairs
(thaw, restart, link back) always, and what a daemon still has to do goes on after every end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from refimpl.engine.phases import DEADLINES
from refimpl.engine.step import step as table_step
from refimpl.model.events import Kind
from refimpl.model.phase import ENDS, Phase
from refimpl.model.request import HandOver
from tests.handover_model import backend, disks, world
from tests.handover_model.faults import faults, repairs
from tests.handover_model.mind import Key, Minds, Step, Taken
from tests.handover_model.world import DESTINATION_ALIVE, Options, State, newest_is_there, tidy, unawaited


@dataclass(frozen=True)
class Bounds:
    """How much may happen: faults of these kinds, deaths of the controller, recoveries after an end that left something
    open, deadlines that come although things still move, cancels by a person.

    `stalls`: an early deadline may be one of a transfer that carries nothing.
    `late_cancels`: cancels also come when it is too late. `apart`: both hosts are looked at one after the other, in any
    order, and not in one moment.
    """

    faults: int = 1
    kinds: tuple[str, ...] = ("freeze", "crash", "link")
    deaths: int = 0
    recoveries: int = 1
    hasty: int = 0
    cancels: int = 0
    stalls: bool = False
    late_cancels: bool = False
    apart: bool = False


class Move(NamedTuple):
    """What happens, and the state after. `own`: nobody has to come and help for it; `notes`: what the engine did."""

    what: str
    state: State
    own: bool = True
    notes: tuple[str, ...] = ()
    key: Key = ()
    dies: bool = False

    def __str__(self) -> str:
        """Return it as a line of a trace."""
        said = " ".join(str(part) for part in self.key if not isinstance(part, int) or isinstance(part, bool))
        heard = f"controller hears {said}" if self.key else ""
        dies = "it is killed in the middle" if self.dies else ""
        notes = f" -> {', '.join(self.notes)}" if self.notes else ""
        return "; ".join(part for part in (self.what, heard, dies) if part) + notes


_TAPS: dict[str, Key] = {
    "switch": (Kind.SWITCH_SEEN,),
    "arrived": (Kind.DESTINATION_ARRIVED,),
    "ran": (Kind.DESTINATION_RAN,),
    "gone": (Kind.SOURCE_GONE,),
    "storage": (Kind.STORAGE_SEEN,),
    "memory": (Kind.MEMORY_SEEN,),
    "look-due": (Kind.LOOK_DUE,),
}
DUAL = "two copies run"
FILE_GONE = "the file is gone that has the disk as it was last"
TWO_HISTORIES = "both copies ran with memory of their own: what one of them acknowledged is lost"
THROWN = "the newest memory was thrown away by no fault of a QEMU"
NEEDLESS = "a person is needed although every host answered all the time"

_MAY_BE_HASTY = (Phase.SWITCH, Phase.COMMITTED)
_MAY_STALL = (Phase.STORAGE, Phase.MEMORY)
_BEFORE_SWITCH = (Phase.SETUP, Phase.STORAGE, Phase.MEMORY)


class Model:
    """The state space of one set of guards within bounds."""

    def __init__(self, options: Options, bounds: Bounds, step: Step = table_step) -> None:
        self.options, self.bounds = options, bounds
        hand_over = HandOver.STRICT if options.strict else HandOver.DELEGATED
        self.minds = Minds(hand_over, step, mortal=bounds.deaths > 0, first_look=options.ends_silent)

    def begin(self, told: Sequence[Kind] | None = None) -> State:
        """Return the state in which the transfer has been ordered and the controller was told so much of it.

        None: what comes first of all, that memory is being sent, or disks.
        """
        if told is None:
            told = (Kind.STORAGE_SEEN,) if self.options.disks else (Kind.MEMORY_SEEN,)
        taken, bounds = self.minds.begin(told), self.bounds
        names = {name for name, (kind,) in _TAPS.items() if kind in told}
        return world.begin(self.options, disks_done="memory" in names)._replace(
            taps=frozenset(_shown_first(self.options) - names),
            told=frozenset(names) if self.options.disks else frozenset(),
            mind=taken.mind,
            kept=taken.kept,
            call="running",
            faults=bounds.faults,
            deaths=bounds.deaths,
            recoveries=bounds.recoveries,
            hasty=bounds.hasty,
            cancels=bounds.cancels,
        )

    def phase(self, state: State) -> Phase:
        """Return the phase that the last controller was in."""
        return self.minds[state.mind].phase

    def has_ended(self, state: State) -> bool:
        """Whether the last controller has come to an end."""
        return not state.alive and self.phase(state) in ENDS

    def moves(self, state: State) -> Iterator[Move]:
        """Yield every next state, without what can have no effect any more."""
        for move in self._moves(state):
            after = tidy(move.state)
            yield move if after is move.state else move._replace(state=after)

    def _moves(self, state: State) -> Iterator[Move]:
        if "switch" in state.taps:
            yield from self._hears_tap(state._replace(taps=state.taps - {"switch"}), "switch")
            return
        if state.inbox:
            # What a step of the backend tells is told at once: the step itself may be late.
            key, *others = state.inbox
            yield from self._hears(state._replace(inbox=tuple(others)), key, "")
            return
        count = 0
        for move in self._own_moves(state):
            count += 1
            yield move
        phase = self.phase(state)
        if state.alive and phase in DEADLINES:
            # What the backend waits for is given up long before a phase is.
            troubled = not state.tasks and (state.sd != "up" or state.dd != "up" or not state.link)
            if count == 0 or troubled:
                yield from self._hears(state, (Kind.DEADLINE, str(phase)), "the deadline of the phase passes")
            elif state.hasty and (phase in _MAY_BE_HASTY or (self.bounds.stalls and phase in _MAY_STALL)):
                early = state._replace(hasty=state.hasty - 1, quiet=False)
                yield from self._hears(early, (Kind.DEADLINE, str(phase)), "the deadline of the phase comes early")
        for what, after in repairs(self.options, state):
            yield Move(what, after, own=False)
        yield from self._misfortunes(state, phase)

    def _own_moves(self, state: State) -> Iterator[Move]:
        for what, after in world.own_moves(self.options, state):
            yield Move(what, after)
        if not state.alive:
            return
        for name in sorted(state.taps):
            yield from self._hears_tap(state._replace(taps=state.taps - {name}), name)
        for does in backend.steps(self.options, self.minds, state, self.bounds.apart):
            if does.tells is None:
                yield Move(does.what, does.state)
            else:
                yield from self._hears(does.state, does.tells, does.what)

    def _hears_tap(self, state: State, name: str) -> Iterator[Move]:
        yield from self._hears(state, _TAPS[name], "")
        if name == "look-due":
            impatient = state._replace(mind=self.minds.impatient(state.mind))
            if impatient.mind != state.mind:
                yield from self._hears(impatient, _TAPS[name], "for the last time")

    def _misfortunes(self, state: State, phase: Phase) -> Iterator[Move]:
        if state.faults and not self.has_ended(state):
            for what, after in faults(self.options, state, self.bounds.kinds):
                yield Move(what, after, own=False)
        if state.alive and state.cancels and (phase in _BEFORE_SWITCH or self.bounds.late_cancels):
            wished = state._replace(cancels=state.cancels - 1)
            yield from self._hears(wished, (Kind.CANCEL_WISHED,), "a person wishes to cancel")
        if state.alive and state.deaths:
            yield Move("FAULT: the controller is killed", _dies(state._replace(deaths=state.deaths - 1)), own=False)
        if not state.alive:
            yield from self._recoveries(state, phase)

    def _recoveries(self, state: State, phase: Phase) -> Iterator[Move]:
        if phase in ENDS:
            left = phase is Phase.INDETERMINATE or bool(self.minds[state.mind].ledger.left_behind)
            if not (left and state.recoveries):
                return
            state = state._replace(recoveries=state.recoveries - 1)
        well = state.sd == state.dd == "up" and state.link and state.slock and state.dlock
        well = well and not state.sbox and not state.dbox and not state.ailing and "dead" not in (state.sq, state.dq)
        fresh = state._replace(alive=True, quiet=well)
        wish: Key = (Kind.RECOVER_WISHED,)
        known = fresh._replace(mind=self.minds.from_journal(state.mind, state.kept))
        yield from self._hears(known, wish, "REPAIR: recovered by its journal")
        if phase not in ENDS:
            mind, kept = self.minds.lost_journal(state.mind)
            yield from self._hears(fresh._replace(mind=mind, kept=kept), wish, "REPAIR: recovered without a journal")

    def _hears(self, state: State, key: Key, what: str) -> Iterator[Move]:
        """Yield every way in which the controller takes an event."""
        ways = self.minds.take(state.mind, state.kept, key)
        own = not what.startswith("REPAIR")
        for taken in ways if state.deaths else ways[:1]:
            yield Move(what, self._after(state, taken), own and not taken.dies, taken.notes, key, taken.dies)

    def _after(self, state: State, taken: Taken) -> State:
        after = state._replace(mind=taken.mind, kept=taken.kept)
        for command in taken.commands:
            after = backend.submit(after, command)
        if taken.waits:
            after = after._replace(taps=after.taps | {"look-due"})
        if taken.dies:
            return _dies(after._replace(deaths=after.deaths - 1))
        return _dies(after) if self.minds[taken.mind].phase in ENDS else after


def _shown_first(options: Options) -> set[str]:
    """Return what a controller may be told right after the order: that of memory, once disks are done."""
    return {"storage"} if options.disks else {"memory"}


def _dies(state: State) -> State:
    """Let the controller's process end: what it had asked of a daemon stays asked, nobody hears the answer."""
    return unawaited(state)._replace(
        alive=False,
        tasks=(),
        inbox=(),
        taps=frozenset(),
        told=frozenset(),
        call="",
        watching=False,
        ending=False,
        pidfd=False,
        cancelling=False,
    )


def violation(model: Model, state: State) -> str | None:
    """Return what is wrong with a state, None when nothing is."""
    if state.sq == "running" and state.dq == "running":
        return DUAL
    if state.sran and state.dran:
        return TWO_HISTORIES
    if not state.burnt and not newest_is_there(state):
        return THROWN
    if model.options.disks and disks.newest_is_gone(state):
        return FILE_GONE
    return _untrue(state, model.phase(state)) if model.has_ended(state) else None


def _untrue(state: State, end: Phase) -> str | None:
    source, destination = state.sq == "running", state.dq == "running"
    if end in (Phase.COMPLETED, Phase.COMPLETED_WITH_WARNINGS):
        excused = state.burnt and state.dq not in DESTINATION_ALIVE
        return f"ended {end}, and the destination does not run" if not (destination or excused) or source else None
    if end in (Phase.FAILED, Phase.CANCELLED, Phase.REFUSED):
        excused = state.burnt and state.sq in ("dead", "off")
        return f"ended {end}, and the source does not run" if not (source or excused) or destination else None
    if end is Phase.LOST:
        return "ended lost, and a copy with the newest memory is there" if newest_is_there(state) else None
    if end is Phase.DUAL_RUN:
        return None if state.sran and state.dran else "ended dual-run, and never did two copies run"
    # Only a person can tell whether a source that died unseen had run again, while the other copy waits.
    doubtful = state.sq == "off" and state.dq == "arrived"
    excused = doubtful or "dead" in (state.sq, state.dq)
    return NEEDLESS if state.quiet and not excused else None
