"""A simulated world that is its own witness: what must never be, noted at the instant at which it happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refimpl.backends.simulated import World, parse_world
from refimpl.backends.simulated.faults import Faults
from refimpl.backends.simulated.stages import Stage
from refimpl.backends.simulated.world import Copy
from refimpl.model.facts import VmState


class WitnessedWorld(World):
    """A world that notes what must never be, and what was lost by a fault, at the instant at which it happens."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.two_ran: list[str] = []
        self.taken_away: list[str] = []
        self.fell: dict[str, int] = {}
        self.stale_ran: list[str] = []
        self._stale: list[Copy] = []
        super().__init__(parse_world(data))

    def run(self, copy: Copy, by_force: bool = False) -> bool:
        """Let a copy run; note when it is not the only one that does, or when the VM ran elsewhere since it stopped."""
        ran = super().run(copy, by_force)
        if ran and any(copy is stale for stale in self._stale):
            self.stale_ran.append(f"{copy.host} at {self._at()}")
        if ran:
            self._stale += [c for c in self.copies.values() if c is not copy]
        running = [c.host for c in self.copies.values() if c.state is VmState.RUNNING]
        if len(running) > 1:
            self.two_ran.append(f"{' and '.join(sorted(running))} at {self._at()}")
        return ran

    def stop(self, copy: Copy, state: VmState, reason: str) -> None:
        """Stop a copy; note when a process ends that nobody ended on purpose, and a half that is ended and needed."""
        if state is VmState.OFF and reason in ("crashed", "shut down"):
            self.fell[copy.host] = self.now_ns()
        elif state is VmState.OFF and self.in_halves() and len(self.whole()) > 1:
            self.taken_away.append(f"half on {copy.host} at {self._at()}")
        super().stop(copy, state, reason)

    def remove(self, copy: Copy) -> None:
        """Take a copy away; note when it had the VM's memory, no other has it, and no job of the hosts' did it."""
        ours = self.job_of(copy.vm.name) is None and copy.state in (VmState.RUNNING, VmState.PAUSED)
        if ours and self.whole() == [copy] and not any(copy is stale for stale in self._stale):
            self.taken_away.append(f"{copy.state} copy on {copy.host} at {self._at()}")
        super().remove(copy)

    def lift(self) -> None:
        """End all faults: hosts answer again, links pass, nothing scripted strikes any more."""
        self.faults._used = [1] * len(self.spec.faults)
        self.spec = self.spec.model_copy(update={"faults": ()})
        self.faults = Faults(self)
        self.links_down.clear()
        for name, host in self.hosts.items():
            if not host.answers:
                self.bring_back(name)

    def whole(self) -> list[Copy]:
        """Return the copies that have all of the VM's memory, alone or as two halves that are both there."""
        found = [c for c in self.copies.values() if c.state in (VmState.RUNNING, VmState.PAUSED)]
        return [] if self.in_halves() and len(found) == 1 else found

    def in_halves(self) -> bool:
        """Whether a VM is in post-copy: neither of its copies is the VM without the other."""
        return any(transfer.stage is Stage.POST_COPY for transfer in self.transfers.values())

    def was_in_halves(self) -> bool:
        """Whether some post-copy of it has begun."""
        return any(t.post_copy.wanted and t.stage >= Stage.POST_COPY for t in self.transfers.values())

    def _at(self) -> str:
        return f"{(self.now_ns() - self.start_ns) / 1e6:.1f} ms"
