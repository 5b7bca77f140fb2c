"""The conductor: one synchronous loop that takes an event, steps through the table and gives the commands.

It knows no backend, no clock but its timeline, and no phase by name: what happens when is in `refimpl.engine.phases`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from refimpl.checks.limits import limit_reached
from refimpl.engine import recording
from refimpl.engine.backend import IN_SWITCH, OWN_COMMANDS, UNJOURNALED, Backend
from refimpl.engine.decisions import decide
from refimpl.engine.journal import Journal
from refimpl.engine.phases import DEADLINES, LOOK_AGAIN_MS, QUIET, Row
from refimpl.engine.step import step
from refimpl.engine.store import Claim, LimitReached, Store, completed
from refimpl.engine.timeline import Timeline
from refimpl.model.errors import Problem, RefimplError
from refimpl.model.events import DECISIONS, Event, Kind
from refimpl.model.fencing import NONE, FenceOrder, FenceSetting
from refimpl.model.group import ProcessRef
from refimpl.model.learning import record
from refimpl.model.ledger import Ledger
from refimpl.model.outcome import Outcome, outcome
from refimpl.model.ownership import OwnerRecord
from refimpl.model.phase import ENDS, Phase, Side
from refimpl.model.request import Command, CommandKind, Plan, Steer
from refimpl.model.settings import HostSettings
from refimpl.policy.convergence import progressed

_DECIDING = {
    CommandKind.RECORD_SOURCE: (Side.SOURCE, Kind.SOURCE_RECORDED),
    CommandKind.RECORD_DESTINATION: (Side.DESTINATION, Kind.DESTINATION_RECORDED),
}

Listener = Callable[[Event], None]
StopPoint = Callable[[str], None]


def no_stop(_: str) -> None:
    """Stop nowhere; only tests stop a conductor."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who conducts: the controller (its home directory) and its process."""

    controller: str
    process: ProcessRef


class Stalled(RuntimeError):
    """Nothing can happen any more and the migration has not ended: a defect, in virtual time only."""


class Conductor:
    """Drives one migration from `phase` to an end. Not thread-safe: everything happens in the thread of `run`.

    Listeners are told every event right after it was taken in; they must not block.
    """

    def __init__(
        self,
        ledger: Ledger,
        backend: Backend,
        timeline: Timeline,
        *,
        store: Store,
        journal: Journal,
        identity: Identity,
        phase: Phase = Phase.NEW,
        last_step: int = 0,
        listeners: Sequence[Listener] = (),
        stop_point: StopPoint = no_stop,
        step: Callable[[Phase, Kind], Row] = step,
    ) -> None:
        self.ledger = ledger
        self.phase = phase
        self._backend = backend
        self._timeline = timeline
        self._store = store
        self._journal = journal
        self.identity = identity
        self._count = last_step
        self._listeners = tuple(listeners)
        self._stop_point = stop_point
        self._step = step
        self._waiting: deque[Event] = deque()
        self._unsaved = False

    def start(self) -> Outcome:
        """Carry out a new migration."""
        return self.run(self._event(Kind.STARTED, request=self.ledger.request))

    def recover(self, *, force: bool = False) -> Outcome:
        """End an interrupted migration, or tidy up after an ended one. Twice is the same as once.

        `force`: a host that does not answer is fenced, and what it had of the VM is over then.
        """
        self._arm()
        before = self.phase
        known = {"force": True if force else None, "ownership": self._recorded_since()}
        self._take(self._event(Kind.RECOVER_WISHED, **{name: value for name, value in known.items() if value}))
        if self.phase is before and before in ENDS:
            # It had ended. Only giving the claim back may have been missed, and what the store did not take at the end.
            self._unsaved = True
            self._release()
        return self._until_end()

    def _recorded_since(self) -> OwnerRecord | None:
        """Return what this operation has recorded later than its journal knows, such as the commit; None: nothing.

        A store that does not answer tells nothing, and what both hosts show has to do.
        """
        plan, known = self.ledger.plan, self.ledger.ownership
        try:
            standing = self._store.owner(plan.vm_id) if plan is not None else None
        except RefimplError:
            return None
        if standing is None or standing.operation != self.ledger.operation:
            return None
        return standing if known is None or standing.epoch > known.epoch else None

    def run(self, first: Event) -> Outcome:
        """Take events from a first one on until an end is reached."""
        self._take(first)
        return self._until_end()

    def _until_end(self) -> Outcome:
        while self.phase not in ENDS:
            if self._timeline.idle() and self.phase not in QUIET:
                self._write(lambda: self._journal.flush(self.phase, self.ledger))
            event = self._timeline.next()
            if event is None:
                raise Stalled(f"nothing can happen any more in phase {self.phase}")
            self._take(event)
        return self._end()

    def _take(self, event: Event) -> None:
        self._waiting.append(event)
        while self._waiting:
            self._take_one(self._waiting.popleft())

    def _take_one(self, event: Event) -> None:
        if event.kind is Kind.DEADLINE:
            event = self._explained(event)
        elif event.kind is Kind.FACTS_SEEN:
            can = self._backend.capabilities()
            offered = replace(event["facts"], hand_overs=can.hand_overs, post_copy=can.post_copy)
            whole = completed(offered, self._store, self.ledger.operation)
            event = replace(event, values={**event.values, "facts": whole})
        row = self._step(self.phase, event.kind)
        if event.kind not in DECISIONS or row != Row(self.phase):
            # A decision that has no row here comes too late to count.
            before, self.ledger = self.ledger, record(self.ledger, event, self.phase)
            self._note_progress(before)
        self._publish(event)
        entered = row.phase is not self.phase
        if entered:
            self._leave(row.phase)
        self._give(row.commands)
        if entered:
            self._stop_point(row.phase)
        decision = decide(self.ledger, event, self._timeline.now_ns())
        if decision is not None:
            self._waiting.append(decision)

    def _explained(self, event: Event) -> Event:
        """Return a deadline with the problem that it is in this phase, if it is one."""
        deadline = DEADLINES.get(self.phase)
        if deadline is None or deadline.error is None:
            return event
        detail = f"no answer within {deadline.after_ms} ms in phase {self.phase}"
        values = {"vm": self.ledger.request.vm, "operation": self.ledger.operation, "detail": detail}
        problem = Problem(id=deadline.error, values=values | {"limit_ms": deadline.after_ms})
        return replace(event, values={**event.values, "problem": problem})

    def _leave(self, phase: Phase) -> None:
        self._timeline.disarm(self.phase)
        self.phase = phase
        self._arm()
        self._publish(self._event(Kind.PHASE_ENTERED, phase=phase))

    def _note_progress(self, before: Ledger) -> None:
        deadline = DEADLINES.get(self.phase)
        if deadline is not None and deadline.since_progress and progressed(before, self.ledger):
            self._arm()

    def _arm(self) -> None:
        deadline = DEADLINES.get(self.phase)
        if deadline is not None:
            self._timeline.arm(self.phase, deadline.after_ms)

    def _give(self, kinds: Sequence[CommandKind]) -> None:
        commands = [self._command(kind) for kind in kinds]
        if any(kind not in UNJOURNALED for kind in kinds):
            durable = not IN_SWITCH.issuperset(kinds)
            self._write(lambda: self._journal.intend(self.phase, self.ledger, commands, durable=durable))
        for command in commands:
            self._stop_point(f"intended:{command.kind}")
            self._publish(self._event(Kind.COMMANDED, command=command))
            if command.kind in OWN_COMMANDS:
                self._own(command)
            else:
                self._backend.submit(command)
            self._stop_point(f"given:{command.kind}")

    def _write(self, write: Callable[[], None]) -> None:
        """Write to the journal. Once the VM is claimed, claim and mark carry a recovery too: a failure is a warning."""
        try:
            write()
        except RefimplError as failure:
            if not self.ledger.claimed:
                raise
            self._waiting.append(self._event(Kind.JOURNAL_LOST, problem=failure.problems[0]))

    def _command(self, kind: CommandKind) -> Command:
        self._count += 1
        ledger = self.ledger
        fence = self._fence() if kind is CommandKind.FENCE else None
        known = (ledger.request, ledger.plan, ledger.ownership, ledger.source_older)
        return Command(kind, ledger.operation, self._count, *known, fence=fence, fenced=ledger.fenced)

    def _fence(self) -> FenceOrder:
        """Return the order to cut off the host that is to be; how, is a setting of the group."""
        host = self.ledger.to_fence
        assert host is not None
        try:
            return FenceOrder(host, self._store.settings().get(host, HostSettings()).fence)
        except RefimplError as failure:
            # Without its setting nothing is cut off: the answer is that it cannot be.
            self._waiting.append(self._event(Kind.JOURNAL_LOST, problem=failure.problems[0]))
            return FenceOrder(host, FenceSetting(NONE))

    def _own(self, command: Command) -> None:
        """Carry out a command of the conductor's own."""
        if command.kind is CommandKind.CLAIM:
            self._claim()
        elif command.kind is CommandKind.RECORD_PENDING:
            self._record_pending()
        elif command.kind is CommandKind.RECORD_COMMIT:
            self._record_commit(command)
        elif command.kind is CommandKind.RECORD_POSTCOPY:
            self._record_post_copy()
        elif command.kind in _DECIDING:
            self._record_owner(command.kind)
        elif command.kind is CommandKind.RELEASE:
            self._release()
        elif command.kind is CommandKind.WAIT_TO_LOOK:
            due_ns = self._timeline.now_ns() + LOOK_AGAIN_MS * 1_000_000
            self._timeline.post_after(Event(Kind.LOOK_DUE, due_ns), LOOK_AGAIN_MS)
        elif command.kind is CommandKind.ANSWER_TOO_LATE:
            self._waiting.append(self._event(Kind.CANCEL_TOO_LATE, reason="the switch has begun"))

    def _claim(self) -> None:
        plan = self.ledger.plan
        assert plan is not None
        wanted = Claim(self.ledger.operation, self.identity.controller, self.identity.process, plan)
        try:
            standing = self._store.claim(wanted)
        except RefimplError as failure:
            self._waiting.append(self._event(Kind.CLAIM_REFUSED, problem=failure.problems[0]))
            return
        if standing is None:
            self._waiting.append(self._event(Kind.CLAIMED))
        else:
            self._waiting.append(self._event(Kind.CLAIM_REFUSED, problem=_claim_problem(plan, standing)))

    def _record_pending(self) -> None:
        """Record the move in the owner record; without that nothing is touched.

        Once more after post-copy was recorded and not begun: the destination is not the owner after all.
        """
        assert self.ledger.plan is not None
        known, operation = self.ledger.ownership, self.ledger.operation
        try:
            if known is None or known.pending is not None:
                ownership = recording.begin(self._store, self.ledger.plan, operation)
            else:
                ownership = recording.take_back(self._store, self.ledger.plan, operation, known)
        except RefimplError as failure:
            self._waiting.append(self._event(Kind.RECORD_REFUSED, problem=failure.problems[0]))
        else:
            self._waiting.append(self._event(Kind.PENDING_RECORDED, ownership=ownership))

    def _record_commit(self, command: Command) -> None:
        """Make the destination the owner. That is the commit record, the one thing that is flushed in the switch.

        Evidence has bound the source, so a store that does not answer stops nothing: the journal has it then.
        """
        before_ns = self._timeline.now_ns()
        ownership = self._decided(Side.DESTINATION, recording.COMMIT_WAIT_S)
        if ownership is None:
            return
        if self._unsaved:
            self._write(lambda: self._journal.intend(self.phase, self.ledger, [command]))
        cost_ms = (self._timeline.now_ns() - before_ns) / 1e6
        self._waiting.append(self._event(Kind.COMMIT_RECORDED, cost_ms=cost_ms, ownership=ownership))

    def _record_post_copy(self) -> None:
        """Make the destination the owner before it may run: once begun there is no way back to the source.

        Nothing stands still yet, so without the record it is not begun.
        """
        plan, operation, known = self.ledger.plan, self.ledger.operation, self.ledger.ownership
        assert plan is not None
        try:
            ownership = recording.decide(self._store, plan, operation, plan.destination, known)
        except RefimplError as failure:
            (problem,) = failure.problems
            values = {"what": Steer.POST_COPY, "reason": problem.text}
            self._waiting.append(self._event(Kind.NOT_STEERABLE, **values))
        else:
            self._waiting.append(self._event(Kind.POSTCOPY_RECORDED, ownership=ownership))

    def _record_owner(self, kind: CommandKind) -> None:
        side, recorded = _DECIDING[kind]
        ownership = self._decided(side)
        if ownership is not None:
            self._waiting.append(self._event(recorded, ownership=ownership))

    def _decided(self, side: Side, wait_s: float = recording.WAIT_S) -> OwnerRecord | None:
        """Record the owner, or say that another has taken the VM over (None). A store that does not answer: warning."""
        plan, operation, known = self.ledger.plan, self.ledger.operation, self.ledger.ownership
        assert plan is not None
        owner = self.ledger.left_on or plan.source if side is Side.SOURCE else plan.destination
        try:
            ownership = recording.decide(self._store, plan, operation, owner, known, wait_s)
        except RefimplError as failure:
            (problem,) = failure.problems
            if problem.id == "owner.superseded":
                self._waiting.append(self._event(Kind.RECORD_REFUSED, problem=problem))
                return None
            self._waiting.append(self._event(Kind.JOURNAL_LOST, problem=problem))
            self._unsaved = True
            return recording.unsaved(plan, operation, owner, known)
        self._unsaved = False
        return ownership

    def _release(self) -> None:
        """Give the claim back. A store that does not answer leaves a claim that `recover` gives back: a warning.

        It is kept as well where the owner record could not be saved: by the claim that is found, and made good.
        """
        if self.ledger.plan is None:
            return
        plan, operation = self.ledger.plan, self.ledger.operation
        saved = self._or_warn(lambda: self._save_owner(plan))
        give = partial(self._store.release, plan.vm_id, operation) if saved else partial(self._store.abandon, operation)
        self._or_warn(give)

    def _or_warn(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except RefimplError as failure:
            self._waiting.append(self._event(Kind.JOURNAL_LOST, problem=failure.problems[0]))
            return False
        return True

    def _save_owner(self, plan: Plan) -> None:
        """Record once more what the store did not take before; what another has recorded since stands."""
        ownership = self.ledger.ownership
        if self._unsaved and ownership is not None:
            standing = self._store.owner(plan.vm_id)
            if standing is None or standing.epoch < ownership.epoch:
                self._store.swap_owner(standing, ownership)
            self._unsaved = False

    def _end(self) -> Outcome:
        self._timeline.disarm(self.phase)
        self.ledger = replace(self.ledger, ended_ns=self.ledger.ended_ns or self._timeline.now_ns())
        result = outcome(self.ledger, self.phase)
        self._write(lambda: self._journal.end(self.phase, self.ledger, result.to_json()))
        return result

    def _event(self, kind: Kind, **values: object) -> Event:
        return Event(kind, self._timeline.now_ns(), values)

    def _publish(self, event: Event) -> None:
        self._journal.note(event)
        for listener in self._listeners:
            listener(event)


def _claim_problem(plan: Plan, standing: Claim | LimitReached) -> Problem:
    if isinstance(standing, LimitReached):
        return limit_reached(plan, standing.host, standing.limit, standing.operations, storage=standing.storage)
    values = {"vm": plan.vm, "operation": standing.operation, "controller": standing.controller}
    return Problem(id="vm.migrating", values=values)
