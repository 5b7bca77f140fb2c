"""The soak itself: the same seed gives the same moves, a history is played again, and what must never be is seen."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from refimpl.backends.simulated.worldfile import parse_world
from refimpl.engine.phases import TABLE, Row
from refimpl.faults import FAULTS
from refimpl.model.decision import decision
from refimpl.model.events import Kind
from refimpl.model.facts import VmState
from refimpl.model.phase import Phase
from refimpl.model.request import CommandKind, MigrationRequest, PostCopy
from tests import moves
from tests.moves import mutated
from tests.soak import lab_schedule, simulated
from tests.soak.__main__ import FOUND, USAGE, main
from tests.soak.history import LEFT_TO_A_PERSON, WHAT, Played, schedules, table
from tests.soak.simulated import WitnessedWorld, play, schedule, world_data

PLAIN = schedule(1, 0) | {
    "kill_at": None,
    "cancel_at": None,
    "lift_late": False,
    "request": {},
    "storage": None,
    "post_copy_at": None,
    "force": False,
}
"""A move without anything special, to be changed by a test."""


def plain(*faults: dict[str, Any], **world: Any) -> dict[str, Any]:
    base = {"seed": 1, "jitter": 0.0, "hand_over": "strict", "leases": True, "dirty": 20_000_000}
    return {**PLAIN, "world": {**base, "faults": list(faults), **world}}


@pytest.mark.parametrize("make", [simulated.schedule, lab_schedule.schedule])
def test_the_same_seed_and_number_are_the_same_schedule_and_others_are_others(make) -> None:
    assert make(7, 3) == make(7, 3)
    assert json.loads(json.dumps(make(7, 3))) == make(7, 3)
    seen = {json.dumps({**make(seed, number), "seed": 0, "number": 0}) for seed in (1, 2) for number in range(40)}
    assert len(seen) == 80


def test_every_simulated_schedule_is_a_world_that_can_be() -> None:
    for number in range(300):
        told = schedule(5, number)
        parse_world(world_data(told["world"], local=told["storage"] is not None))


def test_lab_schedules_come_to_every_fault_side_and_way_and_none_before_it_can_be() -> None:
    told = [lab_schedule.schedule(5, number) for number in range(600)]
    assert {t["fault"] for t in told} == {*FAULTS, None}
    assert {t["side"] for t in told} == set(lab_schedule.SIDES)
    assert {t["moment"]["way"] for t in told} == {"before", "held", "event", "qmp", "stop", "post-copy", "given-up"}
    assert {(t["post_copy"], t["hand_over"]) for t in told} == {
        ("off", "strict"),
        ("off", "delegated"),
        ("allowed", None),
        ("on-pass-limit", None),
    }
    assert any(t["force"] and t["post_copy"] != "off" for t in told)
    assert not any("conductor" in (t["fault"] or "") and t["moment"]["way"] == "before" for t in told)


def test_the_same_schedule_ends_the_same_way_to_the_last_line() -> None:
    told = [schedule(11, number) for number in range(30)]
    assert [play(t).to_json() for t in told] == [play(t).to_json() for t in told]


def test_a_plain_move_is_well() -> None:
    played = play(plain())
    assert (played.ends, played.violations) == (["completed"], [])


def violations(played: Played) -> set[str]:
    return {v.what for v in played.violations}


def test_two_running_copies_are_seen() -> None:
    played = play(plain({"kind": "both-run", "during": "arrived"}))
    assert "two-running" in violations(played)


def test_a_disk_that_lacks_a_write_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {**plain(), "storage": {"include": True}}
    assert violations(play(told)) == set()
    monkeypatch.setattr("refimpl.backends.simulated.disks.Disks.mirrored", lambda *_arguments, **_named: None)
    assert violations(play(told)) == {"write-lost"}


def test_a_file_that_stays_behind_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refimpl.backends.simulated.disks.Disks.retire", lambda *_arguments: None)
    assert violations(play({**plain(), "storage": {"include": True}})) == {"left-behind"}


def test_a_power_loss_that_leaves_it_open_where_the_vm_is_is_counted_apart() -> None:
    lost = {"kind": "host-dies", "host": "a", "during": "bound"}
    played = play(plain(lost))
    assert (set(played.ends), violations(played)) == ({"indeterminate"}, set())
    assert [v.what for v in played.limits] == [LEFT_TO_A_PERSON]
    assert "And 1 times the source died in a host without power" in table([played.to_json()])
    back = play(plain({**lost, "for_ms": 8_000}))
    assert back.limits == []
    frozen = play(plain({"kind": "host-freezes", "host": "b", "during": "bound"}))
    assert (frozen.ends[-1][:9], frozen.limits, violations(frozen)) == ("completed", [], set())


STALE = {"kind": "destination-dies", "during": "ran"}


@pytest.mark.rule("R1")
def test_a_delegated_destination_that_ran_and_died_is_told_as_lost_and_counted_as_a_limit() -> None:
    played = play({**plain(STALE, hand_over="delegated"), "storage": {"include": True}})
    assert (set(played.ends), violations(played)) == ({"lost"}, set())
    assert {v.what for v in played.limits} == {"stale-ran", "write-lost"}
    row = played.to_json()
    assert "in 1 of 1 moves | seen |" in table([row])
    assert play(plain(STALE)).limits == []
    assert "delegated" not in table([play(plain(STALE)).to_json()])


@pytest.mark.rule("R1")
def test_a_strict_move_has_no_limit_and_a_plain_failure_is_untrue_where_it_was_seen_to_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = plain(STALE, hand_over="delegated")
    monkeypatch.setattr(simulated, "is_delegated", lambda _: False)
    assert violations(play(told)) == {"stale-ran"}
    goes_on = decision(Kind.SOURCE_OWNS, why="runs at the source")
    with monkeypatch.context() as patch:
        patch.setattr("refimpl.policy.reconciliation._older", lambda *_: goes_on)
        # It is another engine then, as with a wrong table, and no move of the model's.
        wrong_table(patch, {(Phase.NEW, Kind.UNKNOWN): Row(Phase.NEW)})
        assert violations(play(told)) == {"stale-ran", "untrue-end"}


BREAKS = plain({"kind": "link-drops", "network": "migration", "during": "post-copy"}, dirty=900_000_000) | {
    "request": {"post_copy": "allowed"},
    "post_copy_at": "memory",
}


def test_a_post_copy_that_breaks_is_recovered_and_one_whose_half_dies_is_lost_by_right() -> None:
    played = play(BREAKS)
    assert (played.ends, violations(played)) == (["post-copy-paused", "completed"], set())
    dies = BREAKS["world"] | {"faults": [{"kind": "source-dies", "during": "post-copy"}]}
    lost = play(BREAKS | {"world": dies})
    assert (lost.ends, violations(lost)) == (["lost"], set())


@pytest.mark.parametrize("host", ["a", "b"])
def test_a_half_that_is_ended_though_the_other_is_there_is_seen(host: str) -> None:
    world = WitnessedWorld(world_data(BREAKS["world"]))
    rig = moves.Rig(world, MigrationRequest("web", "b", post_copy=PostCopy.ALLOWED))
    rig.start(post_copy_at=Phase.MEMORY)
    assert len(world.whole()) == 2
    copy = world.copy(host, "web")
    assert copy is not None
    world.stop(copy, VmState.OFF, "ended")
    assert (world.whole(), len(world.taken_away)) == ([], 1)


def test_a_take_over_by_force_is_played_and_the_host_switched_on_again() -> None:
    frozen = {"kind": "host-freezes", "host": "a", "during": "arrived"}
    told = plain(frozen, {"kind": "not-ended", "times": 0}) | {"force": True, "lift_late": True}
    played = play(told)
    assert played.ends[0] == "indeterminate"
    assert (played.ends[-1], violations(played)) == ("completed-with-warnings", set())
    assert {"fence-due", "fenced"} <= played.heard


def test_schedules_come_to_post_copy_and_to_force_and_say_by_whom_it_is_asked() -> None:
    told = [schedule(5, number) for number in range(300)]
    ways = {(t["request"].get("post_copy"), t["post_copy_at"] is not None) for t in told}
    assert {("allowed", True), ("on-pass-limit", False), ("on-pass-limit", True), (None, False)} == ways
    assert any(t["force"] for t in told)


def test_something_that_is_left_is_seen() -> None:
    told = plain({"kind": "leaves-behind", "host": "a", "times": 0})
    assert violations(play(told)) <= {"left-behind"}


def wrong_table(monkeypatch: pytest.MonkeyPatch, rows: dict[tuple[Phase, Kind], Row]) -> None:
    """Give every rig a table in which something is wrong."""
    genuine = moves.Rig.__init__

    def make(self: moves.Rig, *arguments: Any, **named: Any) -> None:
        genuine(self, *arguments, **{**named, "step": mutated({**TABLE, **rows})})

    monkeypatch.setattr(moves.Rig, "__init__", make)


def test_an_engine_that_lets_the_destination_run_too_early_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without leases, and without waiting until the source is bound; the engine as it is passes the same."""
    cut = plain({"kind": "link-drops", "network": "migration", "during": "arrived"}, leases=False)
    assert violations(play(cut)) == set()
    hasty = Row(Phase.COMMITTED, (CommandKind.ALLOW_RUN,))
    wrong_table(monkeypatch, {(Phase.SWITCH, Kind.DESTINATION_ARRIVED): hasty})
    assert "two-running" in violations(play(cut))


def test_an_engine_that_forgets_its_claim_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_table(monkeypatch, {(Phase.CLEANUP, Kind.FINISHED): Row(Phase.COMPLETED, ())})
    assert violations(play(plain())) == {"left-behind"}


def test_an_engine_that_goes_in_circles_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_table(monkeypatch, {(Phase.RECONCILE, Kind.DESTINATION_OWNS): Row(Phase.RECONCILE, (CommandKind.INSPECT,))})
    assert violations(play(plain())) & {"no-end", "not-recoverable"}


def test_a_history_is_kept_shown_and_played_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again = tmp_path / "one", tmp_path / "two"
    arguments = ["--backend", "simulated", "--seed", "3", "--moves", "12"]
    code = main([*arguments, "--output", str(first)])
    shown = capsys.readouterr()
    assert "ci/soak --seed 3 --first 0 --moves 12 --backend simulated" in shown.err
    kept = (first / "history.jsonl").read_text()
    rows = [json.loads(line) for line in kept.splitlines()]
    assert code == (FOUND if any(row["violations"] for row in rows) else 0)
    assert (first / "summary.md").read_text().strip() == table(rows)
    assert Counter(row["ends"][0] for row in rows).total() == 12
    replay = ["--backend", "simulated", "--replay", str(first / "history.jsonl"), "--output", str(again)]
    assert main(replay) == code
    assert (again / "history.jsonl").read_text() == kept


def test_what_must_never_be_is_told_with_its_seed_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "told.jsonl"
    file.write_text(json.dumps(plain({"kind": "both-run", "during": "arrived"})) + "\n")
    assert main(["--backend", "simulated", "--replay", str(file), "--output", str(tmp_path / "out")]) == FOUND
    out = capsys.readouterr().out
    assert f"| {WHAT['two-running']} | 1 |" in out
    assert "seed 1 number 0: two-running" in out


@pytest.mark.parametrize("text", ["{", "3\n"])
def test_a_file_that_is_no_history_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "told.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match="line 1"):
        list(schedules(file))
    assert main(["--backend", "simulated", "--replay", str(file), "--output", str(tmp_path / "out")]) == USAGE
    assert main(["--backend", "simulated", "--replay", str(tmp_path / "none")]) == USAGE
