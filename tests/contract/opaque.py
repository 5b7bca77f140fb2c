"""A backend that shows as little as `Move-VM` does: one call, no phases, no passes, no blackout (semantics 4.4, 5.2).

Nothing steers it, nobody lets its destination run, a cancel is a wish that may be accepted and still come too late, and
a job that another controller began can be seen to run or to be over, but not followed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from refimpl.engine.backend import Capabilities, Post
from refimpl.engine.timeline import VirtualTimeline
from refimpl.model.errors import Native, Problem
from refimpl.model.events import Event, Kind
from refimpl.model.facts import AddressFact, CopySeen, Evidence, Facts, HostFacts, LeaseFact, Scope, VmFacts, VmState
from refimpl.model.request import Command, CommandKind, HandOver, MigrationRequest, Plan
from refimpl.model.settings import HostSettings, MigrationSubnet

LOOK_MS, JOB_MS, POLL_MS = 5, 8_000, 250
ADDRESS = "192.0.2.2"
SETTINGS = {name: HostSettings(migration_enabled=True, networks=(MigrationSubnet(ADDRESS),)) for name in ("a", "b")}


class Cancel(StrEnum):
    """How these hosts take a cancel."""

    IN_TIME = "in time"
    LATE = "accepted, and completed all the same"
    UNSUPPORTED = "unsupported"


@dataclass
class Job:
    """One move under way or over."""

    open: bool = True
    ok: bool = False


@dataclass
class OpaqueHosts:
    """Two hosts and what is on them. `jobs` are moves by operation; `fails`: a move ends in an error."""

    copies: dict[str, VmFacts] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    down: set[str] = field(default_factory=set)
    cancel: Cancel = Cancel.LATE
    fails: bool = False

    def __post_init__(self) -> None:
        lease = LeaseFact("/leases/web", True)
        self.copies.setdefault("a", VmFacts("web", "11111111", VmState.RUNNING, 256, lease=lease))

    def finish(self, operation: str, plan: Plan) -> None:
        """End a move: it takes effect at one instant, as far as anybody can see."""
        stopped = operation in self.cancelled and self.cancel is Cancel.IN_TIME
        ok = not stopped and not self.fails and plan.source in self.copies and not self.down
        if ok:
            self.copies[plan.destination] = self.copies.pop(plan.source)
        self.jobs[operation] = Job(open=False, ok=ok)

    def stamp(self, host: str, operation: str | None, plan: Plan | None) -> None:
        """Put a mark on a copy, or take it off."""
        if host in self.copies:
            self.copies[host] = replace(self.copies[host], operation=operation, plan=plan)


class OpaqueBackend:
    """The seam on `OpaqueHosts`."""

    name = "opaque"

    def __init__(self, hosts: OpaqueHosts, post: Post, timeline: VirtualTimeline) -> None:
        self._hosts, self._post, self._timeline = hosts, post, timeline
        self._own: set[str] = set()
        self._running: set[str] = set()
        self.lost = False

    def capabilities(self) -> Capabilities:
        """Almost nothing."""
        return Capabilities(HandOver.OPAQUE, *[False] * 4, cancels=True, adopts=False)

    def observe(self, scope: Scope) -> Facts:
        """Look at both hosts."""
        names = scope.hosts or ("a", "b")
        return Facts({n: self._host(n) for n in ("a", "b") if n in names}, self._timeline.now_ns() / 1e9)

    def probe(self, operation: str, request: MigrationRequest) -> Facts:
        """Look at both hosts."""
        return self.observe(Scope())

    def submit(self, command: Command) -> None:
        """Take a command; the two that only a strict hand-over knows change nothing and say so."""
        assert command.plan is not None or command.kind in (CommandKind.OBSERVE, CommandKind.PROBE)
        plan = command.plan or Plan("", "", "a", "b")
        doing: dict[CommandKind, Callable[[str, Plan], None]] = {
            CommandKind.OBSERVE: lambda _o, _p: self._say(Kind.FACTS_SEEN, facts=self.observe(Scope())),
            CommandKind.PROBE: lambda _o, _p: self._say(Kind.FACTS_SEEN, facts=self.observe(Scope())),
            CommandKind.PREPARE: self._prepare,
            CommandKind.START_TRANSFER: self._start,
            CommandKind.STEER_SWITCH: lambda _o, _p: self._not_steerable("switch"),
            CommandKind.STEER_BANDWIDTH: lambda _o, _p: self._say(
                Kind.NOT_STEERABLE, what="bandwidth", reason="opaque"
            ),
            CommandKind.REQUEST_CANCEL: self._cancel,
            CommandKind.INSPECT: self._inspect,
            CommandKind.ADOPT: self._adopt,
            CommandKind.SETTLE_SOURCE: lambda o, p: self._settle(p.source, p.destination, o),
            CommandKind.SETTLE_DESTINATION: lambda o, p: self._settle(p.destination, p.source, o),
            CommandKind.CLEAN_UP: self._clean_up,
            CommandKind.CLEAN_UP_UNDONE: self._clean_up,
            CommandKind.CLEAN_UP_MOVED: self._clean_up,
        }
        self._later(LOOK_MS, lambda: doing[command.kind](command.operation, plan))

    def close(self) -> None:
        """Let go."""
        self.lost = True

    def _later(self, delay_ms: int, action: Callable[[], None]) -> None:
        self._timeline.after(delay_ms * 1_000_000, lambda: None if self.lost else action())

    def _say(self, kind: Kind, **values: object) -> None:
        self._post(Event(kind, self._timeline.now_ns(), values))

    def _not_steerable(self, what: str) -> None:
        self._say(Kind.NOT_STEERABLE, what=what, reason="opaque")

    def _host(self, name: str) -> HostFacts:
        if name in self._hosts.down:
            return HostFacts(name, reachable=False, native=Native("opaque", 1, "no answer"))
        vms = (self._hosts.copies[name],) if name in self._hosts.copies else ()
        used = sum(vm.memory_mib for vm in vms)
        return HostFacts(
            name,
            True,
            None,
            name,
            (name,),
            4096,
            used,
            vms,
            addresses=(AddressFact(ADDRESS, 24),),
            routes=(ADDRESS,),
            compression=("zstd",),
        )

    def _prepare(self, operation: str, plan: Plan) -> None:
        if operation in self._hosts.cancelled:
            self._say(Kind.PREPARE_FAILED, problem=Problem(id="transfer.cancelled"))
        elif plan.address != ADDRESS:
            problem = Problem(id="network.no_connection", values={"host": plan.destination, "tried": plan.address})
            self._say(Kind.NETWORK_FAILED, address=plan.address, problem=problem)
        elif self._hosts.down:
            self._say(Kind.PREPARE_FAILED, problem=Problem(id="prepare.failed", values={"detail": "no answer"}))
        else:
            self._hosts.stamp(plan.source, operation, plan)
            self._say(Kind.PREPARED, address=plan.address)

    def _start(self, operation: str, plan: Plan) -> None:
        if operation in self._running:
            return
        job = self._hosts.jobs.get(operation)
        if job is None and operation not in self._hosts.cancelled:
            job = self._hosts.jobs[operation] = Job()
            self._timeline.after(JOB_MS * 1_000_000, lambda: self._hosts.finish(operation, plan))
        self._own.add(operation)
        self._running.add(operation)
        wait_ms = JOB_MS + 1 if job and job.open else 0
        self._later(wait_ms, lambda: self._returned(operation, plan))

    def _returned(self, operation: str, plan: Plan) -> None:
        job = self._hosts.jobs.get(operation)
        self._running.discard(operation)
        if operation not in self._own:
            self._say(Kind.CALL_RETURNED)
        elif job and job.ok:
            self._say(Kind.CALL_RETURNED, ok=True)
        else:
            self._say(Kind.CALL_RETURNED, ok=False, problem=Problem(id="transfer.failed"))

    def _cancel(self, operation: str, plan: Plan) -> None:
        job = self._hosts.jobs.get(operation)
        if self._hosts.cancel is Cancel.UNSUPPORTED:
            self._say(Kind.CANCEL_UNSUPPORTED, reason="there is no job to stop")
        elif job and not job.open:
            self._say(Kind.CANCEL_TOO_LATE, reason="the job has ended")
        else:
            self._hosts.cancelled.add(operation)
            self._say(Kind.CANCEL_ACCEPTED)

    def _job_open(self, operation: str) -> bool:
        job = self._hosts.jobs.get(operation)
        return job is not None and job.open

    def _inspect(self, operation: str, plan: Plan) -> None:
        sides = (self._seen(operation, plan, plan.source, True), self._seen(operation, plan, plan.destination, False))
        self._say(Kind.EVIDENCE_SEEN, evidence=Evidence(*sides))

    def _seen(self, operation: str, plan: Plan, host: str, as_source: bool) -> CopySeen:
        if host in self._hosts.down:
            return CopySeen(host, reachable=False)
        vm = self._hosts.copies.get(host)
        return CopySeen(
            host,
            reachable=True,
            state=vm.state if vm else VmState.ABSENT,
            job_open=self._job_open(operation) and as_source,
            bound=as_source and vm is None,
            operation=vm.operation if vm else None,
            lease_held=True if vm else None,
        )

    def _adopt(self, operation: str, plan: Plan) -> None:
        """Nothing of the job can be followed, but that it is over can be seen."""
        if operation in self._running:
            return
        if self._job_open(operation):
            self._later(POLL_MS, lambda: self._adopt(operation, plan))
        else:
            self._returned(operation, plan)

    def _settle(self, keep: str, lose: str, operation: str) -> None:
        runs = keep in self._hosts.copies and keep not in self._hosts.down
        if runs and lose not in self._hosts.copies:
            self._say(Kind.SETTLED)
        else:
            problem = Problem(id="settle.failed", values={"vm": "web", "detail": f"no copy runs on {keep}"})
            self._say(Kind.CANNOT_SETTLE, problem=problem)

    def _clean_up(self, operation: str, plan: Plan) -> None:
        for host, vm in list(self._hosts.copies.items()):
            if vm.operation == operation and host not in self._hosts.down:
                self._hosts.stamp(host, None, None)
        if self._hosts.down:
            self._say(Kind.LEFT_BEHIND, items=tuple(f"marks on host {host}" for host in sorted(self._hosts.down)))
        else:
            self._say(Kind.CLEANED)
