"""Playing a schedule on real hosts: the move, the fault at its moment, recovery as by a user, and the judgement."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from refimpl.app.operations import Operation, start
from refimpl.app.recovery import Interrupted, interrupted, recover_one
from refimpl.faults import FAULTS, Inflicted, Place, Target, inflicted
from refimpl.faults.moments import Trigger, armed, hold, on_migration, stopped_at
from refimpl.hosts.process import alive
from refimpl.hosts.wait import until
from refimpl.lab.links import Direction
from refimpl.meter.disk import disk_verdict
from refimpl.meter.heartbeat import continuity
from refimpl.meter.verdict import State
from refimpl.model.errors import RefimplError
from refimpl.model.events import Kind
from refimpl.model.facts import VmState
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from refimpl.model.request import HandOver, MigrationRequest, PerformanceOption, PostCopy
from tests.soak import modelled
from tests.soak.history import Played, is_delegated
from tests.soak.lab_observer import Observer
from tests.soak.lab_scene import FAILURES, VM, Scene

END_S = 420.0
"""Longer than all deadlines of one conductor together."""
MOST_RECOVERIES = 4
_HELD_MIB_S = 3
_IN_HALVES = {"bandwidth_mib_s": 1}
"""Post-copy then lasts half a minute, unless it is let go."""
_ASKED_MIB_S = 16
"""So that the memory is still being copied when post-copy is asked for."""
_ONE_PASS = {"bandwidth_mib_s": 4, "pass_limit": 1}
_MOMENT_S = 120.0
_UNDECIDED = (Phase.INDETERMINATE, Phase.POSTCOPY_PAUSED)
_AT_SOURCE = (Phase.REFUSED, Phase.FAILED, Phase.CANCELLED)
_QUIET = frozenset({"progress", "pass-ended"})


class Broken(Exception):
    """The scene is not what the next move could begin with."""


class Move:
    """One move of a schedule in a scene."""

    def __init__(self, scene: Scene, told: Mapping[str, Any], directory: Path) -> None:
        self.scene, self.told, self.played = scene, told, Played(told)
        running = scene.running()
        if len(running) != 1:
            raise Broken(f"the VM runs on {running or 'no host'}")
        self.source = running[0]
        self.destination = next(h.name for h in scene.group.hosts if h.name != self.source)
        self._marker = directory / f"stop-{told['number']}"
        self._operation: Operation | None = None
        self._says = ""
        self._arms = ExitStack()
        self.fault: Inflicted | None = None
        self.cut_off = False
        """A host was cut off by force, and nothing of the VM ran on the other one by then."""
        self._observer: Observer | None = None

    def play(self) -> Played:
        """Play it to its last recovery and judge it."""
        log = self.scene.log()
        boot = log.boots[-1]
        doubled = continuity(log, boot).duplicated
        with Observer(self.scene.lab, VM) as observer:
            self._observer = observer
            try:
                with ExitStack() as stack:
                    self._struck(stack)
            except FAILURES as failure:
                self._says = f"{type(failure).__name__}: {failure}"
            with self._arms:
                outcome = self._end()
            outcome = self._recovered(outcome)
        self._keep_events()
        self._judge(outcome, boot, doubled, observer)
        return self.played

    def _struck(self, stack: ExitStack) -> None:
        """Move, with the fault at its moment for its time; at the end of the stack it is undone."""
        told, moment = self.told, self.told["moment"]
        self.fault = self._inflicted(stack)
        strike = self.fault.strike if self.fault else lambda: None
        match moment["way"]:
            case "before":
                strike()
                self._start()
                self._stand(None)
            case "held":
                operation = self._start(bandwidth_mib_s=_HELD_MIB_S)
                # The hold is let go after the fault was undone: its daemon is asked then.
                with hold(operation, Phase.MEMORY, self.scene.host(self.source), self.scene.vm_id):
                    strike()
                    self._stand(None)
                    self._undo(stack)
            case "event":
                operation = self._start()
                with armed(operation, Kind(moment["kind"]), strike) as trigger:
                    self._stand(trigger)
            case "qmp":
                states = frozenset({moment["state"]})
                with on_migration(self.scene.host(self.source), self.scene.vm_id, states, strike) as trigger:
                    self._start()
                    self._stand(trigger)
            case "stop":
                with stopped_at(moment["name"], self._marker) as stop:
                    operation = self._start()
                    if stop.reached(operation.alive, _MOMENT_S) is not None:
                        strike()
                        if told["stop_goes_first"]:
                            stop.go()
                        self._stand(None)

            case "post-copy":
                asked = told["post_copy"] == PostCopy.ALLOWED
                operation = self._start(**(_IN_HALVES if asked else _ONE_PASS))
                with armed(operation, Kind.DESTINATION_RAN, strike) as trigger:
                    self._stand(trigger)
                self._undo(stack)
                _hurry(operation)
            case "given-up":
                with stopped_at(moment["name"], self._marker) as stop:
                    limits = {"memory": {"bandwidth_mib_s": _HELD_MIB_S}, "post-copy": _IN_HALVES}
                    operation = self._start(**limits.get(moment["name"], {}))
                    pid = stop.reached(operation.alive, _MOMENT_S)
                    if pid is None:
                        return
                    strike()
                    os.kill(pid, signal.SIGKILL)
                self._take_over(operation)
                self._undo(stack)

    def _take_over(self, operation: Operation) -> None:
        """Recover by force with the host silent, and switch that on again if it was cut off."""
        until(lambda: not operation.alive(), END_S, 0.05)
        silent = self.source if self.told["side"] == "source" else self.destination
        self.played.ends.append("killed")
        init = self.scene.host(silent).channel.init
        ran_elsewhere = [host for host in self.scene.running() if host != silent]
        try:
            for item in self._of(operation):
                outcome = self._bounded(recover_one(self.scene.home, self.scene.group, item, force=True))
                self.played.ends.append(str(outcome.end) if outcome else "killed")
        finally:
            was_cut = not alive(init)
            self.cut_off = was_cut and not ran_elsewhere
            self.played.verdicts["cut_off"] = silent if was_cut else None
            self.scene.lab.host_power_on(silent)
            if self._observer is not None:
                self._observer.look_at(self.scene.lab)

    def _of(self, operation: Operation) -> list[Interrupted]:
        return [item for item in interrupted(self.scene.home, self.scene.group) if item.operation == operation.id]

    def _undo(self, stack: ExitStack) -> None:
        stack.pop_all().close()

    def _inflicted(self, stack: ExitStack) -> Inflicted | None:
        told = self.told
        if told["fault"] is None:
            return None
        host = self.source if told["side"] == "source" else self.destination
        target = Target(
            host=host,
            vm=VM,
            network=told["network"],
            direction=Direction(told["direction"]),
            rate_mbit_s=told["rate_mbit_s"],
            place=Place(told["place"]),
            home=self.scene.home.path,
        )
        return stack.enter_context(Inflicted(self.scene.lab, FAULTS[told["fault"]], target))

    def _start(self, **limits: Any) -> Operation:
        told = self.told
        if told.get("post_copy", PostCopy.OFF) == PostCopy.ALLOWED:
            limits = {"bandwidth_mib_s": _ASKED_MIB_S, **limits}
        request = MigrationRequest(
            vm=VM,
            destination=self.destination,
            source=self.source,
            encryption=told["encryption"],
            performance_option=PerformanceOption(told["performance_option"]),
            hand_over=HandOver(told["hand_over"]) if told.get("hand_over") else None,
            post_copy=PostCopy(told.get("post_copy", PostCopy.OFF)),
            **limits,
        )
        self._operation = start(self.scene.home, self.scene.group, request)
        if request.post_copy is PostCopy.ALLOWED:
            self._arms.enter_context(armed(self._operation, Kind.MEMORY_SEEN, self._operation.start_post_copy))
        if told["cancel_at"]:
            self._arms.enter_context(armed(self._operation, Kind(told["cancel_at"]), self._operation.cancel))
        return self._operation

    def _stand(self, trigger: Trigger | None) -> None:
        """Let the fault stand for its time from when it struck; when its moment does not come, the move ends first."""
        operation = self._operation
        if trigger is not None:
            until(lambda: trigger.fired.is_set() or operation is None or not operation.alive(), _MOMENT_S, 0.01)
            if trigger.failure is not None:
                self._says = str(trigger.failure)
        if self.fault is not None and self.fault.struck and self.fault.fault.lasting:
            threading.Event().wait(self.told["for_s"])

    def _end(self) -> Outcome | None:
        """Wait for the end of the move; None when its conductor died, or it never began."""
        if self._operation is None:
            self.played.ends.append("not begun")
            return None
        if self.played.ends:  # it was taken over by force
            with suppress(RefimplError):
                return self._operation.outcome()
            return None
        outcome = self._bounded(self._operation)
        self.played.ends.append(str(outcome.end) if outcome else "killed")
        return outcome

    def _bounded(self, operation: Operation) -> Outcome | None:
        if not until(lambda: not operation.alive(), END_S, 0.05):
            self.played.violated("no-end", f"operation {operation.id} still runs after {END_S:g} s")
            return None
        try:
            return operation.wait()
        except RefimplError:
            return None

    def _recovered(self, outcome: Outcome | None) -> Outcome | None:
        """Recover, as `refimpl recover` does, until nothing is to be recovered any more."""
        for _ in range(MOST_RECOVERIES):
            try:
                items = self.scene.interrupted()
            except FAILURES as failure:
                self.played.violated("not-recoverable", f"what is interrupted cannot be told: {failure}")
                return outcome
            if not items:
                return outcome
            self._libvirt_forgets(outcome)
            for item in items:
                try:
                    operation = recover_one(self.scene.home, self.scene.group, item)
                    _hurry(operation)
                    recovered = self._bounded(operation)
                except FAILURES as failure:
                    self.played.verdicts["recovery"] = str(failure)
                    continue
                self.played.ends.append(str(recovered.end) if recovered else "killed")
                outcome = recovered or outcome
        if outcome is None or outcome.end in _UNDECIDED:
            problems = ", ".join(str(p) for p in outcome.problems) if outcome else "killed"
            self.played.violated("not-recoverable", problems)
        return outcome

    def _libvirt_forgets(self, outcome: Outcome | None) -> None:
        """Start the source's libvirtd anew where it keeps the job of a post-copy that is over (docs/post-copy.md)."""
        if self.told.get("post_copy", PostCopy.OFF) != PostCopy.OFF and outcome and outcome.end is Phase.LOST:
            with inflicted(self.scene.lab, FAULTS["kill-libvirtd"], Target(host=self.source)):
                self.played.verdicts["libvirtd_started_anew"] = True

    def _keep_events(self) -> None:
        if self._operation is not None:
            try:
                events = list(self._operation.events())
            except FAILURES:
                events = []
            modelled.check(self.played, events)
            self.played.events = [e for e in events if e["kind"] not in _QUIET]

    def _judge(self, outcome: Outcome | None, boot: str, doubled: int, observer: Observer) -> None:
        played, scene = self.played, self.scene
        copies = scene.copies()
        running = [name for name, vm in copies.items() if vm.state is VmState.RUNNING]
        shown = ", ".join(f"{vm.state} on {name}" for name, vm in copies.items()) or "nowhere"
        lost = self.may_be_lost
        played.verdicts |= {
            "source": self.source,
            "destination": self.destination,
            "operation": self._operation.id if self._operation else None,
            "struck": bool(self.fault and self.fault.struck),
            "says": self._says,
            "copies": {name: str(vm.state) for name, vm in copies.items()},
            "blackout_ms": outcome.blackout_ms if outcome else None,
            "problems": [p.id for p in (*outcome.problems, *outcome.warnings)] if outcome else [],
            "observer": asdict(observer.seen),
        }
        self._judge_two(running, boot, doubled, observer)
        if not running and not (lost and all(vm.state is VmState.OFF for vm in copies.values())):
            played.violated("none-running", shown)
        self._judge_end(outcome, running, shown)
        self._judge_rest(running, lost)

    @property
    def may_be_lost(self) -> bool:
        """Whether the VM's memory may have gone by what was done on purpose."""
        return self.cut_off or bool(self.fault and self.fault.struck and self.fault.fault.may_lose_vm)

    def _stale_by_right(self) -> bool:
        """Whether an older copy may have gone on: delegated, and the destination's process was ended once it ran."""
        killed = self.fault is not None and self.fault.struck and self.fault.fault.name == "kill-qemu"
        return bool(is_delegated(self.told) and killed and self.told["side"] == "destination")

    def _judge_two(self, running: list[str], boot: str, doubled: int, observer: Observer) -> None:
        if len(running) > 1:
            self.played.violated("two-running", f"running on {' and '.join(running)} in the end")
        if observer.seen.both:
            self.played.violated("two-running", f"processors of both ran, {observer.seen.both[:5]} s after the begin")
        found = continuity(self.scene.log(), boot)
        self.played.verdicts["lines"] = {"of": found.lines, "missing": found.lines_missing, "doubled": found.duplicated}
        if found.duplicated > doubled:
            seen = f"{found.duplicated - doubled} lines of the guest came twice"
            if self._stale_by_right() and len(running) < 2 and not observer.seen.both:
                self.played.limited("stale-ran", seen)
            else:
                self.played.violated("two-running", seen)

    def _judge_end(self, outcome: Outcome | None, running: list[str], shown: str) -> None:
        if outcome is None:
            return
        wanted = self.destination if outcome.completed else self.source if outcome.end in _AT_SOURCE else None
        gone = self.may_be_lost and not running
        if wanted is not None and running != [wanted] and not gone:
            self.played.violated("untrue-end", f"{outcome.end} from {self.source}, and it is {shown}")
        stale = "stale-ran" in [v.what for v in self.played.limits]
        heard = str(Kind.DESTINATION_RAN) in [event["kind"] for event in self.played.events]
        if stale and heard and outcome.end in _AT_SOURCE and len(self.played.ends) == 1:
            self.played.violated("untrue-end", f"{outcome.end}, and it was seen to run at the destination before")
        if outcome.end is Phase.LOST and running:
            self.played.violated("untrue-end", f"lost, and it is {shown}")
        if outcome.end is Phase.DUAL_RUN:
            self.played.violated("two-running", "the engine itself says so")

    def _judge_rest(self, running: list[str], lost: bool) -> None:
        """Judge what is left and what was written; a VM that was lost is started again first."""
        if not running and lost:
            self.played.verdicts["started_again"] = True
            self.scene.start_again()
            running = self.scene.running()
        left = self.scene.left()
        if left:
            self.played.violated("left-behind", "; ".join(left))
        disk = disk_verdict(self.scene.log(), self.scene.probe.disks[0])
        self.played.verdicts["disk"] = disk.to_json()
        if disk.state is not State.OK:
            note = self.played.limited if self.played.limits else self.played.violated
            note("write-lost", disk.text)
        if len(running) == 1 and not self.scene.works(running[0]):
            self.played.violated("none-running", f"it is said to run on {running[0]}, and its guest says nothing")


def _hurry(operation: Operation) -> None:
    """Take the limit off a transfer that was slowed down for its moment, if it still goes on."""
    with suppress(RefimplError):
        operation.set_bandwidth(0)


def judged(move: Move) -> tuple[Played, str]:
    """Play a move, and say why the scene is of no use any more, if so; one that cannot be judged is a violation too."""
    try:
        played = move.play()
        # What is wrong now would be found again after each move that follows.
        return played, "; ".join(v.what for v in played.violations)
    except (*FAILURES, AssertionError) as failure:
        said = f"{type(failure).__name__}: {failure}"
        move.played.violated("no-end", f"it could not be judged: {said}")
        return move.played, said
