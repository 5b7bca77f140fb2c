"""Telling how a move ended: the verdict, its figures under their own names, every problem with its mend."""

from __future__ import annotations

import click

from refimpl.cli.failing import problem_text
from refimpl.cli.say import as_json, columns, mib, milliseconds
from refimpl.model.outcome import Outcome
from refimpl.model.phase import ExitCode, Phase
from refimpl.model.request import HandOver, PostCopy, VmState


def tell_outcome(outcome: Outcome | None, operation: str, *, json: bool = False, jsonl: bool = False) -> int:
    """Print the end of an operation (None: detached from it) and return its exit code."""
    if outcome is None:
        return _tell_detached(operation, as_data=json or jsonl)
    if json or jsonl:
        as_json({"kind": "outcome", "outcome": outcome.to_json()})
    else:
        click.echo(outcome_text(outcome))
    return outcome.exit_code


def _tell_detached(operation: str, *, as_data: bool) -> int:
    if as_data:
        as_json({"kind": "detached", "detached": {"operation": operation, "exit_code": int(ExitCode.DETACHED)}})
    click.echo(
        f"detached: operation {operation} goes on, and so does a cancel that was asked for: refimpl attach {operation}",
        err=as_data,
    )
    return ExitCode.DETACHED


def outcome_text(outcome: Outcome) -> str:
    """Return everything that a person wants to know of an end."""
    colour = "green" if outcome.completed else "yellow" if outcome.end in _HARMLESS else "red"
    parts = ["", click.style(outcome.sentence, fg=colour, bold=True), columns((), _figures(outcome))]
    for title, problems in (("problem", outcome.problems), ("warning", outcome.warnings)):
        parts += [f"{title}: {problem_text(p)}" for p in problems]
    return "\n".join(parts)


_UNKNOWN_PLACES = {
    Phase.REFUSED: "",
    Phase.CANCELLED: "",
    Phase.LOST: "no host",
}
_HARMLESS = frozenset({Phase.REFUSED, Phase.CANCELLED})


_STATES = {VmState.OFF: "is on", VmState.PAUSED: "is paused on"}

_OPENED = "to open it there, while the VM began to run"
_PORT = {HandOver.DELEGATED.value: "until it was open there, after the VM had begun to run"}


def _blackout(outcome: Outcome) -> str:
    if outcome.vm_state != VmState.RUNNING:
        return f"none: the VM was {outcome.vm_state}"
    return f"{milliseconds(outcome.blackout_ms)}  (no vCPU ran: source stopped to destination runs)"


def _post_copy(outcome: Outcome) -> str:
    if outcome.end is Phase.POSTCOPY_PAUSED:
        return "begun and broken: end neither copy; refimpl recover goes on"
    if outcome.post_copy_ms is None:
        return f"{outcome.post_copy}" + ("" if outcome.end is Phase.LOST else ", not used")
    return f"used; the memory was whole {milliseconds(outcome.post_copy_ms)} after it began"


def _figures(outcome: Outcome) -> list[tuple[str, ...]]:
    place = outcome.runs_on or _UNKNOWN_PLACES.get(outcome.end, "not known")
    rows = [
        ("operation", f"{outcome.operation}" + ("  (recovered after its conductor died)" if outcome.recovered else "")),
        *([(_STATES.get(VmState(outcome.vm_state), "runs on"), place)] if place else []),
        ("total", milliseconds(outcome.total_ms)),
    ]
    seen = bool(outcome.passes or outcome.sent_bytes is not None or outcome.blackout_ms is not None)
    if seen or outcome.completed:
        rows.append(("blackout", _blackout(outcome)))
    if seen:
        rows += [
            ("QEMU's figure", f"{milliseconds(outcome.qemu_downtime_ms)}  (QEMU's own downtime; not the blackout)"),
            ("sent", mib(outcome.sent_bytes) + (f"  ({outcome.sent_bytes} bytes)" if outcome.sent_bytes else "")),
            *([("disks", mib(outcome.disks_sent_bytes))] if outcome.disks_sent_bytes is not None else []),
            ("passes", str(outcome.passes) if outcome.passes else "none was seen to end"),
        ]
        rows.append(("performance", outcome.performance_option + (f" ({c})" if (c := outcome.compression) else "")))
    if outcome.port_ms is not None:
        rows.append(("switch port", f"{milliseconds(outcome.port_ms)}  ({_PORT.get(outcome.hand_over, _OPENED)})"))
    if outcome.commit_cost_ms is not None:
        rows.append(("commit record", f"{milliseconds(outcome.commit_cost_ms)}  (written within the blackout)"))
    if outcome.hand_over == HandOver.DELEGATED:
        rows.append(("hand-over", "delegated: the lease alone excludes a second copy"))
    if outcome.post_copy != PostCopy.OFF:
        rows.append(("post-copy", _post_copy(outcome)))
    rows.append(("encryption", "on" if outcome.encryption else "OFF, as asked: memory crossed the network in clear"))
    return [("  " + name, value) for name, value in rows]
