"""Everything that the page shows of one move, in words: the template only sets it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from refimpl.model.errors import Problem
from refimpl.model.events import Kind
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from refimpl.model.request import HandOver, VmState
from refimpl.report import story
from refimpl.report.band import band, inset
from refimpl.report.charts import Chart, charts
from refimpl.report.data import JsonEvent, ReportData, State
from refimpl.report.settings import Setting, settings
from refimpl.report.strip import Strip, strip
from refimpl.report.words import duration, label, size

_PLANNED = (Kind.CHECKS_PASSED, Kind.NEXT_NETWORK)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The sentence of the page, one word for it with its sign, its tone (`good`, `warn`, `bad`, `open`), what to do."""

    sentence: str
    word: str
    tone: str
    sign: str
    advice: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that stands out: its name, the value with its unit, and what it is."""

    name: str
    value: str
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem or warning as JSON values, and what it is called on the page."""

    title: str
    tone: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event in the table of all events."""

    at: str
    kind: str
    origin: str
    place: str
    text: str
    native: str


@dataclass(frozen=True, slots=True)
class View:
    """One move as the page shows it."""

    data: ReportData
    key: str
    vm: str
    source: str
    destination: str
    began: str
    verdict: Verdict
    figures: Sequence[Figure]
    spans: Sequence[story.Span]
    length_ms: float
    band: Markup | None
    still: story.StandStill | None
    inset: Markup | None
    charts: Sequence[Chart]
    readings: int
    strips: Sequence[Strip]
    checks: Sequence[tuple[str, str]]
    checked: Sequence[Mapping[str, Any]]
    refusals: Sequence[Mapping[str, Any]]
    findings: Sequence[Finding]
    settings: Sequence[Setting]
    environment: Sequence[tuple[str, str]]
    looks: Sequence[story.Look]
    rows: Sequence[EventRow]
    readings_rows: Sequence[story.Point]

    @property
    def encrypted(self) -> bool:
        """Whether memory crossed the network encrypted, as far as there was anything to cross."""
        return bool(self.data.request.get("encryption", True))

    @property
    def observers(self) -> str:
        """How many observers found the move in order."""
        states = [row.get("state") for row in self.data.verdicts]
        return f"{states.count('ok')} of {len(states)} ok" if states else "none watched"

    def shown(self, look: story.Look) -> list[str]:
        """Return what of a look at both hosts says anything."""
        empty = ("", None, False)
        names = [name for name in look.source if name != "host"]
        return [n for n in names if look.source[n] not in empty or look.destination.get(n) not in empty]


def view(data: ReportData, key: str = "move") -> View:
    """Return what the page shows of a move; `key` keeps the anchors of several moves apart."""
    events = data.events
    plan = story.last_value(events, "plan", *_PLANNED) or {}
    spans, length, points = story.spans(events), story.length_ms(events), story.points(events)
    stills = story.stand_stills(events)
    still = next((s for s in reversed(stills) if s.moved), stills[-1] if stills else None)
    strips = (strip(track, story.begin_ns(events), length, still) for track in data.tracks)
    return View(
        data=data,
        key=key,
        vm=str(data.request.get("vm") or ""),
        source=str(plan.get("source") or data.request.get("source") or "?"),
        destination=str(data.request.get("destination") or ""),
        began=_utc(events),
        verdict=verdict(data),
        figures=figures(data, length),
        spans=spans,
        length_ms=length,
        band=band(spans, length, still) if spans and length > 0 else None,
        still=still,
        inset=inset(spans, length, still) if still and still.ms > 0 else None,
        charts=charts(points, story.passes(events), still, 1024 * 1024 * (plan.get("bandwidth_mib_s") or 0)),
        readings=len(points),
        strips=[found for found in strips if found],
        checks=_checks(events),
        checked=story.last_value(events, "checked", Kind.CHECKS_PASSED, Kind.CHECKS_REFUSED) or (),
        refusals=story.last_value(events, "problems", Kind.CHECKS_REFUSED) or (),
        findings=_findings(data),
        settings=settings(data.request, plan),
        environment=(*data.environment, *_of_facts(events, data.request)),
        looks=story.looks(events),
        rows=_rows(data),
        readings_rows=points,
    )


_TONES: Mapping[Phase, tuple[str, str]] = {
    Phase.COMPLETED: ("good", "✓"),
    Phase.COMPLETED_WITH_WARNINGS: ("warn", "✓"),
    Phase.REFUSED: ("warn", "⊘"),
    Phase.CANCELLED: ("warn", "↩"),
    Phase.FAILED: ("bad", "✕"),
    Phase.INDETERMINATE: ("bad", "?"),
    Phase.POSTCOPY_PAUSED: ("bad", "½"),
    Phase.LOST: ("bad", "✕"),
    Phase.DUAL_RUN: ("bad", "‖"),
}
_COMMANDS = {State.RUNNING: "refimpl attach", State.INTERRUPTED: "refimpl recover"}
_OPEN = {
    State.RUNNING: ("is being moved to {to}.", "running", "This is what was known when the page was made. Follow it:"),
    State.INTERRUPTED: (
        "was being moved to {to} when its conductor died.",
        "interrupted",
        "Nobody decides anything until it is recovered:",
    ),
    State.LAB_GONE: ("was being moved to {to} when its lab was taken away.", "no end", ""),
    State.ENDED: ("was being moved to {to}; how it ended was not kept.", "no end", ""),
}


def verdict(data: ReportData) -> Verdict:
    """Return the sentence that the page begins with."""
    if data.outcome is not None:
        tone, sign = _TONES[data.outcome.end]
        return Verdict(data.outcome.sentence, label(data.outcome.end), tone, sign)
    what, word, advice = _OPEN[data.state]
    request = data.request
    sentence = f"VM {request.get('vm')!r} {what.format(to=request.get('destination'))}"
    command = f"{_COMMANDS[data.state]} {data.operation}" if data.state in _COMMANDS else ""
    return Verdict(sentence, word, "open", "…", advice, command)


def figures(data: ReportData, length_ms: float) -> list[Figure]:
    """Return the figures that stand out, each under its own name; those that do not apply are left out."""
    end = data.outcome
    if end is None:
        return [Figure("so far", duration(length_ms), "from its start to its latest event")]
    found = [Figure("total", duration(end.total_ms), "from start to end of the operation")]
    if end.completed or end.blackout_ms is not None:
        found.insert(0, _blackout(end))
    if not (end.passes or end.sent_bytes is not None or end.blackout_ms is not None):
        return found
    found += _observed(data)
    found.append(Figure("sent", size(end.sent_bytes), "over the migration network"))
    if end.disks_sent_bytes is not None:
        found.append(Figure("disks", size(end.disks_sent_bytes), "copied while the VM ran"))
    found.append(Figure("passes", str(end.passes or "none"), "over the VM's memory, seen to end"))
    if (end.completed and end.vm_state == VmState.RUNNING) or end.qemu_downtime_ms is not None:
        found.append(Figure("QEMU's figure", duration(end.qemu_downtime_ms), "QEMU's own downtime; not the blackout"))
    if end.commit_cost_ms is not None:
        found.append(Figure("commit record", duration(end.commit_cost_ms), "written within the blackout"))
    if end.port_ms is not None:
        late = end.hand_over == HandOver.DELEGATED
        words = "until it was open, after the VM ran" if late else "opening it at the destination, in the blackout"
        found.append(Figure("switch port", duration(end.port_ms), words))
    if end.post_copy_ms is not None:
        found.append(Figure("post-copy", duration(end.post_copy_ms), "ran without the whole of its memory"))
    return [*found, _encryption(end)]


def _blackout(end: Outcome) -> Figure:
    if end.blackout_ms is None and end.vm_state in (VmState.OFF, VmState.PAUSED):
        return Figure("blackout", "none", f"the VM was {end.vm_state} all the time")
    return Figure("blackout", duration(end.blackout_ms), "no vCPU ran: source stopped to destination runs")


def _observed(data: ReportData) -> Iterable[Figure]:
    for row in data.verdicts:
        gap = (row.get("figures") or {}).get("outside_gap_ms")
        if gap is not None:
            yield Figure("outside gap", duration(gap), "silence heard by a listener outside")
            return


def _encryption(end: Outcome) -> Figure:
    text = "TLS, both ends proved" if end.encryption else "as asked: memory crossed in clear"
    return Figure("encryption", "on" if end.encryption else "OFF", text)


def _utc(events: Sequence[JsonEvent]) -> str:
    from datetime import UTC, datetime

    if not events:
        return ""
    return datetime.fromtimestamp(story.begin_ns(events) / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _checks(events: Sequence[JsonEvent]) -> list[tuple[str, str]]:
    """Return when checks were made, and what came of them."""
    zero_ns, found = story.begin_ns(events), list[tuple[str, str]]()
    for event in events:
        at = duration(story.at_ms(event, zero_ns))
        if event["kind"] == Kind.CHECKS_PASSED:
            found.append((at, "passed, under the claim" if found else "passed"))
        elif event["kind"] == Kind.CHECKS_REFUSED:
            found.append((at, f"refused, problems found: {len(event['values']['problems'])}"))
    return found


_TITLES = {Phase.REFUSED: ("Refused", "warn"), Phase.CANCELLED: ("Cancelled", "warn")}


def _findings(data: ReportData) -> list[Finding]:
    if data.outcome is not None:
        title, tone = _TITLES.get(data.outcome.end, ("Problem", "bad"))
        groups: tuple[tuple[str, str, Sequence[Problem]], ...] = (
            (title, tone, data.outcome.problems),
            ("Warning", "warn", data.outcome.warnings),
        )
        return [Finding(title, tone, p.to_json()) for title, tone, problems in groups for p in problems]
    seen = (e["values"].get("problem") for e in data.events)
    return [Finding("Problem so far", "warn", problem) for problem in seen if problem]


def _of_facts(events: Sequence[JsonEvent], request: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the checks saw of the VM and its hosts."""
    facts = story.last_value(events, "facts", Kind.FACTS_SEEN) or {}
    rows = list[tuple[str, str]]()
    for name, host in (facts.get("hosts") or {}).items():
        free = f"{host.get('memory_mib', 0) - host.get('memory_used_mib', 0)} of {host.get('memory_mib', 0)} MiB left"
        versions = ", ".join(f"{k} {v}" for k, v in (host.get("versions") or {}).items())
        reached = ", ".join(filter(None, (free, versions))) if host.get("reachable") else "did not answer"
        rows.append((f"host {name}", reached))
        rows += [("VM", _vm(vm)) for vm in host.get("vms") or () if vm.get("name") == request.get("vm")]
    return rows


def _vm(vm: Mapping[str, Any]) -> str:
    parts = [f"{vm.get('memory_mib')} MiB", f"{vm.get('vcpus', 1)} vCPU"]
    parts += [str(vm[name]) for name in ("machine", "accelerator") if vm.get(name)]
    if vm.get("cpu"):
        parts.append(f"processor {vm['cpu']['model']}")
    disks = len(vm.get("disks") or ())
    parts.append("1 disk" if disks == 1 else f"{disks} disks")
    return ", ".join([*parts, f"id {vm.get('id')}"])


def _rows(data: ReportData) -> list[EventRow]:
    zero_ns = story.begin_ns(data.events)
    said = (*data.said, *([None] * len(data.events)))
    shown = ((e, text) for e, text in zip(data.events, said, strict=False) if e["kind"] != Kind.PROGRESS)
    return [
        EventRow(
            at=f"{story.at_ms(event, zero_ns) / 1000:.3f}",
            kind=str(event["kind"]),
            origin=str(event["origin"]),
            place=" ".join(str(event[name]) for name in ("side", "host") if event.get(name)),
            text=text or _values(event["values"]),
            native=_native(event),
        )
        for event, text in shown
    ]


def _native(event: JsonEvent) -> str:
    native = event.get("native")
    return "{domain} {code}: {text}".format_map(native) if native else ""


def _values(values: Mapping[str, Any]) -> str:
    parts = []
    for name, value in values.items():
        if name == "facts":
            value = ", ".join(f"host {host}" for host in value["hosts"])
        if isinstance(value, Mapping):
            value = value.get("text") or value.get("kind")
        if value is not None and not isinstance(value, list):
            parts.append(f"{label(name)}: {value}")
    return ", ".join(parts)
