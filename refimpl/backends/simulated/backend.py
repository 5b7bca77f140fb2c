"""The simulated backend: the seam's commands carried out on a `World`, under virtual time.

It is what one controller holds: when it is lost, everything that it was about to do itself is lost with it, while the
world's transfers go on. A second object on the same world finds them by ADOPT and INSPECT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from refimpl.backends.simulated.ending import Ending
from refimpl.backends.simulated.facts import look, seen
from refimpl.backends.simulated.settling import Settling
from refimpl.backends.simulated.stages import Stage, cancelled
from refimpl.backends.simulated.transfer import Transfer
from refimpl.backends.simulated.world import BY_MIGRATION, World
from refimpl.backends.simulated.worldfile import FaultKind, Moment
from refimpl.engine.backend import Capabilities, Post
from refimpl.engine.timeline import VirtualTimeline
from refimpl.model.errors import Native, Problem
from refimpl.model.events import Event, Kind
from refimpl.model.facts import CopySeen, Evidence, Facts, Scope, VmState
from refimpl.model.phase import Side
from refimpl.model.request import Command, CommandKind, HandOver, MigrationRequest, Plan, Steer

_HAND_OVERS = (HandOver.STRICT, HandOver.DELEGATED)


class SimulatedBackend:
    """Implements the seam on a world. Constructing it hangs the world on this controller's timeline."""

    def __init__(self, world: World, post: Post, timeline: VirtualTimeline) -> None:
        world.carry_to(timeline)
        self.world = world
        self._post = post
        self._generation = world.clock.generation
        self._closed = False
        self._following: set[str] = set()
        self._said: set[tuple[str, Kind]] = set()
        self._watched: set[tuple[str, str]] = set()
        self._settling = Settling(self)
        self._ending = Ending(self)
        self._doing: Mapping[CommandKind, Callable[[Command, Plan], None]] = {
            CommandKind.PREPARE: self._prepare,
            CommandKind.START_TRANSFER: self._start,
            CommandKind.STEER_SWITCH: self._steer,
            CommandKind.STEER_BANDWIDTH: self._steer_bandwidth,
            CommandKind.START_POSTCOPY: self._start_post_copy,
            CommandKind.RECOVER_POSTCOPY: self._recover_post_copy,
            CommandKind.END_HALVES: self._settling.end_halves,
            CommandKind.REQUEST_CANCEL: self._cancel,
            CommandKind.LOOK_FOR_BINDING: self._look_for_binding,
            CommandKind.END_SOURCE: self._ending.end_source,
            CommandKind.FENCE: self._fence,
            CommandKind.ALLOW_RUN: self._allow_run,
            CommandKind.INSPECT: self._inspect,
            CommandKind.ADOPT: self._adopt,
            CommandKind.SETTLE_SOURCE: self._settling.keep_source,
            CommandKind.SETTLE_DESTINATION: self._settling.keep_destination,
            CommandKind.CLEAN_UP: self._settling.clean_up,
            CommandKind.CLEAN_UP_UNDONE: self._settling.clean_up,
            CommandKind.CLEAN_UP_MOVED: self._settling.clean_up,
        }

    @property
    def name(self) -> str:
        """`simulated`."""
        return "simulated"

    def capabilities(self) -> Capabilities:
        """Everything, with the hand-over of the world as its own."""
        return Capabilities(
            hand_over=self.world.spec.hand_over,
            shows_phases=True,
            shows_passes=True,
            shows_blackout=True,
            steers_switch=True,
            cancels=True,
            adopts=True,
            others=tuple(h for h in _HAND_OVERS if h is not self.world.spec.hand_over),
            post_copy=True,
        )

    def observe(self, scope: Scope) -> Facts:
        """Look at the world now."""
        return look(self.world, scope)

    def probe(self, operation: str, request: MigrationRequest) -> Facts:
        """Look at the world now: the simulated hosts hide nothing that would need a probe."""
        return look(self.world, Scope(vm=request.vm, request=request))

    def submit(self, command: Command) -> None:
        """Take a command; it is carried out after the latency `control`. ValueError when it lacks the plan it needs."""
        starts = command.kind is CommandKind.START_TRANSFER
        if not starts and self.world.faults.asked(FaultKind.HANGS, command.request.vm, command=command.kind):
            return
        if command.kind is CommandKind.PREPARE:
            self.world.faults.strike(command.request.vm, Moment.PREPARE)
        if command.kind in (CommandKind.OBSERVE, CommandKind.PROBE):
            looking = partial(self.probe, command.operation, command.request)
            self.later(self._control_ns(), lambda: self.say(Kind.FACTS_SEEN, facts=looking()))
            return
        if command.plan is None:
            raise ValueError(f"{command.kind} needs a plan")
        slow = self.world.spec.latency_ms.prepare if command.kind is CommandKind.PREPARE else 0
        doing = partial(self._doing[command.kind], command, command.plan)
        self.later(self._control_ns() + self.world.span_ns(slow), doing)

    def close(self) -> None:
        """Let go of the world: nothing is told or done by this object any more; transfers go on."""
        self._closed = True

    def source_is_ended(self, operation: str, plan: Plan) -> bool:
        """Whether the source's process, held by this object, is known to be gone."""
        return self._ending.has_ended(operation, plan)

    def later(self, delay_ns: int, action: Callable[[], None]) -> None:
        """Do something of this controller's own after a delay, unless it is lost by then."""
        self.world.clock.after(delay_ns, lambda: action() if self._alive() else None)

    def say(self, kind: Kind, side: Side | None = None, host: str | None = None, **values: Any) -> None:
        """Post an answer."""
        self._post(Event(kind, self.world.now_ns(), values, side, host))

    def side(self, plan: Plan, side: Side) -> CopySeen:
        """Look at one side of a plan."""
        as_source = side is Side.SOURCE
        return seen(self.world, plan.source if as_source else plan.destination, plan.vm, as_source)

    def _alive(self) -> bool:
        return not self._closed and self._generation == self.world.clock.generation

    def _control_ns(self) -> int:
        return self.world.span_ns(self.world.spec.latency_ms.control)

    def _watch_lock_daemons(self, operation: str, plan: Plan) -> None:
        """Tell, once for each host, that its lock daemon has ended; at once of one that has already."""
        for side, host in ((Side.SOURCE, plan.source), (Side.DESTINATION, plan.destination)):
            if (operation, host) in self._watched:
                continue
            self._watched.add((operation, host))

            def ended(side: Side = side, host: str = host) -> None:
                if self._alive():
                    self.say(Kind.LOCK_DAEMON_GONE, side, host)

            now = self.world.hosts[host]
            if now.lock_daemon:
                now.lock_watchers.append(ended)
            else:
                ended()

    def _prepare(self, command: Command, plan: Plan) -> None:
        self._watch_lock_daemons(command.operation, plan)
        asked = partial(self.world.faults.asked, vm=plan.vm)
        if command.operation in self.world.cancelled:
            self._prepare_failed(cancelled(plan))
        elif silent := self._silent(plan):
            self._prepare_failed(_failed(f"host {silent} does not answer"))
        elif plan.vm_state is not VmState.OFF and not self._connects(plan):
            values = {"host": plan.destination, "tried": str(plan.address)}
            native = Native("simulated", 110, "connection timed out")
            problem = Problem(id="network.no_connection", values=values, side=Side.DESTINATION, native=native)
            self.say(Kind.NETWORK_FAILED, address=plan.address, problem=problem)
        elif asked(FaultKind.PREPARE_FAILS):
            self._prepare_failed(_failed("scripted: the destination refuses"))
        elif asked(FaultKind.NATIVE_REFUSAL):
            values = {"vm": plan.vm, "detail": "scripted: the system refuses this VM"}
            self.say(Kind.NATIVE_REFUSAL, problem=Problem(id="transfer.refused", values=values))
        else:
            self._make_planned(command, plan)

    def _connects(self, plan: Plan) -> bool:
        network = self.world.network_of(plan.address)
        cut = network is None or network in self.world.links_down
        return not cut and not self.world.faults.asked(FaultKind.NO_CONNECTION, vm=plan.vm, network=network)

    def _silent(self, plan: Plan) -> str | None:
        return next((h for h in (plan.source, plan.destination) if not self.world.hosts[h].answers), None)

    def _make_planned(self, command: Command, plan: Plan) -> None:
        source = self.world.copy(plan.source, plan.vm)
        if source is None or source.state is not plan.vm_state:
            self._prepare_failed(_failed(f"the VM is not {plan.vm_state} at the source any more"))
        elif source.operation not in (None, command.operation):
            self._prepare_failed(_failed(f"the VM carries the mark of operation {source.operation}"))
        elif refused := self.world.disks.make(command.operation, plan):
            self._prepare_failed(refused)
        elif source.alive and self.world.plan_copy(plan.destination, source.vm, command.operation, plan) is None:
            self._prepare_failed(_failed("no room for the planned VM"))
        else:
            source.operation, source.plan, source.autostart = command.operation, plan, False
            self._ending.hold(command.operation)
            self._stamp(command, plan)
            self.say(Kind.PREPARED, Side.DESTINATION, plan.destination, address=plan.address)

    def _stamp(self, command: Command, plan: Plan) -> None:
        for host in (plan.source, plan.destination):
            copy = self.world.copy(host, plan.vm)
            if copy is not None and command.ownership is not None:
                copy.epoch = max(copy.epoch, command.ownership.epoch)

    def _prepare_failed(self, problem: Problem) -> None:
        self.say(Kind.PREPARE_FAILED, problem=problem)

    def _start(self, command: Command, plan: Plan) -> None:
        transfer = self.world.transfers.get(command.operation)
        if transfer is None:
            transfer = Transfer(self.world, command.operation, plan)
            self.world.transfers[command.operation] = transfer
            self._follow(transfer)
            transfer.begin()
        elif not transfer.open:
            self._returned(transfer)
        elif command.operation not in self._following:
            self._follow(transfer)

    def _follow(self, transfer: Transfer) -> None:
        self._following.add(transfer.operation)
        transfer.listeners.append(lambda event: self._told(transfer.operation, event))

    def _told(self, operation: str, event: Event) -> None:
        """Pass on what the world tells; what is reported once per operation, once."""
        if not self._alive():
            return
        once = (operation, event.kind)
        if event.kind in (Kind.DESTINATION_RAN, Kind.SOURCE_STOPPED):
            if once in self._said:
                return
            self._said.add(once)
        self._post(event)

    def _returned(self, transfer: Transfer | None) -> None:
        result = transfer.result if transfer else None
        if transfer is None or result is None or transfer.operation not in self._following:
            self.say(Kind.CALL_RETURNED)
            return
        self.say(
            Kind.CALL_RETURNED,
            ok=result.ok,
            problem=result.problem,
            sent_bytes=result.sent_bytes,
            qemu_downtime_ms=result.qemu_downtime_ms,
        )

    def _steer(self, command: Command, plan: Plan) -> None:
        transfer = self.world.transfers.get(command.operation)
        if self.world.faults.asked(FaultKind.STEER_REFUSED, plan.vm):
            self.say(Kind.NOT_STEERABLE, what=Steer.SWITCH, reason="scripted: the system does not take it")
        elif transfer is None or not transfer.force():
            self.say(Kind.NOT_STEERABLE, what=Steer.SWITCH, reason="no memory is being copied")
        else:
            self.say(Kind.STEERED, what=Steer.SWITCH)

    def _steer_bandwidth(self, command: Command, plan: Plan) -> None:
        transfer = self.world.transfers.get(command.operation)
        if transfer is not None and not transfer.limit_to(plan.bandwidth_mib_s):
            self.say(Kind.NOT_STEERABLE, what=Steer.BANDWIDTH, reason="no memory is being copied")
        else:
            self.say(Kind.STEERED, what=Steer.BANDWIDTH)

    def _start_post_copy(self, command: Command, plan: Plan) -> None:
        transfer = self.world.transfers.get(command.operation)
        if self.world.faults.asked(FaultKind.POST_COPY_REFUSED, plan.vm):
            self.say(Kind.NOT_STEERABLE, what=Steer.POST_COPY, reason="scripted: the system does not take it")
        elif transfer is None or not transfer.start_post_copy():
            self.say(Kind.NOT_STEERABLE, what=Steer.POST_COPY, reason="no memory is being copied")

    def _recover_post_copy(self, command: Command, plan: Plan) -> None:
        transfer = self.world.transfers.get(command.operation)
        if transfer is not None and command.operation not in self._following:
            self._follow(transfer)
        refused = "there is no transfer" if transfer is None else transfer.post_copy.resume()
        if refused is None:
            self.say(Kind.POSTCOPY_RESUMED)
        else:
            problem = Problem(
                "post_copy.not_resumed", {"vm": plan.vm, "operation": command.operation, "detail": refused}
            )
            self.say(Kind.POSTCOPY_NOT_RESUMED, problem=problem)

    def _cancel(self, command: Command, _: Plan) -> None:
        transfer = self.world.transfers.get(command.operation)
        if transfer is None:
            self.world.cancelled.add(command.operation)
            self.say(Kind.CANCEL_ACCEPTED)
        elif transfer.cancel():
            self.say(Kind.CANCEL_ACCEPTED)
        else:
            self.say(Kind.CANCEL_TOO_LATE, reason=f"the transfer is in {transfer.phase_name}")

    def _look_for_binding(self, command: Command, plan: Plan) -> None:
        transfer = self.world.transfers.get(command.operation)
        last: list[tuple[bool | None, str]] = []

        def look_again() -> None:
            bound, reason, final = self._binding(command.operation, plan)
            if self._alive() and not (last and last[-1][0] == bound and last[-1][1] == reason):
                last.append((bound, reason))
                self.say(Kind.BINDING_SEEN, Side.SOURCE, plan.source, bound=bound, reason=reason)
            if transfer is not None and (final or not self._alive()) and look_again in transfer.watchers:
                transfer.watchers.remove(look_again)

        if transfer is not None:
            transfer.watchers.append(look_again)
        look_again()
        self._ending.watch(command.operation, plan)

    def _binding(self, operation: str, plan: Plan) -> tuple[bool | None, str, bool]:
        """Return (bound, None for not yet; why; whether that is final), by what both sides show (handover 1.2)."""
        source, destination = self.side(plan, Side.SOURCE), self.side(plan, Side.DESTINATION)
        waiting = destination.state is VmState.PAUSED and not destination.job_open
        if waiting and self._ending.has_ended(operation, plan):
            return True, "the source's process is gone", True
        if source.bound and waiting:
            return True, source.job_phase or f"source {source.state}", True
        if source.bound and not destination.reachable:
            return None, "the destination does not show its state", False
        if source.reachable and not source.job_open:
            return False, f"denied: source {source.state}, destination {destination.state}", True
        return None, source.job_phase or "source does not answer", False

    def _allow_run(self, command: Command, plan: Plan) -> None:
        self.later(self.world.span_ns(self.world.spec.latency_ms.run), lambda: self._let_run(command, plan))

    def _let_run(self, command: Command, plan: Plan) -> None:
        copy, host = self.world.copy(plan.destination, plan.vm), self.world.hosts[plan.destination]
        if not host.answers:
            self._run_refused(command, plan, f"host {plan.destination} does not answer")
        elif self.world.faults.asked(FaultKind.RUN_REFUSED, plan.vm):
            self._run_refused(command, plan, "scripted: resume refused")
        elif copy is not None and copy.state is VmState.RUNNING:
            self._ran_already(command.operation, plan)
        elif copy is None or copy.state is not VmState.PAUSED:
            self._run_refused(command, plan, "no paused copy at the destination")
        elif plan.vm_state is VmState.PAUSED:
            self._transfer_told(command.operation, plan).left_paused()
        elif not self.world.run(copy):
            self._run_refused(command, plan, "another host holds the lease")
        else:
            self._ran_now(command.operation, plan)

    def _ran_now(self, operation: str, plan: Plan) -> None:
        """Tell it through the transfer when there is one: whoever else follows it hears of it too."""
        self._transfer_told(operation, plan).ran()

    def _transfer_told(self, operation: str, plan: Plan) -> Transfer:
        """Return the transfer, followed by this object; one that only tells where there is none any more."""
        transfer = self.world.transfers.get(operation) or Transfer(self.world, operation, plan)
        if operation not in self._following:
            self._follow(transfer)
        return transfer

    def _ran_already(self, operation: str, plan: Plan) -> None:
        at_ns = self.world.let_go_ns.get(operation, self.world.now_ns())
        self._told(operation, Event(Kind.DESTINATION_RAN, at_ns, {}, Side.DESTINATION, plan.destination))

    def _run_refused(self, command: Command, plan: Plan, detail: str) -> None:
        values = {"vm": plan.vm, "operation": command.operation, "detail": detail}
        problem = Problem(id="run.refused", values=values, side=Side.DESTINATION, host=plan.destination)
        self.say(Kind.RUN_REFUSED, Side.DESTINATION, plan.destination, problem=problem)

    def _inspect(self, command: Command, plan: Plan) -> None:
        self._ending.go_on(command.operation, plan)
        source = self._ending.seen(command.operation, plan, self.side(plan, Side.SOURCE))
        evidence = Evidence(source, self.side(plan, Side.DESTINATION))
        self.say(Kind.EVIDENCE_SEEN, evidence=evidence)

    def _fence(self, command: Command, plan: Plan) -> None:
        order = command.fence
        assert order is not None
        side = Side.SOURCE if order.host == plan.source else Side.DESTINATION
        told = {"vm": plan.vm, "host": order.host, "operation": command.operation}
        if not order.setting.exists:
            self.say(Kind.FENCE_FAILED, side, order.host, problem=Problem("fence.none", told, side=side))
        elif self.world.faults.asked(FaultKind.FENCE_FAILS, plan.vm, host=order.host):
            told |= {"fence": "a simulated fence", "detail": "scripted: the host is still on"}
            self.say(Kind.FENCE_FAILED, side, order.host, problem=Problem("fence.failed", told, side=side))
        else:
            copy = self.world.copy(order.host, plan.vm)
            seen = copy is not None and copy.alive and side is Side.SOURCE
            stood = (copy.state, copy.reason) == (VmState.PAUSED, BY_MIGRATION) if copy is not None and seen else None
            self.world.lose_host(order.host)
            self.say(Kind.FENCED, side, order.host, proof="simulated: it is off", stood=stood)

    def _adopt(self, command: Command, plan: Plan) -> None:
        transfer = self.world.transfers.get(command.operation)
        if transfer is None or not transfer.open:
            self._returned(transfer)
            return
        self._ending.hold(command.operation)
        if command.operation not in self._following:
            self._follow(transfer)
        if transfer.stage is Stage.POST_COPY:
            self.say(Kind.ADOPTED_POSTCOPY, Side.SOURCE, plan.source)
            return
        source = self.world.copy(plan.source, plan.vm)
        if command.operation in self.world.let_go_ns or source is None or source.state is VmState.OFF:
            return
        self.say(_standing(transfer.stage), Side.SOURCE, plan.source)
        if transfer.stage >= Stage.FINISH and plan.hand_over is HandOver.STRICT:
            self.say(Kind.DESTINATION_ARRIVED, Side.DESTINATION, plan.destination)
        self._watch_lock_daemons(command.operation, plan)


def _standing(stage: Stage) -> Kind:
    if stage is Stage.STORAGE:
        return Kind.ADOPTED_STORAGE
    return Kind.ADOPTED_SWITCH if stage >= Stage.SWITCH else Kind.ADOPTED_MEMORY


def _failed(detail: str) -> Problem:
    return Problem(id="prepare.failed", values={"detail": detail}, native=Native("simulated", 1, detail))
