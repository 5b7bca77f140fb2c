"""How a migration ended: one verdict with its figures, for a person, for JSON and for the exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from refimpl.model.errors import Problem
from refimpl.model.events import Kind, plain
from refimpl.model.ledger import Ledger
from refimpl.model.phase import EXIT_CODES, ExitCode, Phase
from refimpl.model.request import PostCopy, VmState

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one migration. `runs_on`: the host on which the VM is now, None when that is not known or nowhere.

    `blackout_ms` is QMP STOP at the source to RESUME at the destination (design rule 4), None when not both were seen;
    `port_ms` is how long opening the destination's switch port took, most of it while the copy began to run; `vm_state`
    is the VM's before the move.
    `disks_sent_bytes`: of disks that moved, None when none did. `post_copy`: whether it was allowed; `post_copy_ms`:
    how long the VM ran at the destination without the whole of its memory, None when it did not or does so still.
    `qemu_downtime_ms` is QEMU's own figure and never the same thing. `total_ms` is from start to end of the operation.
    """

    operation: str
    end: Phase
    vm: str
    source: str | None
    destination: str
    runs_on: str | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    total_ms: float | None
    blackout_ms: float | None
    qemu_downtime_ms: float | None
    sent_bytes: int | None
    passes: int
    commit_cost_ms: float | None
    port_ms: float | None
    encryption: bool
    performance_option: str
    compression: str
    vm_state: str
    hand_over: str
    recovered: bool
    disks_sent_bytes: int | None = None
    post_copy: str = PostCopy.OFF
    post_copy_ms: float | None = None

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of this end."""
        return EXIT_CODES[self.end]

    @property
    def completed(self) -> bool:
        """Whether the VM runs at the destination and nowhere else."""
        return self.exit_code is ExitCode.OK

    @property
    def sentence(self) -> str:
        """One sentence that says what happened."""
        does = {VmState.OFF: "is off", VmState.PAUSED: "is paused"}.get(VmState(self.vm_state), "runs")
        return _SENTENCES[self.end].format(vm=self.vm, source=self.source, destination=self.destination, does=does)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values with the schema's version."""
        values = {name: plain(getattr(self, name)) for name in self.__slots__}
        return {"schema": SCHEMA_VERSION, **values, "exit_code": int(self.exit_code), "sentence": self.sentence}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """Build an outcome from what `to_json` gave."""
        values = {name: data[name] for name in cls.__slots__ if name in data}
        values["end"] = Phase(values["end"])
        for name in ("problems", "warnings"):
            values[name] = tuple(Problem.from_json(p) for p in values[name])
        return cls(**values)


_SENTENCES: Mapping[Phase, str] = {
    Phase.COMPLETED: "VM {vm!r} moved from {source} to {destination} and {does} there.",
    Phase.COMPLETED_WITH_WARNINGS: "VM {vm!r} moved from {source} to {destination} and {does} there, with warnings.",
    Phase.REFUSED: "The move of VM {vm!r} to {destination} was refused; nothing was changed.",
    Phase.FAILED: "The move of VM {vm!r} to {destination} failed; it is on {source} as before.",
    Phase.CANCELLED: "The move of VM {vm!r} to {destination} was cancelled; it {does} on {source} as before.",
    Phase.INDETERMINATE: "The move of VM {vm!r} from {source} to {destination} needs a person.",
    Phase.POSTCOPY_PAUSED: "VM {vm!r} runs on {destination} as far as it can: part of its memory is on {source} still.",
    Phase.LOST: "VM {vm!r} runs nowhere: its memory was lost while it moved from {source} to {destination}.",
    Phase.DUAL_RUN: "Two copies of VM {vm!r} ran, on {source} and {destination}; the second was kept.",
}

_AT_SOURCE = frozenset({Phase.REFUSED, Phase.FAILED, Phase.CANCELLED})
_AT_DESTINATION = frozenset({Phase.COMPLETED, Phase.COMPLETED_WITH_WARNINGS, Phase.POSTCOPY_PAUSED, Phase.DUAL_RUN})


def outcome(ledger: Ledger, end: Phase) -> Outcome:
    """Make the outcome of a migration that has ended."""
    plan, request = ledger.plan, ledger.request
    source = plan.source if plan else request.source
    return Outcome(
        operation=ledger.operation,
        end=end,
        vm=request.vm,
        source=source,
        destination=request.destination,
        runs_on=_runs_on(ledger, end),
        problems=ledger.problems,
        warnings=ledger.warnings,
        total_ms=_span_ms(ledger.started_ns, ledger.ended_ns),
        blackout_ms=_span_ms(ledger.stop_ns, ledger.resume_ns),
        qemu_downtime_ms=ledger.qemu_downtime_ms,
        sent_bytes=ledger.sent_bytes,
        disks_sent_bytes=ledger.disks_sent_bytes,
        passes=ledger.passes,
        commit_cost_ms=ledger.commit_cost_ms,
        encryption=request.encryption,
        port_ms=ledger.port_ms,
        performance_option=plan.performance_option if plan else request.performance_option or "",
        compression=plan.compression if plan else "",
        vm_state=plan.vm_state if plan else VmState.UNKNOWN,
        hand_over=ledger.hand_over,
        recovered=ledger.interrupted,
        post_copy=plan.post_copy if plan else request.post_copy,
        post_copy_ms=_span_ms(ledger.post_copy_ns, ledger.whole_ns) if ledger.post_copy else None,
    )


def _runs_on(ledger: Ledger, end: Phase) -> str | None:
    """Return where the VM runs. Without a plan nobody has seen it: the source is only what was asked for."""
    if end in _AT_DESTINATION:
        return ledger.request.destination
    if end not in _AT_SOURCE or ledger.plan is None or ledger.owner is Kind.GUEST_ENDED:
        return None
    return ledger.plan.source


def _span_ms(start_ns: int | None, end_ns: int | None) -> float | None:
    return None if start_ns is None or end_ns is None else (end_ns - start_ns) / 1e6
