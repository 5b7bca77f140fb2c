"""The faults there are, as declarations: name, what each strikes, does, may lead to, and how it is undone.

What it *may lead to* is a claim that the soak holds it to: a VM that is lost under a fault that does not claim so is a
finding. `docs/faults.md` and the help of `refimpl lab fault` are made from here; `refimpl.faults.strikes` does them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Claim(StrEnum):
    """What a fault may lead to at the worst, and never to anything worse. Two running copies are under no claim."""

    NOTHING = "the VM runs on, and a move under way goes through"
    DELAY = "a move under way takes longer, its blackout too"
    FAILURE = "a move under way fails or is refused; the VM runs on at the source"
    RECOVERY = "a move under way ends where only `recover` goes on; the VM may stand still until then"
    LOSS = "the VM may be lost, when its memory is in the process that ends"


class Needs(StrEnum):
    """A part of the target that a fault needs to be told, beside what it strikes by itself."""

    HOST = "host"
    VM = "vm"
    NETWORK = "network"
    DIRECTION = "direction"
    RATE = "rate"
    PLACE = "place"


@dataclass(frozen=True, slots=True)
class Fault:
    """One declaration. `title`: a line for people. `claims`: all that it may lead to.

    `lasting`: it stands until it is undone.
    """

    name: str
    title: str
    target: str
    does: str
    claims: tuple[Claim, ...]
    undone: str
    needs: tuple[Needs, ...]
    lasting: bool = True

    @property
    def may_lose_vm(self) -> bool:
        """Whether a VM that is gone afterwards is under its claim."""
        return Claim.LOSS in self.claims


_THAWED = "SIGCONT to the same process"
_HOST, _VM = (Needs.HOST,), (Needs.HOST, Needs.VM)
_LINK = (Needs.HOST, Needs.NETWORK)
_SLOW, _STOPS = (Claim.DELAY, Claim.FAILURE), (Claim.DELAY, Claim.FAILURE, Claim.RECOVERY)

_ALL = (
    Fault(
        "kill-qemu",
        "End the QEMU process of a VM.",
        "the QEMU process of a VM on a host",
        "ends it with SIGKILL: that copy of the VM is gone in an instant, its definition stays",
        (Claim.FAILURE, Claim.RECOVERY, Claim.LOSS),
        "not at all: memory that is gone stays gone",
        _VM,
        lasting=False,
    ),
    Fault(
        "freeze-qemu",
        "Freeze the QEMU process of a VM.",
        "the QEMU process of a VM on a host",
        "stops it with SIGSTOP: the guest stands still, nothing is sent or taken, its monitor does not answer",
        _STOPS,
        _THAWED,
        _VM,
    ),
    Fault(
        "kill-libvirtd",
        "End a host's libvirtd.",
        "the libvirt daemon of a host",
        "ends it with SIGKILL: VMs run on, nobody can ask about them, a transfer that it drove breaks off",
        _STOPS,
        "the daemon is started again as the lab starts it, and has its VMs back",
        _HOST,
    ),
    Fault(
        "freeze-libvirtd",
        "Freeze a host's libvirtd.",
        "the libvirt daemon of a host",
        "stops it with SIGSTOP: it takes connections and answers none; thawed, it does what it was told meanwhile",
        _STOPS,
        _THAWED,
        _HOST,
    ),
    Fault(
        "kill-virtlockd",
        "End a host's virtlockd: its VMs lose their leases.",
        "the lock daemon of a host",
        "ends it with SIGKILL: the leases of all VMs that run there are lost without a word, the VMs run on",
        _STOPS,
        "virtlockd is started, then libvirtd anew, then each running VM there stands still for a moment and takes its "
        "lease; a move under way from or to that host fails by it",
        _HOST,
    ),
    Fault(
        "freeze-virtlockd",
        "Freeze a host's virtlockd.",
        "the lock daemon of a host",
        "stops it with SIGSTOP: leases stay held, and none can be taken or given back",
        _STOPS,
        _THAWED,
        _HOST,
    ),
    Fault(
        "kill-conductor",
        "End the conductor of a move.",
        "the conductor process of a move",
        "ends it with SIGKILL: the transfer between the hosts goes on alone, nobody lets the destination run",
        (Claim.RECOVERY,),
        "not at all: `refimpl recover` goes on",
        (),
        lasting=False,
    ),
    Fault(
        "freeze-conductor",
        "Freeze the conductor of a move.",
        "the conductor process of a move",
        "stops it with SIGSTOP: the transfer goes on alone, and whoever looks finds the conductor alive",
        (Claim.DELAY,),
        _THAWED,
        (),
    ),
    Fault(
        "link-down",
        "Cut a host's link to a network.",
        "a host's link to a network",
        "takes the port of the lab's switch down: nothing passes, and nobody is told",
        _STOPS,
        "the link is as it was before",
        _LINK,
    ),
    Fault(
        "link-one-way",
        "Cut one direction of a host's link to a network.",
        "a host's link to a network",
        "drops at the switch what goes to the host, or what comes from it; the other direction passes",
        _STOPS,
        "both directions pass again",
        (*_LINK, Needs.DIRECTION),
    ),
    Fault(
        "link-slow",
        "Slow down a host's link to a network.",
        "a host's link to a network",
        "keeps either direction to a rate",
        _SLOW,
        "the link is as it was before",
        (*_LINK, Needs.RATE),
    ),
    Fault(
        "disk-full",
        "Leave no space in a directory that a move writes to.",
        "a directory: what the hosts share, as one host sees it; the controller's home; the group store",
        "leaves no space for what is written there and was not open already; reading goes on, leases are not covered",
        (Claim.FAILURE, Claim.RECOVERY),
        "the full file system is taken off again; what was written before stands as it was",
        (Needs.PLACE,),
    ),
    Fault(
        "disk-read-only",
        "Let nothing be written in a directory that a move writes to.",
        "a directory: what the hosts share, as one host sees it; the controller's home; the group store",
        "refuses whatever is written there and was not open already; reading goes on",
        (Claim.FAILURE, Claim.RECOVERY),
        "it can be written to again",
        (Needs.PLACE,),
    ),
)

FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in _ALL}
"""All faults by name."""
