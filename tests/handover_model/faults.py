"""What may go wrong with the hosts of the model, and what is mended: each fault costs one of the state's budget.

A frozen daemon keeps its inbox and what is under way to it, a dead one loses its inbox; both can come back at any time,
or never. A killed QEMU is the only fault that may cost memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.handover_model.world import (
    CAN_BE_BROKEN_OFF,
    DESTINATION_ALIVE,
    REFUSABLE,
    SOURCE_ALIVE,
    Move,
    Options,
    State,
    call_ends,
    end_destination,
    end_source,
    newest_is_there,
    run_source,
)

KINDS = ("freeze", "crash", "qemu", "link", "lock", "power", "order", "stream")
"""Freezing a libvirtd, killing one, killing a QEMU, cutting the link between the hosts, killing a virtlockd, taking a
whole host's power, having a host that answers refuse an order, and what is sent breaking off: a full disk, an error."""


def faults(options: Options, state: State, kinds: tuple[str, ...]) -> Iterator[Move]:
    """Yield every fault that may happen now, of these kinds."""
    after = state._replace(faults=state.faults - 1, quiet=False)
    for kind in kinds:
        yield from _KINDS[kind](options, after)


def repairs(options: Options, state: State) -> Iterator[Move]:
    """Yield what makes a host or the link answer again."""
    if state.sd == "frozen":
        yield "REPAIR: source daemon thaws", state._replace(sd="up")
    if state.dd == "frozen":
        yield "REPAIR: destination daemon thaws", state._replace(dd="up")
    if state.sd == "dead":
        yield "REPAIR: source daemon is started again", _source_starts(options, state)
    if state.dd == "dead":
        yield "REPAIR: destination daemon is started again", _destination_starts(state)
    if not state.link:
        yield "REPAIR: the link is back", state._replace(link=True)
    if state.ailing:
        yield "REPAIR: the order is not refused any more", state._replace(ailing="")


def _freeze(_: Options, state: State) -> Iterator[Move]:
    if state.sd == "up":
        yield "FAULT: source daemon freezes", state._replace(sd="frozen")
    if state.dd == "up":
        yield "FAULT: destination daemon freezes", state._replace(dd="frozen")


def _crash(options: Options, state: State) -> Iterator[Move]:
    if state.sd != "dead":
        kept = state.msg if state.msg in ("finish", "cancel") else ""
        dead = state._replace(sd="dead", sbox=(), sconn=False, dconn=False, msg=kept)
        dead = dead._replace(pidfd=dead.pidfd and options.death_binds)
        yield "FAULT: source daemon is killed", call_ends(_unanswered(dead, state.sbox), "failed")
    if state.dd != "dead":
        kept = state.msg if state.msg in ("ok", "error") else ""
        dead = state._replace(dd="dead", dbox=(), sconn=False, dconn=False, msg=kept)
        yield "FAULT: destination daemon is killed", _unanswered(dead, state.dbox)


def _unanswered(state: State, box: tuple[str, ...]) -> State:
    """The connection breaks for whoever waits for an answer of a daemon that is dead."""
    if not any(request.endswith("!") for request in box):
        return state
    first, *others = state.tasks
    return state._replace(tasks=((*first[:-1], "failed"), *others))


def _qemu(_: Options, state: State) -> Iterator[Move]:
    if state.sq in SOURCE_ALIVE:
        dead = end_source(state, "dead")
        yield "FAULT: source QEMU is killed", _burnt(state, dead, _doomed_there(dead))
    if state.dq in DESTINATION_ALIVE:
        dead = end_destination(state, "dead")
        yield "FAULT: destination QEMU is killed", _burnt(state, dead, _doomed_here(dead))


def _to_be_ended(box: tuple[str, ...]) -> bool:
    return any(request.startswith("destroy") for request in box)


def _burnt(before: State, after: State, other_is_doomed: bool) -> State:
    """Say whether the fault has cost the newest memory: at once, or because the other copy is to be ended."""
    lost = newest_is_there(before) and (not newest_is_there(after) or other_is_doomed)
    return after._replace(burnt=before.burnt or lost)


def _link(_: Options, state: State) -> Iterator[Move]:
    if state.link:
        yield "FAULT: the link is cut", state._replace(link=False)
        if state.msg:
            lost = state._replace(link=False, msg="", sconn=False, dconn=False)
            yield f"FAULT: the link is cut and {state.msg!r} is lost", lost


def _lock(options: Options, state: State) -> Iterator[Move]:
    if options.lease and state.slock:
        gone = state._replace(slock=False, lease="" if state.lease == "source" else state.lease)
        yield "FAULT: source virtlockd is killed, its leases are lost", gone
    if options.lease and state.dlock:
        gone = state._replace(dlock=False, lease="" if state.lease == "destination" else state.lease)
        yield "FAULT: destination virtlockd is killed, its leases are lost", gone


def _power(options: Options, state: State) -> Iterator[Move]:
    """Both processes of a host end at once, and what libvirt had noted of them is gone: a copy is off, or was none."""
    for what, down in _crash(options, state):
        if what.startswith("FAULT: source"):
            ended = end_source(down, "absent" if down.sq == "absent" else "off")
            after = ended._replace(sjob="", pidfd=False)
            doomed = state.sq in SOURCE_ALIVE and _doomed_there(after)
            yield "FAULT: source host loses its power", _burnt(state, after, doomed)
        else:
            known = down.djob != "prepare" and down.dq != "absent"
            after = end_destination(down, "off" if known else "absent")._replace(djob="")
            doomed = state.dq in DESTINATION_ALIVE and _doomed_here(after)
            yield "FAULT: destination host loses its power", _burnt(state, after, doomed)


def _doomed_there(state: State) -> bool:
    """Whether the destination's copy is to be ended by what is under way."""
    return state.djob == "finish3" or state.dq == "incoming" or _to_be_ended(state.dbox)


def _doomed_here(state: State) -> bool:
    """Whether the source's copy is to be ended by what is under way."""
    return state.sjob == "confirm3" or state.msg == "ok" or _to_be_ended(state.sbox)


def _order(options: Options, state: State) -> Iterator[Move]:
    """The order that is being carried out is refused from now on, or until it is not any more."""
    orders = [str(task[0]) for task in state.tasks[:1] if task[0] in REFUSABLE]
    orders += ["request-cancel"] * state.cancelling + ["end-source"] * state.ending
    for order in orders:
        if state.ailing != order:
            yield f"FAULT: {order} is refused", state._replace(ailing=order)


def _stream(_: Options, state: State) -> Iterator[Move]:
    if state.qm in CAN_BE_BROKEN_OFF:
        yield "FAULT: what is sent breaks off", state._replace(qm="")


_KINDS = {
    "freeze": _freeze,
    "crash": _crash,
    "qemu": _qemu,
    "link": _link,
    "lock": _lock,
    "power": _power,
    "order": _order,
    "stream": _stream,
}


def _source_starts(options: Options, state: State) -> State:
    """Start the source's daemon again: it recovers by the phase that its file has (libvirt-qemu 3.2)."""
    up = state._replace(sd="up", sjob="", qm=state.qm if state.qm == "done" else "")
    if state.sq == "dead":
        return up._replace(sq="off")
    if state.sjob == "confirm3":
        return end_source(up, "absent")
    if state.sjob in ("perform3", "confirm3_cancelled") and state.sq in SOURCE_ALIVE:
        return run_source(options, up)[0]
    return up


def _destination_starts(state: State) -> State:
    if state.dq == "dead":
        # It answers before it has noticed, and closes the job only then.
        return state._replace(dd="up")
    up = state._replace(dd="up", djob="")
    doomed = state.djob == "prepare" or (state.djob == "finish3" and state.dq != "running")
    return end_destination(up) if doomed else up
