"""What is done to a move at a moment of it: a fault of `refimpl.faults`, or what a person might do, and its undoing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from refimpl.app.operations import Operation
from refimpl.backends.libvirt import connection
from refimpl.backends.libvirt.status import read_status
from refimpl.faults import FAULTS, Inflicted, Target
from refimpl.faults.moments import Heard, Trigger, arrived, hold, migration_is, on_native, ran
from refimpl.hosts.factory import channel_for
from refimpl.lab import Lab
from refimpl.model.events import Kind
from refimpl.model.group import HostEntry
from refimpl.model.phase import Phase, Side
from refimpl.model.request import HandOver, PerformanceOption
from tests.fault_table import At, Blow, Case, Until
from tests.lab.libvirt_support import host_of
from tests.lab.moving import Moving, until, wait_for
from tests.lab.unanswered import SLOW_MIB_S, Unanswered, unanswered

HELD_MIB_S, COPIED_MIB_S, CONVERGING_MIB_S = 3, 2, 40
MOMENT_S, STANDS_S = 60.0, 120.0
_AFTER_ARRIVAL = ("perform3_done", "confirm3", None)


def at_the_end(hand_over: HandOver) -> Heard:
    """The destination's copy runs; with strict hand-over, it has arrived. Either way its daemon is to answer."""
    return ran if hand_over is HandOver.DELEGATED else arrived


def job_phase(host: HostEntry, vm: str) -> str | None:
    """Return the phase of the migration job that a host shows; nothing without a job."""
    seen = read_status(channel_for(host), vm)
    return seen.phase if seen is not None and seen.job else None


def given_up(host: HostEntry, vm: str) -> bool:
    """Whether a host has no job of that VM any more."""
    seen = read_status(channel_for(host), vm)
    return seen is None or not seen.job


@contextmanager
def daemon_frozen(lab: Lab, host: str, at: tuple[str, str, Heard], freed: Callable[[], bool]) -> Iterator[Trigger]:
    """Freeze a host's libvirtd at a moment, and thaw it when it is `freed`.

    `at`: the host that tells of the moment, the id of the VM, and the moment. For a move that is begun in the block.
    """
    teller, vm_id, moment = at
    with Inflicted(lab, FAULTS["freeze-libvirtd"], Target(host=host)) as fault:
        fault.aim()
        with on_native(host_of(lab.group, teller), vm_id, moment, fault.strike) as trigger:
            yield trigger
            assert trigger.fired.wait(MOMENT_S), "the moment did not come"
            assert trigger.failure is None, trigger.failure
            until(freed, f"what frees the daemon of {host}", STANDS_S)


class Struck:
    """One move of a lab's guest that meets the blows of a case. `operation`: the move, once it was started.

    `answer`: what keeps it from the source, when a blow comes at the arrival.
    """

    def __init__(self, moving: Moving, case: Case) -> None:
        self.moving, self.case = moving, case
        self.hosts = {Side.SOURCE: moving.place(), Side.DESTINATION: moving.other()}
        self.operation: Operation | None = None
        self.answer: Unanswered | None = None

    def play(self, **changes: Any) -> Operation:
        """Start the move and meet all blows; return it when they are undone. AssertionError: a moment did not come."""
        with ExitStack() as stack:
            blows = [(blow, stack.enter_context(self._waiting(blow))) for blow in self.case.blows]
            changes |= self._limits()
            self.operation = self.moving.start(
                source=self.hosts[Side.SOURCE],
                destination=self.hosts[Side.DESTINATION],
                hand_over=self.case.hand_over,
                **changes,
            )
            if At.ARRIVED in self._moments:
                self._leave_unanswered(stack)
            self._meet(blows)
        return self.operation

    def _leave_unanswered(self, stack: ExitStack) -> None:
        """Keep the source without the answer until all is undone, so that no blow at the arrival comes after it."""
        assert self.operation is not None
        hosts = (self.hosts[Side.SOURCE], self.hosts[Side.DESTINATION])
        self.answer = stack.enter_context(unanswered(self.moving.lab, *hosts))
        wait_for(self.operation, Kind.MEMORY_SEEN)
        self.answer.let_on(self.moving.spec.id)

    def too_late(self) -> bool:
        """Whether the source had been answered before the destination's daemon was struck, which nothing can hold."""
        assert self.operation is not None
        told = [event for event in self.operation.events() if event["kind"] == Kind.CALL_RETURNED]
        return At.SWITCH in self._moments and any(event["values"]["ok"] for event in told)

    @property
    def _moments(self) -> set[At]:
        return {blow.at for blow in self.case.blows}

    def _limits(self) -> dict[str, Any]:
        """Return what makes the moments of the case last. Where QEMU fails by its channels, there is one of them."""
        bandwidths = {
            At.MEMORY: HELD_MIB_S,
            At.STORAGE: COPIED_MIB_S,
            At.CONVERGING: CONVERGING_MIB_S,
            At.ARRIVED: SLOW_MIB_S,
        }
        limits = [limit for at, limit in bandwidths.items() if at in self._moments]
        found: dict[str, Any] = {"bandwidth_mib_s": limits[0]} if limits else {}
        # With several channels a source's QEMU may die with the destination's (docs/advisories.md).
        return found if self.case.channels else found | {"performance_option": PerformanceOption.TCPIP}

    def _meet(self, blows: list[tuple[Blow, _Waiting]]) -> None:
        for _, waiting in blows:
            waiting.come(self)
        for blow, waiting in reversed(blows):
            self._stand(blow)
            waiting.undo()

    def _stand(self, blow: Blow) -> None:
        """Let a blow stand for its time."""
        vm, group, operation = self.moving.spec.name, self.moving.group, self.operation
        assert operation is not None
        ends: Mapping[Until, Callable[[], bool]] = {
            Until.ONCE: lambda: True,
            Until.SOURCE_FREE: lambda: given_up(host_of(group, self.hosts[Side.SOURCE]), vm),
            Until.DESTINATION_FREE: lambda: given_up(host_of(group, self.hosts[Side.DESTINATION]), vm),
            Until.RETURNED: lambda: bool(wait_for(operation, Kind.CALL_RETURNED)),
            Until.ENDED: lambda: bool(operation.wait()),
        }
        until(ends[blow.until], f"{blow.does} {blow.until}", STANDS_S)

    @contextmanager
    def _waiting(self, blow: Blow) -> Iterator[_Waiting]:
        """Make a blow ready for its moment; at the end it is undone, whatever happens."""
        with ExitStack() as stack:
            act = self._act(blow, stack)
            yield _Waiting(blow, act, stack, self._trigger(blow, act, stack))

    def _act(self, blow: Blow, stack: ExitStack) -> Callable[[], None]:
        if blow.does in DEEDS:
            return lambda: DEEDS[blow.does](self, self.hosts[blow.side])
        target = Target(host=self.hosts[blow.side], vm=self.moving.spec.name, network=blow.network)
        fault = stack.enter_context(Inflicted(self.moving.lab, FAULTS[blow.does], target))
        if "qemu" not in blow.does:
            fault.aim()
        return fault.strike

    def _trigger(self, blow: Blow, act: Callable[[], None], stack: ExitStack) -> Trigger | None:
        """Listen to the host that tells of the moment, where one does."""
        moments = {
            At.SWITCH: (Side.SOURCE, migration_is("device")),
            At.ARRIVED: (Side.DESTINATION, at_the_end(self.case.hand_over)),
        }
        if blow.at not in moments:
            return None
        side, moment = moments[blow.at]
        host = host_of(self.moving.group, self.hosts[side])
        return stack.enter_context(on_native(host, self.moving.spec.id, moment, act))


class _Waiting:
    """A blow that is ready."""

    def __init__(self, blow: Blow, act: Callable[[], None], stack: ExitStack, trigger: Trigger | None) -> None:
        self._blow, self._act, self._stack, self._trigger = blow, act, stack, trigger
        self._hold = ExitStack()

    def come(self, struck: Struck) -> None:
        """Wait for the moment and strike; a moment that is held stays so until the blow is undone."""
        operation, source = struck.operation, host_of(struck.moving.group, struck.hosts[Side.SOURCE])
        assert operation is not None
        vm = struck.moving.spec
        if self._trigger is not None:
            until(lambda: self._trigger.fired.is_set() or not operation.alive(), str(self._blow.at), MOMENT_S)
            assert self._trigger.fired.is_set(), f"the move ended before: {self._blow.at}"
            assert self._trigger.failure is None, self._trigger.failure
            return
        match self._blow.at:
            case At.MEMORY:
                self._hold.enter_context(hold(operation, Phase.MEMORY, source, vm.id))
            case At.CONVERGING:
                wait_for(operation, Kind.MEMORY_SEEN)
            case At.STORAGE:
                wait_for(operation, Kind.STORAGE_SEEN)
            case At.UNANSWERED:
                until(lambda: job_phase(source, vm.name) in _AFTER_ARRIVAL, "the source waiting for the answer")
                if job_phase(source, vm.name) != "perform3_done":
                    return  # it was answered before
        self._act()

    def undo(self) -> None:
        """Undo it, then let go what was held: the daemon that is asked then may be the one that was struck."""
        self._stack.pop_all().close()
        self._hold.close()


def _domain(struck: Struck, host: str, call: str) -> None:
    with connection.fresh(host_of(struck.moving.group, host)) as fresh:
        getattr(fresh.lookupByUUIDString(struck.moving.spec.id), call)()


def _cancel(struck: Struck, _host: str) -> None:
    assert struck.operation is not None
    struck.operation.cancel()


def _part(struck: Struck, _host: str) -> None:
    assert struck.answer is not None
    struck.answer.part()


DEEDS: Mapping[str, Callable[[Struck, str], None]] = {
    "cancel": _cancel,
    "abort-job": lambda struck, host: _domain(struck, host, "abortJob"),
    "suspend": lambda struck, host: _domain(struck, host, "suspend"),
    "destroy": lambda struck, host: _domain(struck, host, "destroy"),
    "part-hosts": _part,
}
"""What a person might do, with refimpl or behind its back: by the name of a blow. `part-hosts`: nothing passes between
the two any more, while the controller reaches both."""
