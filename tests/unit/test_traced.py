"""What a test has the engine do is checked when the test is over, and what is left out of that is counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from refimpl.engine.journal import FileJournal
from refimpl.model.events import Event, Kind
from tests import recorded, traced
from tests.contract.benches import world
from tests.handover_model.mind import PLAN
from tests.handover_model.records import LEASE_FORGOTTEN, Word, judge
from tests.handover_model.traces import NO_TRANSFER, OPAQUE
from tests.handover_model.world import Options
from tests.moves import Rig
from tests.traced import STILL_RUNS, UNREADABLE, Traces, operations_below, summary

pytest_plugins = ["pytester"]

JsonTrace = list[dict[str, Any]]
LIES = """
import pytest
from refimpl.backends.simulated.backend import SimulatedBackend
from tests.contract.benches import world
from tests.moves import Rig

def test_a_binding_that_no_host_shows(monkeypatch):
    monkeypatch.setattr(SimulatedBackend, "_binding", lambda *_: (BOUND, "invented", True))
    Rig(world()).start()
"""


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Traces:
    """Traces of our own: what is refused here on purpose is not to be counted."""
    fresh = Traces()
    monkeypatch.setattr(traced, "TRACES", fresh)
    return fresh


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that is not looked at when the test is over, as what is altered here could not have happened."""
    with TemporaryDirectory() as directory:
        yield Path(directory)


def moved() -> JsonTrace:
    rig = Rig(world())
    rig.start()
    assert recorded.MOVES.pop().events is rig.trace
    trace: JsonTrace = json.loads(json.dumps([event.to_json() for event in rig.trace]))
    return trace


def kept_in(home: Path, trace: JsonTrace, operation: str = "0a1b2c3d") -> Path:
    """Write a trace as the journal of an operation."""
    directory = home / "operations" / operation
    directory.mkdir(parents=True)
    (directory / "spec.json").write_text("{}")
    journal = FileJournal(directory / "journal.db")
    for event in trace:
        journal._db.execute("INSERT INTO events (line) VALUES (?)", (json.dumps(event),))
    journal.close()
    return directory


def bound_too_early(trace: JsonTrace) -> JsonTrace:
    bound = [event for event in trace if event["kind"] == Kind.BINDING_SEEN and event["values"]["bound"]]
    return [event for event in trace if event not in bound]


@pytest.mark.parametrize("bound", ["False", "True"])
def test_a_test_fails_when_its_move_could_not_have_happened(
    bound: str, traces: Traces, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend says that the source were not bound, and the hosts then contradict; one happens to be right."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]")
    pytester.makepyfile(test_inner=LIES.replace("BOUND", bound))
    done = pytester.runpytest_inprocess("-p", "tests.conftest", "-p", "no:cacheprovider")
    wrong = int(bound == "False")
    done.assert_outcomes(passed=1, errors=wrong)
    done.stdout.fnmatch_lines([f"1 moves checked against the model: {1 - wrong} explained, {wrong} that could*"])
    if wrong:
        done.stdout.fnmatch_lines(["*a move in this process could not have happened: told evidence-seen*"])


def test_a_journal_is_checked_once_and_again_when_it_has_grown(traces: Traces, place: Path) -> None:
    trace = moved()
    directory = kept_in(place / "home", trace[:-1])
    assert traces.look([place]) == []
    assert traces.look([place]) == []
    assert traces.counts == {Word.EXPLAINED: 1}
    journal = FileJournal(directory / "journal.db")
    journal._db.execute("INSERT INTO events (line) VALUES (?)", (json.dumps(trace[-1]),))
    journal.close()
    assert traces.look([place]) == []
    assert traces.counts == {Word.EXPLAINED: 2}


def test_a_journal_of_what_could_not_have_happened_is_refused(traces: Traces, place: Path) -> None:
    kept_in(place / "homes" / "one", bound_too_early(moved()))
    (refused,) = traces.look([place])
    assert refused.startswith("operation 0a1b2c3d could not have happened: told ")


def test_what_is_not_checked_says_why(traces: Traces, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = kept_in(place, moved(), "11111111")
    (kept_in(place, [], "22222222") / "journal.db").write_bytes(b"no journal at all")
    kept_in(place, moved()[:5], "33333333")
    recorded.record([], not_modelled="a reason")
    monkeypatch.setattr(traced, "conductor_alive", lambda files: files.directory == running)
    assert [files.id for files in operations_below(place)] == ["11111111", "22222222", "33333333"]
    assert traces.look([place]) == []
    reasons = (UNREADABLE, NO_TRANSFER, "a reason")
    assert traces.counts == {f"not checked: {reason}": 1 for reason in reasons}
    traces.look([place], last=True)
    assert traces.counts[f"not checked: {STILL_RUNS}"] == 1


def after_the_order(trace: JsonTrace, **event: Any) -> JsonTrace:
    at = next(i for i, e in enumerate(trace) if e["values"].get("command", {}).get("kind") == "start-transfer")
    return [*trace[: at + 1], {"values": {}, **event}, *trace[at + 1 :]]


def planned(trace: JsonTrace, **changes: Any) -> JsonTrace:
    for event in trace:
        if event["kind"] == Kind.CHECKS_PASSED:
            event["values"]["plan"].update(changes)
    return trace


LEFT_OUT: dict[str, Callable[[JsonTrace], JsonTrace]] = {
    OPAQUE: lambda trace: planned(trace, hand_over="opaque"),
    "an event of another version: 'x-y' is not a valid Kind": lambda trace: after_the_order(trace, kind="x-y"),
    "the event prepare-failed": lambda trace: after_the_order(trace, kind="prepare-failed"),
    "the command prepare": lambda trace: after_the_order(
        trace, kind=Kind.COMMANDED, values={"command": {"kind": "prepare"}}
    ),
}


def unleased(trace: JsonTrace) -> JsonTrace:
    (look,) = (event for event in trace if event["kind"] == Kind.EVIDENCE_SEEN)
    look["values"]["evidence"]["source"].update(state="running", lease_held=False)
    look["values"]["evidence"]["destination"]["reachable"] = False
    return trace


def test_a_lease_that_was_forgotten_is_not_of_the_model_and_one_that_a_lock_daemon_lost_is() -> None:
    said = judge(unleased(moved()))
    assert (said.word, said.why) == (Word.NOT_CHECKED, LEASE_FORGOTTEN)
    lost = after_the_order(unleased(moved()), kind=Kind.LOCK_DAEMON_GONE, side="source", host="a", at_ns=1)
    assert judge(lost).why != LEASE_FORGOTTEN
    assert judge(unleased(moved()), Options(strict=True)).why != LEASE_FORGOTTEN


@pytest.mark.parametrize("why", LEFT_OUT)
def test_what_the_model_does_not_know_is_not_taken_for_explained(why: str) -> None:
    said = judge(LEFT_OUT[why](moved()))
    assert (said.word, said.why) == (Word.NOT_CHECKED, why)


@pytest.mark.parametrize("kill_at", [None, Kind.SWITCH_SEEN, "given:allow-run", "committed"])
def test_a_move_may_be_cut_off_anywhere(kill_at: str | Kind | None) -> None:
    rig = Rig(world())
    rig.start(kill_at=kill_at)
    said = judge(rig.trace)
    assert (said.word, said.faults) == (Word.EXPLAINED, 0)
    if kill_at is not None:
        rig.recover(with_journal=False)
        by_the_claim: list[Event] = rig.events
        said = judge(by_the_claim, kept=PLAN.to_json())
        assert (said.word, said.why) == (Word.EXPLAINED, "")


def test_the_summary_counts_everything() -> None:
    assert summary(Counter()) == []
    counts = Counter({Word.EXPLAINED: 3, Word.REFUSED: 1, "not checked: a": 1, "not checked: b": 2})
    assert summary(counts) == [
        "4 moves checked against the model: 3 explained, 1 that could not have happened; 3 not checked",
        "     2 not checked: b",
        "     1 not checked: a",
    ]
