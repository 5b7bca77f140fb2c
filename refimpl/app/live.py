"""What a person wants to know of a move while it runs: a fold over its events, and one line for those worth a line.

Events are the JSON values of the event stream, as a conductor sends them. Pure: who prints it is somebody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from refimpl.model.events import Kind
from refimpl.model.outcome import Outcome
from refimpl.model.phase import ENDS, Phase
from refimpl.model.request import PostCopy, Steer
from refimpl.report.words import PHASE_TEXTS, POST_COPY_RISK, label

JsonEvent = Mapping[str, Any]


class Followed(Protocol):
    """What is needed of an operation to follow it."""

    @property
    def id(self) -> str:
        """The operation's id."""
        ...

    def events(self) -> Iterator[JsonEvent]:
        """Yield all events, until its conductor ends."""
        ...

    def outcome(self) -> Outcome:
        """Return how it ended; RefimplError when it did not."""
        ...

    def cancel(self) -> None:
        """Ask for a cancel; RefimplError when nobody can be asked."""
        ...


_MIB = 1024 * 1024
_FRESH_NS = 20_000_000
_GAINS = 0.8  # writing nearly as fast as copying leaves the same after every pass


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a move stands. Rates in bytes per second; None: not known yet. Times: nanoseconds since the epoch."""

    vm: str = ""
    phase: str = Phase.NEW
    passes: int = 0
    pass_limit: int | None = None
    total_bytes: int | None = None
    remaining_bytes: int | None = None
    disks_total_bytes: int | None = None
    disks_remaining_bytes: int | None = None
    disks_sent_bytes: int | None = None
    sent_bytes: int | None = None
    bytes_s: float | None = None
    dirty_bytes_s: float | None = None
    cancelling: bool = False
    forced: bool = False
    began_ns: int | None = None
    now_ns: int | None = None
    figures_ns: int | None = None

    @property
    def ended(self) -> bool:
        """Whether the phase is an end."""
        return self.phase in ENDS

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first event."""
        return 0.0 if self.began_ns is None or self.now_ns is None else max(0.0, (self.now_ns - self.began_ns) / 1e9)

    @property
    def fresh(self) -> bool:
        """Whether the figures are of now: what was left a moment before a pass ended is not what is left after it."""
        return self.figures_ns is not None and self.now_ns is not None and self.now_ns - self.figures_ns <= _FRESH_NS

    @property
    def convergence(self) -> str:
        """Whether the copying gains on the guest's writing."""
        if self.forced:
            return "switch forced"
        if not self.bytes_s or self.dirty_bytes_s is None:
            return "not known yet whether it converges"
        if self.dirty_bytes_s < _GAINS * self.bytes_s:
            return "converging"
        limit = f" (the switch is forced after pass {self.pass_limit})" if self.pass_limit else ""
        return f"not converging{limit}"


def fold(progress: Progress, event: JsonEvent) -> Progress:
    """Return the progress with one more event in it."""
    values = event["values"]
    began = progress.began_ns if progress.began_ns is not None else event["at_ns"]
    progress = replace(progress, began_ns=began, now_ns=max(progress.now_ns or 0, event["at_ns"]))
    match event["kind"]:
        case Kind.STARTED:
            return replace(progress, vm=(values.get("request") or {}).get("vm", ""))
        case Kind.CHECKS_PASSED:
            return replace(progress, pass_limit=(values.get("plan") or {}).get("pass_limit"))
        case Kind.PHASE_ENTERED:
            return replace(progress, phase=values["phase"])
        case Kind.PASS_ENDED:
            return replace(progress, passes=max(progress.passes, values.get("number") or 0))
        case Kind.PROGRESS:
            known = {name: value for name, value in values.items() if value is not None}
            return replace(progress, figures_ns=event["at_ns"], **known)
        case Kind.CANCEL_WISHED:
            return replace(progress, cancelling=True)
        case Kind.STEERED if values.get("what") == Steer.SWITCH:
            return replace(progress, forced=True)
    return progress


def status(progress: Progress) -> str:
    """Return one line that tells where a move stands now."""
    parts = [progress.phase]
    if progress.phase == Phase.MEMORY:
        limit = f" (limit {progress.pass_limit})" if progress.pass_limit else ""
        parts += [f"pass {progress.passes + 1}{limit}", progress.convergence]
        if progress.remaining_bytes is not None and progress.total_bytes:
            parts.append(f"{_mib(progress.remaining_bytes)} of {_mib(progress.total_bytes)} MiB left")
        if progress.bytes_s is not None:
            parts.append(f"{_mib(progress.bytes_s)} MiB/s")
        if progress.dirty_bytes_s is not None:
            parts.append(f"guest writes {_mib(progress.dirty_bytes_s)} MiB/s")
    elif progress.phase == Phase.POSTCOPY:
        parts += _post_copy(progress)
    elif progress.phase == Phase.STORAGE:
        parts += _disks(progress)
    else:
        parts.append(PHASE_TEXTS.get(Phase(progress.phase), ""))
    if progress.cancelling and not progress.ended:
        parts.append("cancel asked for")
    return "  ".join(filter(None, parts))


def _disks(progress: Progress) -> list[str]:
    if progress.disks_remaining_bytes is None or not progress.disks_total_bytes:
        return [PHASE_TEXTS[Phase.STORAGE]]
    left = f"{_mib(progress.disks_remaining_bytes)} of {_mib(progress.disks_total_bytes)} MiB of disks left"
    return [left, *([f"{_mib(progress.bytes_s)} MiB/s"] if progress.bytes_s else [])]


def _post_copy(progress: Progress) -> list[str]:
    parts = ["the VM runs there, part of its memory is not there yet"]
    if progress.remaining_bytes is not None:
        parts.append(f"{_mib(progress.remaining_bytes)} MiB left")
    return [*parts, *([f"{_mib(progress.bytes_s)} MiB/s"] if progress.bytes_s else [])]


def line(event: JsonEvent, progress: Progress) -> str | None:
    """Return the line that an event is worth, None for those that only machines want. `progress` has it in it."""
    words = _LINES.get(event["kind"])
    return words({"host": event.get("host"), **event["values"]}, progress) if words else None


def _mib(count: float) -> str:
    return f"{count / _MIB:.0f}"


def _started(values: Mapping[str, Any], _: Progress) -> str:
    request = values["request"]
    plain = "" if request.get("encryption", True) else "; encryption is OFF: memory and keys cross the network in clear"
    return f"move of VM {request['vm']!r} to host {request['destination']} begins{plain}"


def _phase(values: Mapping[str, Any], _: Progress) -> str | None:
    phase = Phase(values["phase"])
    return None if phase in ENDS else f"phase {phase}: {PHASE_TEXTS.get(phase, '')}"


def _warned(plan: Mapping[str, Any]) -> str:
    """Return what a plan risks beyond what every move does."""
    allowed = plan.get("post_copy", PostCopy.OFF)
    return "" if allowed == PostCopy.OFF else f"; post-copy {label(allowed)}: {POST_COPY_RISK}"


def _checks_passed(values: Mapping[str, Any], progress: Progress) -> str:
    if progress.phase == Phase.SETUP:
        return "checks passed again, now that nobody else can move the VM"
    plan = values["plan"]
    text = f"checks passed: from host {plan['source']} to host {plan['destination']}, {plan['memory_mib']} MiB"
    disks = (plan.get("storage") or {}).get("disks") or ()
    mib = _mib(sum(disk["virtual_size_bytes"] for disk in disks))
    text = f"{text} of memory and {len(disks)} disk(s) of {mib} MiB" if disks else text
    return text + _warned(plan)


def _pass_ended(values: Mapping[str, Any], progress: Progress) -> str:
    parts = [f"pass {values['number']} ended" + (f" (limit {progress.pass_limit})" if progress.pass_limit else "")]
    if progress.remaining_bytes is not None and progress.fresh:
        parts.append(f"{_mib(progress.remaining_bytes)} MiB left")
    if progress.bytes_s:
        parts.append(f"{_mib(progress.bytes_s)} MiB/s")
    if progress.bytes_s and progress.dirty_bytes_s is not None:
        parts.append(progress.convergence)
    return ", ".join(parts)


def _problem(prefix: str) -> Callable[[Mapping[str, Any], Progress], str]:
    def words(values: Mapping[str, Any], _: Progress) -> str:
        problem = values.get("problem") or {}
        return f"{prefix}: {problem.get('text', 'no reason given')} [{problem.get('id', '?')}]"

    return words


def _why(text: str) -> Callable[[Mapping[str, Any], Progress], str]:
    def words(values: Mapping[str, Any], _: Progress) -> str:
        why = values.get("why") or values.get("reason")
        return f"{text}: {why}" if why else text

    return words


def _returned(values: Mapping[str, Any], progress: Progress) -> str | None:
    problem = values.get("problem")
    if values.get("ok") or (problem and problem["id"] == "transfer.cancelled"):
        return None
    # Of a transfer that another conductor had begun, only the end is seen.
    return _problem("the transfer is over")(values, progress) if problem else "the transfer is over"


_NOT_STEERED = {
    Steer.SWITCH: "the switch could not be forced",
    Steer.BANDWIDTH: "the bandwidth could not be changed",
    Steer.POST_COPY: "post-copy was not begun",
}

_STALLED = "nothing is sent any more; the transfer is broken off"
_DEADLINES = {Phase.STORAGE: _STALLED, Phase.MEMORY: _STALLED, Phase.POSTCOPY: "no memory has come for too long"}

_LINES: Mapping[str, Callable[[Mapping[str, Any], Progress], str | None]] = {
    Kind.STARTED: _started,
    Kind.RECOVER_WISHED: lambda v, p: "recovery begins: what do both hosts show?",
    Kind.CANCEL_WISHED: lambda v, p: "cancel asked for",
    Kind.DEADLINE: lambda v, p: _DEADLINES.get(v["name"], f"no end of phase {v['name']} in time"),
    Kind.PHASE_ENTERED: _phase,
    Kind.CHECKS_PASSED: _checks_passed,
    Kind.CHECKS_REFUSED: lambda v, p: f"checks refused the move: {len(v['problems'])} problem(s) found",
    Kind.CLAIM_REFUSED: _problem("refused"),
    Kind.NETWORK_FAILED: _problem("this network does not connect"),
    Kind.NEXT_NETWORK: lambda v, p: "trying the next migration network",
    Kind.PREPARE_FAILED: _problem("the move could not be prepared"),
    Kind.NATIVE_REFUSAL: _problem("refused"),
    Kind.PASS_ENDED: _pass_ended,
    Kind.BANDWIDTH_WISHED: lambda v, p: f"bandwidth: {v['mib_s'] or 'no'} {'MiB/s' if v['mib_s'] else 'limit'}",
    Kind.POSTCOPY_WISHED: lambda v, p: "post-copy asked for",
    Kind.POSTCOPY_DUE: _why("post-copy is begun, from which there is no way back"),
    Kind.POSTCOPY_ENDED: lambda v, p: "all memory has come",
    Kind.POSTCOPY_BROKEN: _why("post-copy is broken: the VM stops at every page that is missing"),
    Kind.POSTCOPY_RESUMED: lambda v, p: "post-copy goes on",
    Kind.POSTCOPY_NOT_RESUMED: _problem("post-copy does not go on"),
    Kind.POSTCOPY_PENDING: _why("the VM is in two halves, and both are kept"),
    Kind.POSTCOPY_RECOVERABLE: _why("the VM is in two halves: resuming the transfer between them"),
    Kind.POSTCOPY_LOST: _why("the VM's memory is gone"),
    Kind.BLACKOUT_TOO_LONG: _problem("the move is cancelled"),
    Kind.LEASE_SPACE_GONE: lambda v, p: f"host {v['host']} cannot reach the VM's lease any more: {v['detail']}",
    Kind.LOCK_DAEMON_GONE: lambda v, p: f"the lock daemon of host {v['host']} has ended: the leases there are lost",
    Kind.LEASE_UNSAFE: _problem("this is not safe any more"),
    Kind.LEFT_PAUSED: lambda v, p: "the VM stays paused at the destination",
    Kind.PASS_LIMIT_REACHED: lambda v, p: f"pass limit of {v['passes']} reached: the switch is forced",
    Kind.STEERED: lambda v, p: "the bandwidth was changed" if v["what"] == Steer.BANDWIDTH else None,
    Kind.NOT_STEERABLE: lambda v, p: f"{_NOT_STEERED.get(v['what'], v['what'])}: {v.get('reason')}",
    Kind.SOURCE_STOPPED: lambda v, p: "the VM stands still at the source",
    Kind.SOURCE_RESUMED: lambda v, p: "the VM runs on at the source",
    Kind.DESTINATION_RAN: lambda v, p: "the VM runs at the destination",
    Kind.RUN_REFUSED: _problem("the destination's copy was not let run"),
    Kind.CANCEL_ACCEPTED: lambda v, p: "cancel accepted: rolling back",
    Kind.CANCEL_TOO_LATE: _why("cancel came too late, the move goes through"),
    Kind.CANCEL_UNSUPPORTED: _why("cancel is not possible here"),
    Kind.CALL_RETURNED: _returned,
    Kind.JOB_STILL_RUNS: _why("the transfer still runs: following it"),
    Kind.SOURCE_SILENT: _why("the source does not answer: its copy is to be ended by its process"),
    Kind.SOURCE_ENDED: lambda v, p: "the source's copy was ended by its process",
    Kind.SOURCE_GOES_ON: lambda v, p: "the source's process, which a controller that died had stopped, goes on",
    Kind.FENCE_DUE: lambda v, p: f"host {v['host']} does not answer: it is cut off",
    Kind.FENCED: lambda v, p: f"cut off, and proved: {v['proof']}",
    Kind.FENCE_FAILED: _problem("it was not cut off"),
    Kind.SOURCE_OWNS: _why("the source's copy is the VM"),
    Kind.DESTINATION_OWNS: _why("the destination's copy is the VM"),
    Kind.BOTH_RAN: _why("two copies ran"),
    Kind.MEMORY_GONE: _why("the VM's memory is gone"),
    Kind.GUEST_ENDED: _why("the guest has ended"),
    Kind.UNKNOWN: _why("where the VM is cannot be told"),
    Kind.CANNOT_SETTLE: _problem("what is left could not be put in order"),
    Kind.LEFT_BEHIND: lambda v, p: f"left behind: {', '.join(map(str, v['items']))}",
}
