"""One simulated transfer, as the systems on both hosts carry it out between them: it outlives who asked for it.

The order of what happens is the measured one (handover 1; libvirt-qemu 2.4): passes, stop at the source, device state,
arrival, the destination's last step, the source bound, the end of its process, the return of the call. Each step is
taken only while both systems and the link answer; silence longer than the keepalive breaks the transfer off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from refimpl.backends.simulated.mirror import Mirror
from refimpl.backends.simulated.postcopy import PostCopyPart
from refimpl.backends.simulated.stages import Result, Stage, cancelled
from refimpl.backends.simulated.worldfile import FaultKind, Moment
from refimpl.model.errors import Native, Problem
from refimpl.model.events import Event, Kind
from refimpl.model.facts import Half, VmState
from refimpl.model.phase import Side
from refimpl.model.request import CommandKind, HandOver, Plan

if TYPE_CHECKING:
    from refimpl.backends.simulated.world import Copy, World

MIB = 1 << 20
SECOND_NS = 1_000_000_000
STALL_MS = 50
"""How often a silent peer is asked again, milliseconds."""


class Transfer:
    """A transfer of one VM. `listeners` are told every event; they come and go with controllers."""

    def __init__(self, world: World, operation: str, plan: Plan) -> None:
        self.world = world
        self.operation = operation
        self.plan = plan
        self.stage = Stage.STARTING
        self.result: Result | None = None
        self.lies = False
        self.forced = False
        self.stuck = False
        self.finished_there = False
        self._cancelling = False
        self.listeners: list[Callable[[Event], None]] = []
        self.watchers: list[Callable[[], None]] = []
        self.post_copy = PostCopyPart(self)
        self._mirror = Mirror(self)
        self._mute = world.faults.asked(FaultKind.HANGS, plan.vm, command=CommandKind.START_TRANSFER)
        self._token = 0
        self._stalled_ns = 0
        self._passes = 0
        self.sent = 0
        self._remaining = 0
        self._pass_ns = 0
        self._stop_ns: int | None = None
        self._downtime_ms: float | None = None
        self._link = world.spec.networks[world.network_of(plan.address) or min(world.spec.networks)].bytes_s
        self.rate = self._rate_of(plan.bandwidth_mib_s)

    @property
    def open(self) -> bool:
        """Whether a job of the system below still exists."""
        return self.stage is not Stage.OVER

    @property
    def phase_name(self) -> str:
        """The job's phase in the system's own word."""
        return self.stage.name.lower()

    @property
    def _source(self) -> Copy | None:
        return self.world.copy(self.plan.source, self.plan.vm)

    @property
    def _destination(self) -> Copy | None:
        return self.world.copy(self.plan.destination, self.plan.vm)

    def begin(self) -> None:
        """Take the order: the job starts after the latency `start`."""
        self.world.faults.strike(self.plan.vm, Moment.START)
        self.later(self.world.span_ns(self.world.spec.latency_ms.start), self._started)

    def force(self) -> bool:
        """Switch now, whatever remains. False: it is not copying memory."""
        if self.stage is not Stage.MEMORY:
            return False
        self.forced = True
        return True

    def start_post_copy(self) -> bool:
        """Switch now, and send what remains afterwards. False: it is not copying memory."""
        if self.stage is not Stage.MEMORY or self._cancelling:
            return False
        self.forced = self.post_copy.wanted = True
        return True

    def half(self, host: str) -> Half | None:
        """How the copy on a host stands as one of two halves, None when it is none."""
        return self.post_copy.half(host) if self.stage is Stage.POST_COPY else None

    def limit_to(self, bandwidth_mib_s: int) -> bool:
        """Send no faster from the next pass on; 0: as fast as the link. False: it is not copying memory any more."""
        if self.stage > Stage.POST_COPY or self.stage is Stage.SWITCH:
            return False
        self.rate = self._rate_of(bandwidth_mib_s)
        return True

    def _rate_of(self, bandwidth_mib_s: int) -> int:
        limit = bandwidth_mib_s * MIB
        return min(self._link, limit) if limit else self._link

    def cancel(self) -> bool:
        """Break off on request after the latency `cancel`. False: too late."""
        if self.stage not in (Stage.STARTING, Stage.STORAGE, Stage.MEMORY):
            return False
        if not self._cancelling and not self.world.faults.asked(FaultKind.CANCEL_LATE, self.plan.vm):
            self._cancelling = True
            self.later(self.world.span_ns(self.world.spec.latency_ms.cancel), lambda: self._fail(cancelled(self.plan)))
        return True

    def break_off(self, detail: str) -> None:
        """Fail now, for a reason of the system's own. There is no way back from post-copy: that stands still."""
        if self.stage is Stage.POST_COPY:
            self.post_copy.stop(detail)
        elif self.stage < Stage.BOUND:
            self._fail(self._failed(1, detail))

    def fill_up(self) -> None:
        """The destination's file system is full: the mirror fails, and the transfer with it."""
        if self.stage < Stage.SWITCH:
            values = {"vm": self.plan.vm, "host": self.plan.destination, "detail": "no space left on device"}
            native = Native("simulated", 28, "no space left on device")
            self._fail(Problem("storage.full", values, side=Side.DESTINATION, native=native))

    def run_both(self) -> None:
        """A bug on request: the destination runs although the source takes its copy back."""
        source, destination = self._source, self._destination
        if source and destination and self.stage < Stage.BOUND:
            self.world.run(destination, by_force=True)
            self.world.run(source, by_force=True)
            self.tell(Kind.SOURCE_RESUMED, Side.SOURCE)
            self.break_off("the answer of the destination was lost")

    def process_ended(self, host: str) -> None:
        """A copy's process has ended by itself."""
        if host == self.plan.source and self.stage < Stage.BOUND:
            self.tell(Kind.SOURCE_GONE, Side.SOURCE)
        if self.stage is Stage.POST_COPY:
            self.post_copy.stop("the other end has gone")
        self._changed()

    def source_ended(self) -> None:
        """The source's process was ended by a controller: that is no end of its own."""
        self._changed()

    def tell(self, kind: Kind, side: Side | None = None, **values: Any) -> None:
        """Tell whoever follows this transfer what happened on a side."""
        host = {Side.SOURCE: self.plan.source, Side.DESTINATION: self.plan.destination, None: None}.get(side)
        if kind not in self.world.spec.hidden:
            for listener in list(self.listeners):
                listener(Event(kind, self.world.now_ns(), values, side, host))

    def _changed(self) -> None:
        for watcher in list(self.watchers):
            watcher()

    def later(self, delay_ns: int, then: Callable[[], None]) -> None:
        """Take the next step after a delay, unless another one is taken first."""
        self._token += 1
        token = self._token
        self.world.clock.after(delay_ns, lambda: self._go(then) if token == self._token else None)

    def _go(self, then: Callable[[], None]) -> None:
        """Take the next step when nothing stands in its way; wait for a silent peer up to the keepalive."""
        if not self.open:
            return
        if self.stage < Stage.FINISH and self._process_gone(self._source):
            self.break_off("the source's process has ended")
        elif self.stage < Stage.BOUND and self._process_gone(self._destination):
            self.break_off("the destination's process has ended")
        elif self._silence() is None:
            self._stalled_ns = 0
            then()
        else:
            self._stall(then)

    def _process_gone(self, copy: Copy | None) -> bool:
        answers = copy is None or self.world.hosts[copy.host].alive
        return answers and (copy is None or not copy.alive) and self.stage is not Stage.STARTING

    def _silence(self) -> str | None:
        """Return which part of the path does not answer. The halves of a VM need no daemon."""
        if self.stage is Stage.POST_COPY:
            return None
        hosts = self.world.hosts
        silent = [name for name in (self.plan.source, self.plan.destination) if not hosts[name].answers]
        if self.stage >= Stage.BOUND:
            silent = [name for name in silent if name == self.plan.source]
        if silent:
            return f"host {silent[0]} does not answer"
        network = self.world.network_of(self.plan.address)
        cut = network in self.world.links_down and self.stage < Stage.BOUND
        return f"no answer over network {network}" if cut else None

    def _stall(self, then: Callable[[], None]) -> None:
        detail = self._silence() or ""
        waited_out = self._stalled_ns >= self.world.spec.latency_ms.keepalive * 1_000_000
        if waited_out and self.stage is Stage.BOUND:
            self._return(ok=False, problem=self.connection_lost(detail))
        elif waited_out and not self._reply_is_under_way():
            self.break_off(f"{detail} for {self.world.spec.latency_ms.keepalive} ms")
        else:
            # The destination has done its part; what it answers waits for a source that takes nothing.
            self.finished_there = self.finished_there or self._reply_is_under_way()
            self._stalled_ns += STALL_MS * 1_000_000
            self.later(STALL_MS * 1_000_000, then)

    def _reply_is_under_way(self) -> bool:
        """A source that is merely slow finds the destination's reply when it wakes (handover 1.1)."""
        source, destination = self.world.hosts[self.plan.source], self.world.hosts[self.plan.destination]
        return self.stage is Stage.FINISH and source.frozen and source.alive and destination.answers

    def _started(self) -> None:
        source = self._source
        if self.operation in self.world.cancelled:
            self._fail(cancelled(self.plan))
        elif source is None or source.state is not self.plan.vm_state:
            self.break_off(f"the VM is not {self.plan.vm_state} at the source any more")
        elif source.state is VmState.OFF:
            self._move_definition(source)
        elif self.world.plan_copy(self.plan.destination, source.vm, self.operation, self.plan) is None:
            self.break_off("the destination could not make the planned VM")
        else:
            self._begin(source)

    def _move_definition(self, source: Copy) -> None:
        """Move a VM that is off: its definition is all there is of it."""
        if self.world.copy(self.plan.destination, self.plan.vm) is not None:
            self.break_off("the destination has a VM of that name")
            return
        self.world.remove(source)
        self.world.define(self.plan.destination, source.vm, self.operation, self.plan)
        self._return(ok=True)

    def _begin(self, source: Copy) -> None:
        source.operation, source.plan = self.operation, self.plan
        self.stage = Stage.STORAGE if self.plan.storage else Stage.MEMORY
        self.tell(Kind.TRANSFER_STARTED, Side.SOURCE, reference=f"simulated/{self.operation}")
        if self.plan.storage is None:
            self.begin_memory()
        else:
            self._mirror.begin()

    def begin_memory(self) -> None:
        """Copy the memory, the disks being on both sides if they are to move."""
        self.stage = Stage.MEMORY
        self.tell(Kind.MEMORY_SEEN, Side.SOURCE)
        self._remaining = self.memory_bytes()
        self._pass_ns = self.world.now_ns()
        self.world.faults.strike(self.plan.vm, Moment.MEMORY)
        self._tick()

    def _tick(self) -> None:
        """Send for a while: until the pass has ended or the next progress is due."""
        if not self.open:
            return
        if self.stuck:
            self.later(self.world.spec.latency_ms.progress * 1_000_000, lambda: self._ticked(0))
            return
        whole_ns = self._remaining * SECOND_NS // self.rate + 1
        tick_ns = self.world.spec.latency_ms.progress * 1_000_000
        if whole_ns <= tick_ns:
            self.later(whole_ns, lambda: self._ticked(self._remaining))
        else:
            self.later(tick_ns, lambda: self._ticked(self.rate * tick_ns // SECOND_NS))

    def _ticked(self, sent: int) -> None:
        self.sent += sent
        self._remaining -= sent
        dirty = self._dirty()
        lasted_ns = max(1, self.world.now_ns() - self._pass_ns)
        self.tell(
            Kind.PROGRESS,
            Side.SOURCE,
            total_bytes=self.memory_bytes(),
            remaining_bytes=self._remaining + dirty,
            sent_bytes=self.sent,
            dirty_bytes_s=dirty * SECOND_NS // lasted_ns,
            bytes_s=self.rate,
        )
        if self.stuck:
            self._tick()
        elif self._remaining == 0:
            self._pass_ended(dirty)
        elif self.forced:
            self._switch(min(self._remaining + dirty, self.memory_bytes()))
        else:
            self._tick()

    def _pass_ended(self, dirty: int) -> None:
        self._passes += 1
        self._remaining, self._pass_ns = dirty, self.world.now_ns()
        figures = {"remaining_bytes": self._remaining, "bytes_s": self.rate}
        self.tell(Kind.PASS_ENDED, Side.SOURCE, number=self._passes, **figures)
        self.world.faults.strike(self.plan.vm, on_pass=self._passes)
        limits_ms = (self.world.spec.downtime_limit_ms, self.plan.cancel_if_blackout_exceeds_ms)
        fits = self._remaining * 1000 <= self.rate * min(ms for ms in limits_ms if ms is not None)
        if fits or self.forced:
            self._go(lambda: self._switch(self._remaining))
        else:
            self._tick()

    def _dirty(self) -> int:
        source = self._source
        return self.world.dirtied_bytes(source.vm, self._pass_ns) if source else 0

    def memory_bytes(self) -> int:
        """How much memory the VM has."""
        source = self._source
        return source.vm.memory_mib * MIB if source else 0

    def _switch(self, remaining: int) -> None:
        source = self._source
        if source is None:
            return
        if self.post_copy.wanted:
            self.post_copy.left, remaining = remaining, 0
        self.stage = Stage.SWITCH
        self.tell(Kind.SWITCH_SEEN, Side.SOURCE)
        self._stop_ns = self.world.now_ns()
        if source.state is VmState.RUNNING:
            self.world.stop(source, VmState.PAUSED, "migration")
            self.tell(Kind.SOURCE_STOPPED, Side.SOURCE)
        self.sent += remaining
        self.world.faults.strike(self.plan.vm, Moment.SWITCH)
        span_ns = remaining * SECOND_NS // self.rate
        self._if_open(span_ns + self.world.span_ns(self.world.spec.latency_ms.device), self._arrived)

    def _if_open(self, delay_ns: int, then: Callable[[], None]) -> None:
        """Go on, unless what has just struck has broken the transfer off."""
        if self.open:
            self.later(delay_ns, then)

    def _arrived(self) -> None:
        destination = self._destination
        if destination is None:
            return
        if self.post_copy.wanted:
            self._downtime_ms = (self.world.now_ns() - (self._stop_ns or 0)) / 1e6
            self.post_copy.begin()
            return
        self.stage = Stage.FINISH
        destination.state, destination.reason = VmState.PAUSED, "arrived"
        self._downtime_ms = (self.world.now_ns() - (self._stop_ns or 0)) / 1e6
        strict = self.plan.hand_over is HandOver.STRICT
        if strict:
            self.tell(Kind.DESTINATION_ARRIVED, Side.DESTINATION)
        self.world.faults.strike(self.plan.vm, Moment.ARRIVED)
        self._if_open(self.world.span_ns(self.world.spec.latency_ms.finish), self._bound if strict else self._runs)

    def _bound(self) -> None:
        self.stage = Stage.BOUND
        self.world.faults.strike(self.plan.vm, Moment.BOUND)
        self._changed()
        self.later(self.world.span_ns(self.world.spec.latency_ms.teardown), self._torn_down)

    def _runs(self) -> None:
        """Delegated hand-over: the destination's system lets its copy run by itself."""
        destination = self._destination
        if destination is not None and self.plan.vm_state is VmState.PAUSED:
            self.left_paused()
        elif destination is None or not self.world.run(destination):
            self.break_off("the destination's copy could not take its lease")
            return
        else:
            self.ran()
        self._if_open(self.world.span_ns(self.world.spec.latency_ms.finish), self._bound)

    def ran(self) -> None:
        """The destination's copy has begun to run: note when, and say so."""
        self.world.let_go_ns[self.operation] = self.world.now_ns()
        self.tell(Kind.DESTINATION_RAN, Side.DESTINATION)
        self.world.faults.strike(self.plan.vm, Moment.RAN)

    def left_paused(self) -> None:
        """The destination's copy may run, and stays paused as it was at the source."""
        self.world.let_go_ns[self.operation] = self.world.now_ns()
        self.tell(Kind.LEFT_PAUSED, Side.DESTINATION)

    def _torn_down(self) -> None:
        source = self._source
        if source is not None:
            self.world.remove(source)
        self._return(ok=True)

    def memory_is_there(self) -> None:
        """The destination has all memory: each system does the rest by itself, as far as it answers."""
        self._bound()

    def leave_in_halves(self, problem: Problem) -> None:
        """The call returns although the VM is in two halves still."""
        self._tell_returned(ok=False, problem=problem)

    def end_in_halves(self) -> None:
        """Nothing of it is left."""
        self._token += 1
        self.stage = Stage.OVER

    def _fail(self, problem: Problem) -> None:
        """End without success: each side does what its system does by itself, as far as it answers."""
        if self.stage < Stage.SWITCH:
            # The source's guest writes on, and to its own disks alone.
            self.world.disks.mirrored(self.plan, whole=False)
        self._at_once_or_later(self.plan.source, self._take_back)
        self._at_once_or_later(self.plan.destination, self._give_up)
        self._return(ok=False, problem=problem)

    def _at_once_or_later(self, host: str, action: Callable[[bool], None]) -> None:
        now = self.world.hosts[host]
        if now.answers:
            action(False)
        elif now.alive:
            now.queued.append(lambda: action(True))

    def _take_back(self, _late: bool) -> None:
        source = self._source
        if source is None or source.state is not VmState.PAUSED or source.reason != "migration":
            return
        if source.stopped:
            source.held_back.append(lambda: self._take_back(True))
        elif self.world.run(source):
            self.tell(Kind.SOURCE_RESUMED, Side.SOURCE)
        else:
            source.reason = "resume refused"

    def _give_up(self, late: bool) -> None:
        """The destination's own end: what has not arrived is removed; what had been ordered is still carried out."""
        copy = self._destination
        if copy is None or copy.operation != self.operation or copy.state is VmState.RUNNING:
            return
        if copy.state is VmState.OFF and self.operation in self.world.let_go_ns:
            # Its definition was stored before it was let run.
            return
        cut = self.world.network_of(self.plan.address) in self.world.links_down
        arrived = copy.state is VmState.PAUSED
        if arrived and self.plan.hand_over is HandOver.STRICT and (late or cut or self.finished_there):
            return
        if arrived and late and self.world.run(copy):
            self.ran()
        else:
            self.world.remove(copy)

    def connection_lost(self, detail: str) -> Problem:
        """Return the problem of a call whose connection was lost."""
        return self._failed(38, detail)

    def _failed(self, code: int, detail: str) -> Problem:
        values = {"vm": self.plan.vm, "source": self.plan.source, "detail": detail}
        return Problem(id="transfer.failed", values=values, native=Native("simulated", code, detail))

    def _return(self, ok: bool, problem: Problem | None = None) -> None:
        if ok and self.lies:
            ok, problem = False, self.connection_lost("the answer of the destination was lost")
        self._token += 1
        self.stage = Stage.OVER
        self._changed()
        self._tell_returned(ok, problem)

    def _tell_returned(self, ok: bool, problem: Problem | None) -> None:
        self.result = Result(ok, problem, self.sent, self._downtime_ms)
        if not self._mute:
            self.tell(
                Kind.CALL_RETURNED,
                ok=ok,
                problem=problem,
                sent_bytes=self.sent,
                qemu_downtime_ms=self._downtime_ms,
            )
