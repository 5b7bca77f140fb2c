"""The two hosts of the model: QEMU's copies, libvirtd, virtlockd, the lease, the image lock, libvirt's own protocol.

Nothing here knows the controller but for the requests that it has left in a daemon's inbox. `own_moves` yields what
the hosts may do next by themselves, in any order; faults and repairs are in `faults`. A move is `(what, state after)`.

What a daemon does after a restart is libvirt-qemu 3.2, who holds what when is handover 1 and 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

Move = tuple[str, "State"]


@dataclass(frozen=True)
class Options:
    """What guards a move. `strict`: the destination arrives paused. `shared_image`: both copies have one image file.

    By default as the product is. `death_binds`: whatever killed the source's process, the backend shows it as bound,
    and the engine decides by what it has seen; otherwise only if it died with its job open or under the eyes of a
    controller that misses nothing. `removes_blindly`: the destination's copy is removed although the source's process
    has died since the verdict. `ends_silent`: the backend ends the stopped QEMU of a source whose daemon does not
    answer, once the destination's job is closed. `kill_in_finish`: it does not wait for that. `disks`: the VM's disks
    are files of each host's own, made the same before the memory is sent.
    """

    strict: bool = True
    lease: bool = False
    shared_image: bool = False
    death_binds: bool = True
    removes_blindly: bool = False
    ends_silent: bool = False
    kill_in_finish: bool = False
    disks: bool = False


class _Fields(NamedTuple):
    """Everything there is. Strings are libvirt's words where it has some; an empty one is none.

    `sq`, `dq`: the copies. Source: running, stopped (by the migration), refused (its resume was), ending (by libvirtd),
    dead (not noticed by it), off, absent. Destination: incoming, arrived (whole, paused), running, dead, off, absent.
    `sd`, `dd`: libvirtd is up, frozen or dead. `sbox`, `dbox`: what controllers have asked of it and it has not done;
    `!` marks a request whose answer is waited for. `slock`, `dlock`: virtlockd lives.
    `sfile`, `dfile`: the files of the VM's disks, where each host has its own: at the source they are there; at the
    destination none, made by this move, or its own. `qm`: QEMU's migration, disks before ram. `msg`: what is under way
    between the daemons. `sconn`, `dconn`: their connection, by either.
    `sran`, `dran`: that copy ran after the hand-over began, with all its memory there. `burnt`: a fault has ended the
    copies with the newest memory. `ailing`: the order that is refused, on hosts that answer.
    """

    sd: str = "up"
    sq: str = "running"
    sjob: str = "perform3"
    sbox: tuple[str, ...] = ()
    slock: bool = True
    dd: str = "up"
    dq: str = "incoming"
    djob: str = "prepare"
    dbox: tuple[str, ...] = ()
    dlock: bool = True
    qm: str = "ram"
    msg: str = ""
    sconn: bool = True
    dconn: bool = True
    link: bool = True
    lease: str = ""
    image: str = ""
    sran: bool = False
    dran: bool = False
    burnt: bool = False
    sfile: bool = True
    dfile: str = ""
    ailing: str = ""
    # the controller and its backend object
    mind: int = 0
    kept: int = 0
    alive: bool = True
    tasks: tuple[tuple[object, ...], ...] = ()
    inbox: tuple[tuple[object, ...], ...] = ()
    taps: frozenset[str] = frozenset()
    told: frozenset[str] = frozenset()
    call: str = ""
    watching: bool = False
    pidfd: bool = True
    cancelling: bool = False
    ending: bool = False
    quiet: bool = True
    # what may still happen
    faults: int = 0
    deaths: int = 0
    recoveries: int = 0
    hasty: int = 0
    cancels: int = 0


_PLACES = {name: place for place, name in enumerate(_Fields._fields)}


class State(_Fields):
    """Everything there is; see `_Fields`."""

    __slots__ = ()

    def _replace(self, **changes: Any) -> State:
        """Return a state with some fields changed; without the original's checks, as this takes most of the time."""
        values = list(self)
        for name, value in changes.items():
            values[_PLACES[name]] = value
        return tuple.__new__(State, values)


SOURCE_ALIVE = frozenset({"running", "stopped", "refused"})
DESTINATION_ALIVE = frozenset({"incoming", "arrived", "running"})
REFUSABLE = frozenset({"allow-run", "settle-source", "settle-destination", "clean-up"})
"""Orders that a host which answers may still refuse."""
CAN_BE_BROKEN_OFF = frozenset({"disks", "ram", "pre"})


def begin(options: Options, *, disks_done: bool = True) -> State:
    """Return the world when the transfer has been ordered and disks, or memory once they are done, are being sent."""
    begun = State(lease="source" if options.lease else "", image="source" if options.shared_image else "")
    return begun._replace(qm="ram" if disks_done else "disks", dfile="made") if options.disks else begun


def never_told(state: State) -> State:
    """Return the world when the order to transfer has come to nobody."""
    return state._replace(sjob="", dq="absent", djob="", qm="", sconn=False, dconn=False, call="", taps=frozenset())


def whole(state: State) -> bool:
    """Whether the destination has received the whole memory."""
    return state.qm == "done"


def newest_is_there(state: State) -> bool:
    """Whether a copy with the newest memory exists: the one that ran since, else any that has it all."""
    source, destination = state.sq in SOURCE_ALIVE, state.dq in DESTINATION_ALIVE
    if state.sran and state.dran:
        return source or destination
    if state.dran:
        return destination
    if state.sran or not whole(state):
        return source
    return source or destination


def unawaited(state: State) -> State:
    """Wait for no answer of a daemon any more: what was asked for stays asked for, in any order, twice at most."""
    return state._replace(sbox=_orphans(state.sbox), dbox=_orphans(state.dbox))


def _orphans(box: tuple[str, ...]) -> tuple[str, ...]:
    names = sorted(request.rstrip("!") for request in box)
    return tuple(name for index, name in enumerate(names) if index < 2 or names[index - 2] != name)


def tidy(state: State) -> State:
    """Return the state without what has no effect any more, so that states that differ in that alone are one."""
    msg = state.msg
    if msg in ("ok", "error"):
        msg = msg if state.sjob == "perform3_done" else ""
    elif msg == "cancel":
        msg = msg if state.djob == "prepare" else ""
    elif msg == "finish" and state.dq != "incoming" and state.sjob != "perform3_done":
        msg = ""
    idle = not (state.sjob or state.djob or msg)
    sbox, dbox = state.sbox, state.dbox
    if sbox:
        sbox = tuple(request for request in sbox if request.endswith("!") or _matters_at_source(state, request))
    if dbox:
        dbox = tuple(request for request in dbox if request.endswith("!") or _matters_at_destination(state, request))
    if (msg, sbox, dbox) == (state.msg, state.sbox, state.dbox) and not (idle and (state.sconn or state.dconn)):
        return state
    sconn, dconn = (False, False) if idle else (state.sconn, state.dconn)
    return state._replace(msg=msg, sbox=sbox, dbox=dbox, sconn=sconn, dconn=dconn)


def _matters_at_source(state: State, request: str) -> bool:
    if request == "abort":
        return state.sjob == "perform3"
    return state.sq != "absent" and (request == "destroy" or state.sq in SOURCE_ALIVE)


def _matters_at_destination(state: State, request: str) -> bool:
    return state.dq in ("incoming", "arrived") or (request == "destroy" and state.dq != "absent")


def tap(state: State, what: str) -> State:
    """Have the controller told of something once, if there is one that listens."""
    if not state.alive or what in state.told:
        return state
    return state._replace(taps=state.taps | {what}, told=state.told | {what})


def run_source(options: Options, state: State) -> tuple[State, bool]:
    """Let the source's copy run, as `cont` does: with the lease and the image's lock, or not at all."""
    if state.sq == "running":
        return state, True
    if state.sq not in SOURCE_ALIVE:
        return state, False
    leased = not options.lease or (state.slock and state.lease in ("", "source"))
    locked = not options.shared_image or state.image in ("", "source")
    if not (leased and locked):
        return state._replace(sq="refused"), False
    after = _held(options, state, "source")._replace(sq="running", sran=state.sran or whole(state))
    return after._replace(pidfd=after.pidfd and options.death_binds), True


def run_destination(options: Options, state: State) -> tuple[State, bool]:
    """Let the destination's copy run, the same way."""
    if state.dq == "running":
        return state, True
    if state.dq not in ("arrived", "incoming") or not whole(state):
        return state, False
    leased = not options.lease or (state.dlock and state.lease in ("", "destination"))
    locked = not options.shared_image or state.image in ("", "destination")
    if not (leased and locked):
        return state, False
    return tap(_held(options, state, "destination")._replace(dq="running", dran=True), "ran"), True


def end_source(state: State, to: str) -> State:
    """End the source's process: what it held is free."""
    return _freed(state._replace(sq=to, qm=state.qm if whole(state) else ""), "source")


def end_destination(state: State, to: str = "absent") -> State:
    """End the destination's process."""
    return _freed(state._replace(dq=to, qm=state.qm if whole(state) else ""), "destination")


def _held(options: Options, state: State, by: str) -> State:
    return state._replace(lease=by if options.lease else "", image=by if options.shared_image else "")


def _freed(state: State, by: str) -> State:
    lease = "" if state.lease == by else state.lease
    return state._replace(lease=lease, image="" if state.image == by else state.image)


def own_moves(options: Options, state: State) -> Iterator[Move]:
    """Yield what QEMU and the daemons may do next."""
    yield from _qemu(state)
    if state.sd == "up":
        yield from _source_daemon(options, state)
    if state.dd == "up":
        yield from _destination_daemon(options, state)


def _qemu(state: State) -> Iterator[Move]:
    if state.qm == "ram" and state.sq == "running" and state.dq == "incoming":
        stopped = state._replace(qm="pre", sq="stopped")
        yield "source QEMU stops its guest for the switch", tap(stopped, "switch")
        if state.alive and "switch" not in state.told:
            # An event that comes late says nothing that the arrival does not say: it is told at once or never.
            missed = stopped._replace(told=state.told | {"switch"})
            yield "source QEMU stops its guest for the switch, which nobody is told", missed
    if not state.qm and state.dq == "incoming" and state.djob:
        yield "the destination's QEMU ends, as its stream has broken", end_destination(state, "dead")
    if state.qm == "device" and state.sq == "stopped" and state.dq == "incoming":
        yield "the destination's QEMU has the whole memory", state._replace(qm="done")


def _source_daemon(options: Options, state: State) -> Iterator[Move]:
    if state.sconn and (state.dd != "up" or not state.link or not state.dconn):
        yield "source daemon gives the connection up", state._replace(sconn=False)
    if state.sq == "dead" and "gone" not in state.told and state.alive:
        yield "source daemon tells that its QEMU has died", tap(state, "gone")
    if state.sq == "dead" and state.sjob in ("", "perform3"):
        told = "cancel" if state.sjob and state.sconn and state.dd != "dead" else state.msg
        noticed = state._replace(sq="off", sjob="", msg=told, qm=state.qm if whole(state) else "")
        yield "source daemon closes what its dead QEMU was in", call_ends(noticed, "failed")
        return
    if state.sjob == "perform3":
        yield from _perform(state)
    elif state.sjob == "perform3_done":
        if state.msg == "ok":
            yield "source daemon reads that the destination has finished", state._replace(sjob="confirm3", msg="")
        if state.msg == "error" or not state.sconn:
            taken = "" if state.msg in ("ok", "error") else state.msg
            yield "source daemon is to take the VM back", state._replace(sjob="confirm3_cancelled", msg=taken)
    elif state.sjob == "confirm3":
        if state.sq in SOURCE_ALIVE:
            yield "source daemon ends its QEMU", end_source(state, "ending")
        else:
            ended = end_source(state._replace(sjob=""), "absent")
            yield "source daemon removes its copy", call_ends(ended, "ok")
    elif state.sjob == "confirm3_cancelled":
        after, ran = run_source(options, state) if state.sq in SOURCE_ALIVE else (state, False)
        what = "source daemon lets its copy run again" if ran else "source daemon cannot let its copy run again"
        yield what, call_ends(after._replace(sjob=""), "failed")
    for index, request in enumerate(state.sbox):
        rest = state._replace(sbox=state.sbox[:index] + state.sbox[index + 1 :])
        yield f"source daemon does: {request.rstrip('!')}", _source_does(options, rest, request)


def _perform(state: State) -> Iterator[Move]:
    broken = not state.sconn or state.dq not in ("incoming", "dead")
    if state.qm == "disks" and not broken:
        yield "the disks are the same on both hosts, and memory is sent", tap(state._replace(qm="ram"), "memory")
    if state.qm == "pre" and not broken:
        released = _freed(state._replace(qm="device"), "source")
        yield "source daemon releases lease and image and lets QEMU go on", released
    if state.qm == "done":
        sent = state._replace(sjob="perform3_done", msg="finish" if state.sconn else "")
        yield "source daemon asks the destination to finish", sent
    if state.qm != "done" and (broken or state.dq == "dead" or not state.qm):
        told = "cancel" if state.sconn and state.dd != "dead" else state.msg
        failed = state._replace(sjob="confirm3_cancelled", qm="", msg=told)
        yield "source daemon: the transfer has failed", failed


def _source_does(options: Options, state: State, request: str) -> State:
    order, answer = request.rstrip("!"), None
    if order == "resume":
        state, done = run_source(options, state) if state.sq != "absent" else (state, False)
        answer = "done" if done else "failed"
    elif order == "destroy":
        state = end_source(state._replace(sjob=""), "absent")
        answer = "done"
    elif order == "abort" and state.sjob == "perform3" and state.qm in CAN_BE_BROKEN_OFF:
        state = state._replace(qm="")
    return _answered(state, answer) if request.endswith("!") and answer else state


def _answered(state: State, answer: str) -> State:
    """Give the first task of the backend the answer that it waits for."""
    first, *others = state.tasks
    return state._replace(tasks=((*first[:-1], answer), *others))


def call_ends(state: State, how: str) -> State:
    """The controller's own long call begins to return."""
    return state._replace(call=f"returns {how}") if state.call == "running" else state


def _destination_daemon(options: Options, state: State) -> Iterator[Move]:
    if state.dconn and (state.sd != "up" or not state.link or not state.sconn):
        yield "destination daemon gives the connection up", state._replace(dconn=False)
    if state.dq == "dead":
        persistent = state.djob != "prepare"
        noticed = state._replace(dq="off" if persistent else "absent", djob="")
        reply = "error" if state.djob == "finish3" and state.dconn else state.msg
        yield "destination daemon notices that its QEMU has died", noticed._replace(msg=reply)
        return
    if state.djob == "prepare" and not state.dconn:
        gone = end_destination(state._replace(djob=""))
        yield "destination daemon ends the copy of a connection that is gone", gone
    if state.msg == "cancel":
        ended = end_destination(state) if state.djob == "prepare" else state
        yield "destination daemon is told of the failure and ends its copy", ended._replace(djob="", msg="")
    if state.msg == "finish":
        yield from _finish(state)
    if state.djob == "finish3":
        yield from _finishing(options, state)
    for index, request in enumerate(state.dbox):
        rest = state._replace(dbox=state.dbox[:index] + state.dbox[index + 1 :])
        yield f"destination daemon does: {request.rstrip('!')}", _destination_does(options, rest, request)


def _finish(state: State) -> Iterator[Move]:
    if state.djob != "prepare" or state.dq != "incoming":
        reply = "error" if state.dconn else ""
        yield "destination daemon is to finish and has no copy", state._replace(msg=reply)
        return
    yield "destination daemon begins to finish", state._replace(djob="finish3", msg="")


def _finishing(options: Options, state: State) -> Iterator[Move]:
    """Yield the last step: strict leaves the copy paused, else it is let run; then the job is closed and answered."""
    ok = "ok" if state.dconn else ""
    if options.strict and state.dq == "incoming":
        yield "destination: the copy has arrived and stays paused", tap(state._replace(dq="arrived"), "arrived")
    elif state.dq == "incoming":
        after, ran = run_destination(options, state)
        if ran:
            yield "destination daemon lets its copy run", after
        else:
            ended = end_destination(state._replace(djob="", msg="error" if state.dconn else ""))
            yield "destination daemon cannot let its copy run and ends it", ended
    else:
        yield "destination daemon closes its job and answers", state._replace(djob="", msg=ok)


def _destination_does(options: Options, state: State, request: str) -> State:
    if request.startswith("resume"):
        arrived = state.dq in ("arrived", "running")
        state, done = run_destination(options, state) if arrived else (state, False)
    else:
        state, done = end_destination(state._replace(djob="")), True
    return _answered(state, "done" if done else "failed") if request.endswith("!") else state
