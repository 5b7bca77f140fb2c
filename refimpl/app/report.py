"""Gathering what a report page shows: an operation's journal, its spec and end, and what observers kept beside it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import refimpl
from refimpl.app.live import JsonEvent, Progress, fold, line
from refimpl.app.machine import machine
from refimpl.meter.samples import DIRECTORY, read_samples
from refimpl.model.errors import error
from refimpl.model.outcome import Outcome
from refimpl.model.request import PostCopy
from refimpl.report.data import ReportData, State, Track

if TYPE_CHECKING:
    from refimpl.app.home import Home, OperationFiles
    from refimpl.app.operations import Summary

_TRACKS = (
    ("heartbeat", "beat", "heartbeats"),
    ("arp", "reply", "answers to ARP"),
    ("stream", "record", "records of the TCP stream"),
)


def operation_report(files: OperationFiles) -> ReportData:
    """Return what is known of an operation, whatever became of it. `operation.unreadable`, `journal.failed`."""
    # Worlds have reports too, on systems on which no conductor runs.
    from refimpl.app.operations import summarise

    spec = files.read_spec()
    summary = summarise(files)
    verdicts, tracks, unreadable = _observed(files.directory / DIRECTORY)
    return gathered(
        files.id,
        spec["request"],
        [json.loads(text) for _, text in files.lines()],
        summary.outcome,
        state=_state(summary),
        verdicts=verdicts,
        tracks=tracks,
        remarks=unreadable,
        options=("--lab", spec["group"]["name"]),
    )


def gathered(
    operation: str,
    request: Mapping[str, Any],
    events: Sequence[JsonEvent],
    outcome: Outcome | None,
    *,
    state: State = State.ENDED,
    verdicts: Iterable[Mapping[str, Any]] = (),
    tracks: Iterable[Track] = (),
    remarks: Sequence[tuple[str, str]] = (),
    options: Sequence[str] = (),
    simulated: bool = False,
) -> ReportData:
    """Return the data of a page from its parts. `remarks`: on how it was observed, as name and text.

    `options`: of the command that asks for the same again.
    """
    return ReportData(
        operation=operation,
        request=request,
        events=tuple(events),
        said=tuple(_said(events)),
        outcome=outcome,
        state=state,
        verdicts=tuple(verdicts),
        tracks=tuple(tracks),
        environment=(("refimpl", refimpl.__version__), ("machine, when this page was made", machine().text), *remarks),
        reproduce=command(request, options),
        simulated=simulated,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


def html(*moves: ReportData, title: str = "") -> str:
    """Return the page of one move or several. `report.no_library` when jinja2 is not installed."""
    if find_spec("jinja2") is None:
        raise error("report.no_library")
    from refimpl.report.page import page

    return page(*moves, title=title)


def latest(home: Home) -> OperationFiles:
    """Return the operation that was begun last. `report.no_operation` when there is none."""
    found = list(home.all())
    if not found:
        raise error("report.no_operation", home=str(home.path))
    return found[-1]


def command(request: Mapping[str, Any], options: Sequence[str] = ()) -> str:
    """Return the command that asks for the same move, as a shell takes it."""
    words = ["refimpl", "migrate", *options]
    for name, option in _OPTIONS:
        if request.get(name):
            words += [option, str(request[name])]
    if not request.get("encryption", True):
        words += ["--encryption", "off"]
    if request.get("post_copy", PostCopy.OFF) != PostCopy.OFF:
        words += ["--post-copy", str(request["post_copy"])]
    words += _storage(request.get("storage") or {})
    return shlex.join([*words, "--", request["vm"], request["destination"]])


_OPTIONS = (
    ("source", "--source"),
    ("performance_option", "--performance-option"),
    ("pass_limit", "--pass-limit"),
    ("bandwidth_mib_s", "--bandwidth"),
    ("cancel_if_blackout_exceeds_ms", "--cancel-if-blackout-exceeds"),
    ("hand_over", "--hand-over"),
)


_STORAGE = (
    ("include", "--include-storage"),
    ("retain_vhd_copies_on_source", "--retain-vhd-copies-on-source"),
    ("remove_source_unmanaged_vhds", "--remove-source-unmanaged-vhds"),
    ("avoid_removing_vhds", "--avoid-removing-vhds"),
    ("allow_overwrite", "--allow-overwrite"),
)


def _storage(wish: Mapping[str, Any]) -> list[str]:
    """Return the options that say what is to become of the disks."""
    words = [option for name, option in _STORAGE if wish.get(name)]
    if wish.get("destination_path") is not None:
        words += ["--destination-storage-path", wish["destination_path"]]
    for source, destination in wish.get("vhds") or ():
        words += ["--vhd", f"{source}={destination}"]
    return words


def _said(events: Sequence[JsonEvent]) -> Iterable[str | None]:
    progress = Progress()
    for event in events:
        progress = fold(progress, event)
        yield line(event, progress)


def _state(summary: Summary) -> State:
    if summary.outcome is not None:
        return State.ENDED
    if summary.alive:
        return State.RUNNING
    return State.LAB_GONE if summary.lab_gone else State.INTERRUPTED


def _observed(
    directory: Path,
) -> tuple[list[Mapping[str, Any]], list[Track], list[tuple[str, str]]]:
    """Return verdicts and samples that observers kept, and which of their files could not be read."""
    unreadable = list[tuple[str, str]]()
    verdicts, tracks = list[Mapping[str, Any]](), list[Track]()
    try:
        path = directory / "verdicts.json"
        verdicts = list(json.loads(path.read_text("utf-8"))["verdicts"]) if path.exists() else []
    except (ValueError, KeyError, TypeError) as failure:
        unreadable.append(("verdicts.json", f"cannot be read: {failure}"))
    for file, kind, name in _TRACKS:
        try:
            times = tuple(int(sample["at_ns"]) for sample in read_samples(directory / f"{file}.jsonl", kind))
        except (ValueError, KeyError, TypeError) as failure:
            unreadable.append((f"{file}.jsonl", f"cannot be read: {failure}"))
            continue
        if times:
            tracks.append(Track(name, times))
    return verdicts, tracks, unreadable
