"""What the libvirt backend does for each command, step by step, and what it sees: after its code and its contract.

What both sides show goes through the backend's own pure functions (`Status`, `judge_binding`, `has_switched`). Between
any two steps the hosts may move. A request to a daemon goes into its inbox: a frozen one carries it out when it thaws,
whether anybody still waits for the answer or not. Left out: marks (every copy is this operation's), ports, networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from refimpl.backends.libvirt.follow import has_switched
from refimpl.backends.libvirt.status import Status, judge_binding
from refimpl.model.events import Kind
from refimpl.model.facts import CopySeen, VmState
from refimpl.policy.reconciliation import SILENT_MS
from tests.handover_model import disks
from tests.handover_model.mind import UNANSWERED, Key, Minds
from tests.handover_model.world import (
    CAN_BE_BROKEN_OFF,
    DESTINATION_ALIVE,
    SOURCE_ALIVE,
    Options,
    State,
    end_source,
    unawaited,
    whole,
)

NOT_YET = -1
"""A side that was not looked at yet."""

_IN_ORDER = ("inspect", "allow-run", "adopt", "settle-source", "settle-destination")
_BOUND_TO_END = ("perform3_done", "confirm3")
_SOURCE_WORDS = {"running": ("running", "booted"), "stopped": ("paused", "migration"), "refused": ("paused", "error")}
_DESTINATION_WORDS = {
    "incoming": ("paused", "migration"),
    "arrived": ("paused", "user"),
    "running": ("running", "unpaused"),
}
_NO_PROCESS = ("dead", "ending")
"""Copies without a process whose status file is still there."""

_SAID = {Kind.DESTINATION_ARRIVED: "arrived", Kind.ADOPTED_MEMORY: "memory", Kind.ADOPTED_SWITCH: "memory"}

_WORDS = {"running": VmState.RUNNING, "absent": VmState.ABSENT, "off": VmState.OFF}
_WORDS |= dict.fromkeys(_NO_PROCESS, VmState.OFF)


KNOWN = frozenset(
    {
        *_IN_ORDER,
        *UNANSWERED,
        "clean-up",
        "clean-up-undone",
        "clean-up-moved",
        "look-for-binding",
        "end-source",
        "request-cancel",
        "start-transfer",
    }
)
"""Commands that this backend carries out."""


class Does(NamedTuple):
    """A step of the backend: what, the state after it, and what it tells the controller (None: nothing)."""

    what: str
    state: State
    tells: Key | None = None


def source_status(state: State) -> Status | None:
    """Return what the source's status file shows; of a process that nobody noticed to be dead it stays."""
    if state.sq not in SOURCE_ALIVE and state.sq not in _NO_PROCESS:
        return None
    word, reason = _SOURCE_WORDS.get(state.sq, ("paused", "migration"))
    return Status(word, reason, 1, "migration out" if state.sjob else "", state.sjob)


def destination_status(state: State) -> Status | None:
    """Return what the destination's status file shows."""
    if state.dq not in DESTINATION_ALIVE and state.dq != "dead":
        return None
    died_as = "arrived" if whole(state) else "incoming"
    word, reason = _DESTINATION_WORDS.get(state.dq, _DESTINATION_WORDS[died_as])
    return Status(word, reason, 1, "migration in" if state.djob else "", state.djob)


def look_at_source(options: Options, state: State) -> CopySeen:
    """Return the source as an inspection sees it: its file first, then its daemon if the file shows no job."""
    file, gone = source_status(state), state.sq in _NO_PROCESS
    seen = CopySeen("a", state.sd == "up")
    if file is not None:
        died_bound = gone and (options.death_binds or file.phase in _BOUND_TO_END)
        seen = _from_file(state.sd == "up", "a", file, gone, bound=died_bound or file.bound)
    if not seen.reachable:
        return seen
    return _asked(seen, state.sq, options, state.lease == "source", is_source=True)


def look_at_destination(options: Options, state: State) -> CopySeen:
    """Return the destination as an inspection sees it."""
    file, gone = destination_status(state), state.dq == "dead"
    seen = CopySeen("b", state.dd == "up")
    if file is not None:
        seen = _from_file(state.dd == "up", "b", file, gone, arrived=file.arrived and not gone)
    if not seen.reachable:
        return seen
    return _asked(seen, state.dq, options, state.lease == "destination", is_source=False)


def _from_file(
    reachable: bool, host: str, file: Status, gone: bool, bound: bool = False, arrived: bool = False
) -> CopySeen:
    shown = VmState.OFF if gone else file.vm_state
    phase = file.phase or file.job
    return CopySeen(host, reachable, shown, "", bool(file.job), phase, bound=bound, arrived=arrived)


def _asked(seen: CopySeen, copy: str, options: Options, held: bool, *, is_source: bool) -> CopySeen:
    state, bound = seen.state, seen.bound
    if not seen.job_open:
        state = _WORDS.get(copy, VmState.PAUSED)
    if is_source and (state is VmState.ABSENT or (state is VmState.OFF and options.death_binds)):
        bound = True
    return CopySeen(
        seen.host,
        True,
        state,
        "",
        seen.job_open,
        seen.job_phase,
        bound=bound,
        arrived=seen.arrived,
        lease_held=held if options.lease else None,
    )


def submit(state: State, command: str) -> State:
    """Take a command: ordinary ones wait for each other, the others begin at once."""
    if command.startswith("clean-up"):
        return state._replace(tasks=(*state.tasks, ("clean-up", command)))
    if command in _IN_ORDER:
        first: tuple[object, ...] = (command, NOT_YET, NOT_YET) if command == "inspect" else (command, "start")
        return state._replace(tasks=(*state.tasks, first))
    if command == "look-for-binding":
        return state._replace(watching=True)
    if command == "end-source":
        return state._replace(ending=True)
    if command == "request-cancel":
        return state._replace(cancelling=True)
    if command == "start-transfer":
        return state._replace(call="running")
    if command in UNANSWERED:
        return state
    raise ValueError(f"the model does not know the command {command}")


def steps(options: Options, minds: Minds, state: State, apart: bool = True) -> Iterator[Does]:
    """Yield what the backend may do next; `apart`: an inspection looks at one side after the other, in any order."""
    if state.watching:
        yield from _look_for_binding(options, state)
    if state.cancelling:
        yield from _cancel(state)
    if state.ending:
        yield from _end_source(state)
    if state.ailing:
        yield from _refused(state)
    yield from _follow(state)
    if state.tasks:
        kind, *rest = state.tasks[0]
        if not apart and rest == [NOT_YET, NOT_YET]:
            source, destination = look_at_source(options, state), look_at_destination(options, state)
            task = (kind, minds.view(source), minds.view(destination))
            yield Does("backend looks at both hosts", state._replace(tasks=(task, *state.tasks[1:])))
            return
        others = state._replace(tasks=state.tasks[1:])
        yield from _TASKS[str(kind)](options, minds, state, others, rest)


_REFUSED: Mapping[str, tuple[str, Key]] = {
    "allow-run": ("backend is refused: the copy may not run", (Kind.RUN_REFUSED,)),
    "settle-source": ("backend is refused: nothing is settled", (Kind.CANNOT_SETTLE,)),
    "settle-destination": ("backend is refused: nothing is settled", (Kind.CANNOT_SETTLE,)),
    "clean-up": ("backend is refused: something is left", (Kind.LEFT_BEHIND,)),
}


def _refused(state: State) -> Iterator[Does]:
    """Tell that a host has refused an order, before it has begun with it."""
    if state.cancelling and state.ailing == "request-cancel":
        done = state._replace(cancelling=False)
        yield Does("backend is refused the cancel", done, (Kind.CANCEL_TOO_LATE,))
        yield Does("backend is granted a cancel that nothing comes of", done, (Kind.CANCEL_ACCEPTED,))
    if state.ending and state.ailing == "end-source":
        done = state._replace(ending=False, told=state.told - {"silent"})
        yield Does("backend cannot end the source's QEMU", done, (Kind.SOURCE_NOT_ENDED,))
    if state.tasks and state.tasks[0][0] == state.ailing:
        what, tells = _REFUSED[state.ailing]
        if "waiting" not in state.tasks[0]:
            yield Does(what, state._replace(tasks=state.tasks[1:]), tells)


def _pidfd_says_dead(state: State) -> bool:
    return state.pidfd and state.sq not in SOURCE_ALIVE


def _look_for_binding(options: Options, state: State) -> Iterator[Does]:
    if state.dq == "arrived" and options.kill_in_finish and state.sq in SOURCE_ALIVE:
        yield Does("backend ends the source's QEMU", end_source(state, "dead"))
        return
    if options.ends_silent and _waits_for_silent(state) and not state.ending and "silent" not in state.told:
        # Told again and again; what it leads to is the same while the order is being carried out.
        told = state._replace(told=state.told | {"silent"})
        yield Does("backend finds the source silent", told, (Kind.BINDING_SEEN, None, SILENT_MS))
    source = source_status(state)
    gone = _pidfd_says_dead(state) or state.sq in _NO_PROCESS
    if not options.death_binds and not _pidfd_says_dead(state):
        gone = gone and source is not None and source.phase in _BOUND_TO_END
        if state.sq == "off" or (state.sq in _NO_PROCESS and not gone):
            return
    bound, _ = judge_binding(source, destination_status(state), gone)
    ended = state._replace(watching=False)
    if bound is not None:
        what = "backend sees that the source is bound" if bound else "backend sees that the source is not bound"
        yield Does(what, ended, (Kind.BINDING_SEEN, bound))
    elif state.call == "over":
        yield Does("backend looks for the binding no more", ended)


def _waits_for_silent(state: State) -> bool:
    return state.pidfd and state.sd != "up" and state.sq in SOURCE_ALIVE and state.dq == "arrived" and not state.djob


def _end_source(state: State) -> Iterator[Does]:
    """The process is stopped, both files are read, and it is ended or goes on: nothing can come in between."""
    done = state._replace(ending=False, told=state.told - {"silent"})
    there = state.dq == "arrived" and not state.djob
    stands = state.sq == "stopped" and state.sjob != "confirm3_cancelled"
    if there and state.pidfd and (stands or state.sq not in SOURCE_ALIVE):
        ended = end_source(done, "dead") if stands else done
        yield Does("backend ends the source's QEMU", ended, (Kind.SOURCE_ENDED,))
    else:
        yield Does("backend does not end the source's QEMU", done, (Kind.SOURCE_NOT_ENDED,))


def _cancel(state: State) -> Iterator[Does]:
    done = state._replace(cancelling=False)
    if state.sd != "up":
        queued = done._replace(sbox=(*done.sbox, "abort")) if state.sd == "frozen" else done
        yield Does("backend gets no answer to the cancel", queued, (Kind.CANCEL_TOO_LATE,))
    elif state.call in ("running", "followed") and "switch" not in state.told and state.qm in CAN_BE_BROKEN_OFF:
        if state.sjob == "perform3":
            yield Does("source daemon breaks the transfer off", done._replace(qm=""), (Kind.CANCEL_ACCEPTED,))
    else:
        yield Does("backend finds that it is too late to cancel", done, (Kind.CANCEL_TOO_LATE,))


def _jobs(state: State) -> tuple[bool, bool]:
    source, destination = source_status(state), destination_status(state)
    return source is not None and bool(source.job), destination is not None and bool(destination.job)


def _follow(state: State) -> Iterator[Does]:
    over = state._replace(call="over")
    if state.call.startswith("returns"):
        yield Does("the long call returns", over, (Kind.CALL_RETURNED, state.call.removeprefix("returns ")))
    elif state.call == "followed" and not any(_jobs(state)):
        yield Does("backend sees that no job is left", over, (Kind.CALL_RETURNED, "followed"))
    elif state.call == "followed" and state.sd != "up":
        yield Does("backend sees that the source daemon is gone", over, (Kind.CALL_RETURNED, "lost"))
    elif state.call == "running" and state.sd == "frozen":
        yield Does("the call's connection is given up", over, (Kind.CALL_RETURNED, "failed"))


def _inspect(options: Options, minds: Minds, state: State, others: State, rest: list[object]) -> Iterator[Does]:
    source, destination = rest
    if source == NOT_YET:
        seen = minds.view(look_at_source(options, state))
        yield Does("backend looks at the source", _goes_on(others, "inspect", seen, destination))
    if destination == NOT_YET:
        seen = minds.view(look_at_destination(options, state))
        yield Does("backend looks at the destination", _goes_on(others, "inspect", source, seen))
    if source != NOT_YET and destination != NOT_YET:
        assert isinstance(source, int)
        if _pidfd_says_dead(state) and not minds.views[source].bound:
            source = minds.view(replace(minds.views[source], bound=True))
        elif options.ends_silent and state.pidfd:
            source = minds.view(replace(minds.views[source], endable=True))
        yield Does("backend tells what both hosts show", others, (Kind.EVIDENCE_SEEN, source, destination))


def _allow_run(options: Options, minds: Minds, state: State, others: State, rest: list[object]) -> Iterator[Does]:
    (at,) = rest
    refused = (Kind.RUN_REFUSED,)
    if at == "start" and state.dd == "dead":
        yield Does("backend cannot reach the destination", others, refused)
    elif at == "start":
        yield Does("backend asks the destination to run its copy", _ask(state, others, "allow-run", there="resume!"))
    elif at == "waiting" and state.dd == "frozen":
        yield Does("backend waits no longer for the destination", unawaited(others), refused)
    elif at == "done":
        fresh = "ran" not in state.told
        told = others._replace(told=others.told | {"ran"})
        yield Does("backend hears that the copy runs", told, (Kind.DESTINATION_RAN,) if fresh else None)
    elif at == "failed":
        yield Does("backend hears that the copy may not run", others, refused)


def _adopt(options: Options, minds: Minds, state: State, others: State, rest: list[object]) -> Iterator[Does]:
    source, destination = source_status(state), destination_status(state)
    runs = destination is not None and destination.vm_state is VmState.RUNNING
    if state.call not in ("", "over"):
        silent = "ran" in state.told or runs or source is None or not source.job
        for posts in [()] if silent else _standings(options, state):
            yield Does("backend says again how the transfer stands", others._replace(inbox=others.inbox + posts))
        return
    if not any(_jobs(state)):
        yield Does("backend finds no transfer", others._replace(call="over"), (Kind.CALL_RETURNED, "followed"))
        return
    told = others.told | ({"switch"} if has_switched(source, destination) else set())
    holds = source is not None and (options.death_binds or state.sjob in ("perform3", *_BOUND_TO_END))
    following = others._replace(call="followed", pidfd=state.pidfd or holds)
    for posts in [()] if runs else _standings(options, state):
        said = {_SAID[kind] for (kind,) in posts if kind in _SAID}
        now = told | (said if options.disks else said - {"memory"})
        yield Does("backend follows the transfer", following._replace(inbox=others.inbox + posts, told=now))


def _standings(options: Options, state: State) -> list[tuple[Key, ...]]:
    """Return what may be said of a transfer. Of disks that are being copied libvirt tells too late, or nothing."""
    source, destination = source_status(state), destination_status(state)
    if has_switched(source, destination):
        arrived = destination is not None and destination.arrived
        return [((Kind.ADOPTED_SWITCH,), *([(Kind.DESTINATION_ARRIVED,)] if arrived else []))]
    copying = options.disks and state.qm in ("disks", "")
    return [((Kind.ADOPTED_MEMORY,),), *([((Kind.ADOPTED_STORAGE,),)] if copying else [])]


def _ask(state: State, others: State, *task: object, there: str = "", here: str = "") -> State:
    """Leave a request in a daemon's inbox and wait for its answer."""
    waiting = others._replace(tasks=((*task, "waiting"), *others.tasks))
    if there:
        return waiting._replace(dbox=(*state.dbox, there))
    return waiting._replace(sbox=(*state.sbox, here))


SETTLED, CANNOT = (Kind.SETTLED,), (Kind.CANNOT_SETTLE,)


def _all_up(state: State) -> bool:
    return state.sd == "up" and state.dd == "up"


def _no(others: State, why: str) -> Does:
    return Does(f"backend cannot settle: {why}", unawaited(others), CANNOT)


def _settle_source(options: Options, minds: Minds, state: State, others: State, rest: list[object]) -> Iterator[Does]:
    at = rest[0]
    if at == "start":
        to = "there" if state.dd == "up" else "silent"
        yield Does("backend sees whether the destination answers", _goes_on(others, "settle-source", to))
    elif at == "there":
        yield from _remove_half_made(options, state, others)
    elif at == "destroy":
        if rest[1] == "done":
            yield Does("the destination's copy is gone", _goes_on(others, "settle-source", "alone"))
        elif rest[1] == "failed" or state.dd != "up":
            yield _no(others, "the destination's copy does not end")
    elif at == "resume":
        if rest[1] == "done":
            yield Does("backend has settled: the source runs", others, SETTLED)
        elif rest[1] == "failed" or state.sd != "up":
            yield _no(others, "the source cannot be resumed")
    else:
        yield from _resume_source(state, others, alone=at == "alone")


def _goes_on(others: State, *task: object) -> State:
    return others._replace(tasks=(task, *others.tasks))


def _remove_half_made(options: Options, state: State, others: State) -> Iterator[Does]:
    if any(_jobs(state)):
        if not _all_up(state):
            yield _no(others, "a job is still open")
        return
    if not _all_up(state):
        yield _no(others, "a host does not answer")
    elif state.dq == "absent" or (state.sq == "absent" and state.dq == "off"):
        yield Does("there is no copy at the destination", _goes_on(others, "settle-source", "alone"))
    elif state.sq == "absent" or state.dq == "running" or _last_one(options, state):
        yield _no(others, "the destination's copy is not to be removed")
    else:
        asked = _ask(state, others, "settle-source", "destroy", there="destroy!")
        yield Does("backend asks the destination to end its copy", asked)


def _last_one(options: Options, state: State) -> bool:
    """Whether the destination's copy is to be kept because the source has no process, only a definition."""
    return not options.removes_blindly and state.sq not in SOURCE_ALIVE and state.dq in DESTINATION_ALIVE


def _resume_source(state: State, others: State, *, alone: bool) -> Iterator[Does]:
    if state.sd != "up":
        yield _no(others, "the source does not answer")
    elif _jobs(state)[0]:
        return
    elif state.sq not in ("stopped", "refused"):
        yield Does("backend has settled: nothing to resume", others, SETTLED)
    elif not alone:
        yield _no(others, "a copy may run at the destination")
    else:
        asked = _ask(state, others, "settle-source", "resume", here="resume!")
        yield Does("backend asks the source to run its copy", asked)


def _settle_destination(
    options: Options, minds: Minds, state: State, others: State, rest: list[object]
) -> Iterator[Does]:
    at = rest[0]
    if at == "start":
        if state.dd != "up":
            yield _no(others, "the destination does not answer")
            return
        runs = state.dq == "running"
        yield Does("backend looks whether the copy runs", _goes_on(others, "settle-destination", "here", runs))
    elif at == "destroy":
        if rest[1] == "done":
            yield Does("backend has settled: the source's copy is removed", others, SETTLED)
        elif rest[1] == "failed" or state.sd != "up":
            yield _no(others, "the source's copy does not end")
    else:
        yield from _remove_source(state, others, bool(rest[1]))


def _remove_source(state: State, others: State, runs: bool) -> Iterator[Does]:
    if state.sd != "up":
        file = source_status(state)
        bound = file is None or file.bound or state.sq in _NO_PROCESS or _pidfd_says_dead(state)
        if runs and bound:
            yield Does("backend has settled: the silent source cannot run again", others, SETTLED)
        else:
            yield _no(others, "the silent source may run again")
    elif any(_jobs(state)):
        if not _all_up(state):
            yield _no(others, "a job is still open")
    elif state.sq == "absent":
        yield Does("backend has settled: no copy at the source", others, SETTLED)
    elif not runs:
        yield _no(others, "the destination's copy was not seen to run")
    else:
        asked = _ask(state, others, "settle-destination", "destroy", here="destroy!")
        yield Does("backend asks the source to end its copy", asked)


def _clean_up(options: Options, minds: Minds, state: State, others: State, rest: list[object]) -> Iterator[Does]:
    if options.disks and rest[1:] != ["left"] and rest[1:] != ["done"]:
        for what, after, at in disks.steps(state, others, *map(str, rest)):
            yield Does(what, _goes_on(after, "clean-up", rest[0], at))
    elif _all_up(state) and rest[1:] != ["left"]:
        yield Does("backend has cleaned up", others, (Kind.CLEANED,))
    else:
        yield Does("backend cannot clean up everywhere", others, (Kind.LEFT_BEHIND,))


_TASKS = {
    "inspect": _inspect,
    "allow-run": _allow_run,
    "adopt": _adopt,
    "settle-source": _settle_source,
    "settle-destination": _settle_destination,
    "clean-up": _clean_up,
}
