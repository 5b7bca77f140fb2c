"""The seam between the engine and whatever runs virtual machines. Backends import this; the engine imports no backend.

A backend takes commands and reports facts. `submit` returns at once; what happens is told by events through the
`post` function given at construction. Contract, proved for every backend by `tests/contract`
(exactly one answer unless said otherwise):

OBSERVE: FACTS_SEEN with the hosts of the whole group; free of side effects.
PROBE: FACTS_SEEN as OBSERVE, and with what only writing or much reading tells of the VM of the request
    (`DiskFact.probed`, `content_hash`). What it writes carries the operation's id and removes itself, also when the
    controller dies.
PREPARE: PREPARED; or NETWORK_FAILED (the address in `plan.address` does not connect, nothing else was tried; a VM that
    is off needs no network);
    or PREPARE_FAILED; or NATIVE_REFUSAL. Stamps the source VM with the operation's id, plan and epoch;
    its host does not start it by itself any more. CLEAN_UP gives that back where the source is the owner
    (`plan.autostart`). Of disks that move (`plan.storage`) it makes the files at the destination, empty and of the
    virtual size, registered there by the operation's id before they have their names; a file that has such a name
    already is refused, or, if the plan says so, put aside for the roll-back. Refused too when the source's file is
    not the one of the plan any more, or when the destination does not see the source's lease of the VM.
START_TRANSFER: TRANSFER_STARTED if a native job was seen, then any of STORAGE_SEEN, MEMORY_SEEN, PASS_ENDED (passes
    ended so far), PROGRESS, SWITCH_SEEN, SOURCE_STOPPED, SOURCE_RESUMED, DESTINATION_ARRIVED, DESTINATION_RAN,
    SOURCE_GONE; last and always CALL_RETURNED; or NATIVE_REFUSAL alone when the system below refused before any job was
    seen. SOURCE_GONE is a source whose process has ended by itself, never one that the hand-over ends. Given again
    while the transfer is under way it says nothing more; when it is over, CALL_RETURNED again.
    Disks are copied first and from then on written at both hosts; memory follows when they are the same.
    PROGRESS is told as long as disks or memory are sent, several times within the deadline of that phase; `sent_bytes`
    and `disks_sent_bytes` are its proof of progress. PASS_ENDED has what is left and how fast it goes where the plan
    has a limit for the blackout.
    No frame of the VM leaves the destination's port before ALLOW_RUN (R16). With the delegated hand-over there is
    neither DESTINATION_ARRIVED nor ALLOW_RUN: the port is opened once the copy is heard to run, and DESTINATION_RAN is
    told after that, with `port_ms` if it was opened; of a paused VM LEFT_PAUSED is told. A VM that is off is moved as
    its definition alone, a paused one arrives paused like any other.
STEER_SWITCH: STEERED(switch) or NOT_STEERABLE. STEER_BANDWIDTH, to `plan.bandwidth_mib_s`: STEERED(bandwidth) or
    NOT_STEERABLE; before there is a transfer STEERED, as START_TRANSFER takes the plan of then.
REQUEST_CANCEL: CANCEL_ACCEPTED, CANCEL_TOO_LATE or CANCEL_UNSUPPORTED. Accepted before the transfer has begun, it makes
    PREPARE answer PREPARE_FAILED and START_TRANSFER answer CALL_RETURNED(ok=False), without any transfer.
START_POSTCOPY, only of a plan that allows it and while memory is copied: POSTCOPY_SEEN, before or after SWITCH_SEEN and
    SOURCE_STOPPED, once the VM is in two halves, or NOT_STEERABLE(post-copy); from then on DESTINATION_RAN, PROGRESS as
    long as pages are sent, POSTCOPY_ENDED when the destination has them all, POSTCOPY_BROKEN when it goes on only after
    a recovery, and the CALL_RETURNED of the transfer. Neither half is ended by the backend.
RECOVER_POSTCOPY: POSTCOPY_RESUMED, also when it flows again already, and then as after START_POSTCOPY, or
    POSTCOPY_NOT_RESUMED. What carries nothing and does not know it is broken first. Any number of times.
END_HALVES, one half is gone, and with it part of the memory: HALVES_ENDED when no process of the VM is left on either
    host and its definition is at the source, or CANNOT_SETTLE: always so while both live or one may be whole.
LOOK_FOR_BINDING (strict hand-over only): BINDING_SEEN whenever what is seen changes, until seen bound or denied. With
    `silent_ms`, ever more seldom, while all has arrived and the source's system answers nothing.
END_SOURCE (strict hand-over only): end the process of the source's copy, which has been held since before the switch:
    SOURCE_ENDED once it is gone; or SOURCE_NOT_ENDED, nothing done, unless all has arrived, the destination's job is
    closed, and the source's copy is seen not to have been taken back, while nothing could let it run. A controller
    that dies in between may leave a process that stands still: the next INSPECT lets it go on first.
ALLOW_RUN (strict hand-over only): DESTINATION_RAN, also when the copy runs already, or RUN_REFUSED. Nothing when this
    backend object has reported DESTINATION_RAN before. Of a VM that was paused: LEFT_PAUSED.
FENCE, cut off the host of `command.fence` by the way that this says: FENCED with side and host, once it is proved, not
    assumed, that nothing of the VM can run there, with `proof` in words and `stood`: whether a source's copy was seen,
    in the instant in which it ended, to stand for its hand-over and not to have been taken back (None: not seen). Or
    FENCE_FAILED, the copy there left as it was as far as the fence left it.
INSPECT: EVIDENCE_SEEN, over fresh connections; a host that does not answer is not reachable, never an exception. What
    is known of its copy by another way may be told with that. Before that SOURCE_GOES_ON, if the source's process was
    found stopped by an END_SOURCE whose controller is gone: that order is as if it had never been given.
ADOPT, say how a transfer stands and follow it if this process did not start it: ADOPTED_POSTCOPY when the VM is in two
    halves; ADOPTED_STORAGE, ADOPTED_MEMORY or ADOPTED_SWITCH when a native job runs and the destination does not run
    yet (and DESTINATION_ARRIVED if it has arrived), then as START_TRANSFER; CALL_RETURNED as soon as no job is on
    either side any more, at once when it is over already. The same goes for a call of this process's own, which still
    returns only once; what it returned may be told again.
SETTLE_SOURCE, the source's copy is the VM: remove a copy at the destination, wait until it is gone, then resume the
    source if the system below paused it. SETTLED or CANNOT_SETTLE. A destination that does not answer forbids to
    resume, and nothing else: a source that runs is settled. `source_older`, neither copy is the VM any more: the
    source's is ended and never resumed; its definition goes only where the destination has one.
    A source that was cut off (`command.fenced`) has no copy: what waits at the destination is removed as well, and
    the VM's definition is stored at the host that owns it now. A destination that was cut off runs nothing.
SETTLE_DESTINATION, the destination's copy is the VM: remove the source's copy once the destination's was seen to run.
    SETTLED or CANNOT_SETTLE; before that SOURCE_FOUND_RUNNING, if the source's runs as well.
    A source that does not answer is settled when it cannot run again, because it was seen
    bound or was cut off or, where nothing of it is seen, the destination holds the lease; only then.
CLEAN_UP, remove what carries the operation's id on both hosts, and leave the epoch on the owner's copy: CLEANED, or
    LEFT_BEHIND with what could not be removed; a host that does not answer is always named. No file of a disk is
    touched: those that were made at the destination are named as left behind.
CLEAN_UP_UNDONE, the source's copy is the VM: as CLEAN_UP, and the files that PREPARE has made at the destination are
    removed, unless the plan keeps them; what was put aside for them comes back. Only what is registered and still the
    same file, and only when no VM of that host has it.
CLEAN_UP_MOVED, the destination's copy is the VM and was seen to run: as CLEAN_UP, and the files of the source that the
    plan names are removed, if they are still the files of the plan and no VM of that host has them (R3). Without
    `plan.storage` neither touches any file of a disk.

LOCK_DAEMON_GONE comes between PREPARE (or ADOPT) and CLEAN_UP, once for each host, with side and host: what holds the
    leases there has ended, and the host can take none any more. Only of hosts where that can be watched.
LEASE_SPACE_GONE likewise: a host does not see the VM's lease any more, with why.
CLAIM, RELEASE, RECORD_*, ANSWER_TOO_LATE and WAIT_TO_LOOK are carried out by the conductor with the group store,
the journal and the clock; a backend never sees them. Every command is idempotent: given twice, the second finds things
done.
`DESTINATION_RAN` is reported once per operation by a backend object, with the destination's own time of RESUME (of
looking, where a copy is found running and that time is not known any more); ditto SOURCE_STOPPED.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from refimpl.model.events import Event
from refimpl.model.facts import Facts, Scope
from refimpl.model.request import Command, CommandKind, HandOver, MigrationRequest, PostCopy

Post = Callable[[Event], None]

OWN_COMMANDS = frozenset(
    {
        CommandKind.CLAIM,
        CommandKind.RELEASE,
        CommandKind.RECORD_PENDING,
        CommandKind.RECORD_COMMIT,
        CommandKind.RECORD_POSTCOPY,
        CommandKind.RECORD_SOURCE,
        CommandKind.RECORD_DESTINATION,
        CommandKind.ANSWER_TOO_LATE,
        CommandKind.WAIT_TO_LOOK,
    }
)
"""Commands that the conductor carries out itself."""

WORKER = "worker-"
"""How the names of those threads begin without which a backend answers nothing more: a conductor ends with them."""

LOOKING = frozenset(
    {
        CommandKind.OBSERVE,
        CommandKind.PROBE,
        CommandKind.INSPECT,
        CommandKind.LOOK_FOR_BINDING,
        CommandKind.ADOPT,
    }
)
"""Commands to a backend that change nothing on a host (a probe takes back what it writes)."""

UNJOURNALED = LOOKING | {CommandKind.ANSWER_TOO_LATE, CommandKind.WAIT_TO_LOOK}
"""Commands that need no journal entry before they are given: they change nothing anywhere."""

IN_SWITCH = frozenset({CommandKind.RECORD_COMMIT, CommandKind.ALLOW_RUN})
"""Commands for whose journal entry nobody waits, as the VM stands still: what has to be durable is the owner record."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do and show; a contract test that needs what it cannot show is not applicable.

    `hand_over` is what it does unless another is asked for; `others` are those that can be.
    """

    hand_over: HandOver
    shows_phases: bool
    shows_passes: bool
    shows_blackout: bool
    steers_switch: bool
    cancels: bool
    adopts: bool
    others: tuple[HandOver, ...] = ()
    post_copy: bool = False

    @property
    def hand_overs(self) -> tuple[HandOver, ...]:
        """All that can be asked for, its own first."""
        return (self.hand_over, *self.others)

    def chosen(self, request: MigrationRequest) -> HandOver:
        """Return the hand-over of a move: the request's, else the backend's own. CHECK refuses what cannot be had.

        What runs before its memory is there cannot arrive paused and wait, so post-copy is delegated (ADR 0014).
        """
        own = self.hand_over if request.post_copy is PostCopy.OFF else HandOver.DELEGATED
        return request.hand_over or own


class Backend(Protocol):
    """What the engine drives. Thread-safe: `submit` is called from the conductor's thread only, `post` from any."""

    @property
    def name(self) -> str:
        """Short name: `libvirt`, `simulated`, ..."""
        ...

    def capabilities(self) -> Capabilities:
        """Return what this backend can do and show."""
        ...

    def observe(self, scope: Scope) -> Facts:
        """Look at hosts now and return facts; free of side effects. A host that is down is a fact, not an error."""
        ...

    def probe(self, operation: str, request: MigrationRequest) -> Facts:
        """Look as `observe` does at the whole group, and probe what PROBE says; leaves nothing behind."""
        ...

    def submit(self, command: Command) -> None:
        """Take a command and return at once; its answers come as events."""
        ...

    def close(self) -> None:
        """End threads and connections; never ends a transfer that is under way."""
        ...
