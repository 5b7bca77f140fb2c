"""May this move use post-copy, and could it be recovered if it broke (libvirt-qemu 3.4, 7.3)?

It is an explicit choice with a danger of its own, so it is refused wherever something of it is not sure to be had.
"""

from __future__ import annotations

from collections.abc import Iterator

from refimpl.checks.subject import Pair, Subject
from refimpl.model.errors import Problem
from refimpl.model.facts import VmState
from refimpl.model.request import HandOver, PostCopy

RISK = (
    "once begun there is no way back and no cancel; until all memory has come, the end of either QEMU loses the VM, "
    "and the end of the network stops it until refimpl recover"
)


def check(s: Subject) -> Iterator[Problem]:
    """Yield what forbids post-copy; nothing when the move does not allow it."""
    if s.request.post_copy is PostCopy.OFF:
        return
    if not s.facts.post_copy:
        yield s.problem("post_copy.unavailable", s.request.destination)
        return
    if s.request.hand_over not in (None, HandOver.DELEGATED):
        yield s.problem("post_copy.hand_over", s.request.destination, hand_over=str(s.request.hand_over))
    if s.request.storage is not None:
        yield s.problem("post_copy.storage", s.request.destination, vm=s.request.vm)
    if s.pair is not None:
        yield from _of(s, s.pair)


def _of(s: Subject, pair: Pair) -> Iterator[Problem]:
    vm, source, destination = pair
    if vm.state is not VmState.RUNNING:
        yield s.problem("post_copy.not_running", source.name, vm=vm.name, state=str(vm.state))
    if not vm.second_socket:
        yield s.problem("post_copy.no_socket", source.name, vm=vm.name)
    if vm.memory_backing:
        yield s.problem("post_copy.memory", source.name, vm=vm.name, backing=vm.memory_backing)
    if destination.user_faults is not True:
        yield s.problem("post_copy.no_user_faults", destination.name, vm=vm.name)


def told(s: Subject) -> str | None:
    """Say what is risked; None when the two hosts were not seen."""
    if s.pair is None:
        return None
    return "off" if s.request.post_copy is PostCopy.OFF else f"{s.request.post_copy}: {RISK}"
