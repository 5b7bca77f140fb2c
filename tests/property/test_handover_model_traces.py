"""Recorded moves could have happened in the model, and what somebody has altered in a record could not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from refimpl.model.events import Event, Kind
from refimpl.model.phase import Phase
from tests.handover_model.traces import NO_BEGINNING, NO_TRANSFER, OUTSIDE, NotModelled, explain, story
from tests.handover_model.world import Options
from tests.moves import SCRIPTED
from tests.property import scenario as playing
from tests.property.scenarios import SCENARIOS

JsonTrace = list[dict[str, Any]]

LEFT_OUT = {*OUTSIDE.values(), NO_TRANSFER, NO_BEGINNING}


def recorded(name: str) -> JsonTrace:
    """Play a scenario and return the events of all its conductors, as a journal keeps them."""
    rig, _ = playing.play(SCENARIOS[name])
    trace: JsonTrace = json.loads(json.dumps([event.to_json() for event in rig.trace]))
    return trace


def guards_of(name: str) -> Options:
    """Return the guards of the simulated world: leases, and strict unless it says otherwise."""
    strict = SCENARIOS[name].world.get("hand_over", "strict") == "strict"
    disks = "storage" in SCENARIOS[name].request
    return Options(strict=strict, lease=True, ends_silent=strict, disks=disks)


def is_scripted(name: str) -> bool:
    return any(fault in str(SCENARIOS[name].world.get("faults", "")) for fault in SCRIPTED)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if not is_scripted(name)])
def test_a_recorded_move_could_have_happened(name: str) -> None:
    trace = recorded(name)
    try:
        explanation = explain(trace, guards_of(name))
    except NotModelled as left_out:
        said, explained = str(left_out), True
    else:
        said, explained = explanation.why, explanation.accepted
    assert explained, said
    assert not said or said in LEFT_OUT


def test_without_a_fault_a_move_needs_none() -> None:
    told = explain(recorded("moved"), guards_of("moved"))
    assert (told.accepted, told.faults) == (True, 0)
    killed = explain(recorded("killed in the switch, seen late"), guards_of("moved"))
    assert (killed.accepted, killed.faults) == (True, 0)
    silent = explain(recorded("the source's system is silent at the arrival, and back afterwards"), guards_of("moved"))
    assert (silent.accepted, silent.faults) == (True, 1)


def test_a_delegated_move_is_no_strict_one() -> None:
    assert not explain(recorded("moved, delegated"), Options(lease=True)).accepted


def without(trace: JsonTrace, kind: Kind) -> JsonTrace:
    return [event for event in trace if event["kind"] != kind]


def with_evidence(trace: JsonTrace, side: str, **values: Any) -> JsonTrace:
    """Alter the last evidence of a trace."""
    last = [event for event in trace if event["kind"] == Kind.EVIDENCE_SEEN][-1]
    last["values"]["evidence"][side].update(values)
    return trace


def renamed(trace: JsonTrace, old: str, new: str) -> JsonTrace:
    return [json.loads(json.dumps(event).replace(f'"{old}"', f'"{new}"')) for event in trace]


def earlier(trace: JsonTrace, kind: Kind, than: Kind) -> JsonTrace:
    """Move the first event of a kind to just before the first of another."""
    at = next(i for i, event in enumerate(trace) if event["kind"] == kind)
    to = next(i for i, event in enumerate(trace) if event["kind"] == than)
    assert to < at
    return [*trace[:to], trace[at], *trace[to:at], *trace[at + 1 :]]


DOCTORED: dict[str, Callable[[JsonTrace], JsonTrace]] = {
    "let run without a bound source": lambda trace: without(trace, Kind.BINDING_SEEN),
    "committed without a decision": lambda trace: without(trace, Kind.SOURCE_BOUND),
    "it ran before it had arrived": lambda trace: earlier(trace, Kind.DESTINATION_RAN, Kind.DESTINATION_ARRIVED),
    "bound before it had arrived": lambda trace: earlier(
        [event for event in trace if event["values"].get("bound", True)],
        Kind.BINDING_SEEN,
        Kind.DESTINATION_ARRIVED,
    ),
    "the source runs, too": lambda trace: with_evidence(trace, "source", state="running", bound=False),
    "the source is paused again": lambda trace: with_evidence(trace, "source", state="paused", bound=False),
    "the destination still waits": lambda trace: with_evidence(trace, "destination", state="paused", arrived=True),
    "cleaned up and never settled": lambda trace: without(trace, Kind.SETTLED),
    "another end": lambda trace: renamed(trace, Phase.COMPLETED, Phase.FAILED),
    "another verdict": lambda trace: renamed(trace, Kind.DESTINATION_OWNS, Kind.SOURCE_OWNS),
    "another command": lambda trace: renamed(trace, "settle-destination", "settle-source"),
}


def swapped(trace: JsonTrace, one: str, other: str) -> JsonTrace:
    return renamed(renamed(renamed(trace, one, "-"), other, one), "-", other)


DISKS_DOCTORED: dict[str, Callable[[JsonTrace], JsonTrace]] = {
    "the source's disks go before the copy has run": lambda trace: earlier(
        swapped(trace, "clean-up-moved", "allow-run"), Kind.CLEANED, Kind.DESTINATION_RAN
    ),
    "the copies are removed": lambda trace: renamed(trace, "clean-up-moved", "clean-up-undone"),
    "bound before it had arrived": DOCTORED["bound before it had arrived"],
    "cleaned up and never settled": DOCTORED["cleaned up and never settled"],
}


@pytest.mark.rule("R17")
@pytest.mark.parametrize("name", DISKS_DOCTORED)
def test_an_altered_record_with_disks_is_rejected(name: str) -> None:
    trace, guards = recorded("disks move"), guards_of("disks move")
    assert explain(trace, guards).accepted
    assert not explain(DISKS_DOCTORED[name](trace), guards, most_faults=0).accepted


@pytest.mark.parametrize("name", DOCTORED)
def test_an_altered_record_is_rejected(name: str) -> None:
    trace = recorded("moved")
    explanation = explain(DOCTORED[name](trace), guards_of("moved"), most_faults=1)
    assert not explanation.accepted
    assert explanation.at >= 0
    assert explanation.why


def test_a_record_without_a_transfer_is_outside() -> None:
    with pytest.raises(NotModelled, match="no transfer was ordered"):
        story([Event(Kind.STARTED, 0).to_json()])
