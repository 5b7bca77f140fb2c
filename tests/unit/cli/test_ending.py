"""What a person and a program are told of every end."""

from __future__ import annotations

import json

import click
import pytest

from refimpl.cli.cancel import cancel_code
from refimpl.cli.ending import outcome_text, tell_outcome
from refimpl.cli.failing import exit_code, problem_text, rows
from refimpl.model.errors import error
from refimpl.model.phase import ENDS, EXIT_CODES, Phase
from tests.unit.cli.fakes import PROBLEM, WARNING, outcome


def text(end: Phase = Phase.COMPLETED, **changes: object) -> str:
    return click.unstyle(outcome_text(outcome(end, **changes)))


@pytest.mark.parametrize("end", sorted(ENDS))
def test_each_end_has_its_sentence_and_its_exit_code(end, capsys):
    assert tell_outcome(outcome(end), "0a1b2c3d") == EXIT_CODES[end]
    assert outcome(end).sentence in click.unstyle(capsys.readouterr().out)


def test_figures_stand_under_their_own_names():
    lines = {line.split("  ")[1].strip(): line for line in text().splitlines() if line.startswith("  ")}
    assert "45.6 ms" in lines["blackout"]
    assert "38.0 ms" in lines["QEMU's figure"]
    assert "not the blackout" in lines["QEMU's figure"]
    assert "1234.5 ms" in lines["total"]
    assert "3.0 MiB" in lines["sent"]
    assert "3145728 bytes" in lines["sent"]


def test_what_was_not_measured_is_said_so():
    shown = text(blackout_ms=None, qemu_downtime_ms=None, sent_bytes=None)
    assert shown.count("not measured") == 3
    assert "None" not in shown


def test_the_blackout_of_a_move_of_which_only_the_end_was_seen_is_not_measured():
    lines = text(blackout_ms=None, qemu_downtime_ms=None, sent_bytes=None, passes=0).splitlines()
    assert [line.split("  ")[1] for line in lines if "not measured" in line] == ["blackout"]


def test_encryption_turned_off_is_in_the_report():
    assert "OFF" in text(encryption=False)
    assert "OFF" not in text()


def test_a_delegated_hand_over_is_named_with_what_its_port_means():
    assert "the lease alone excludes a second copy" in text(hand_over="delegated")
    assert "hand-over" not in text(hand_over="strict")
    assert "after the VM had begun to run" in text(hand_over="delegated", port_ms=12.0)
    assert "while the VM began to run" in text(hand_over="strict", port_ms=12.0)


def test_a_problem_is_told_with_everything_that_is_known_of_it():
    shown = text(Phase.FAILED, problems=(PROBLEM,), warnings=(WARNING,))
    assert "[transfer.failed]" in shown
    assert "at the source on host 'h1'" in shown
    assert "in phase memory" in shown
    assert "libvirt/10 38: end of file while reading data" in shown
    assert shown.count("mend:") == 2
    assert shown.count("why:") == 2
    assert "warning: The cancel of VM 'web' came too late" in shown


def test_json_has_the_outcome_alone(capsys):
    tell_outcome(outcome(Phase.FAILED, problems=(PROBLEM,)), "0a1b2c3d", json=True)
    out = capsys.readouterr().out
    told = json.loads(out)["outcome"]
    assert out.count("\n") == 1
    assert (told["end"], told["exit_code"], told["problems"][0]["native"]["code"]) == ("failed", 4, 38)


def test_detached_says_how_to_attach(capsys):
    assert tell_outcome(None, "0a1b2c3d") == 11
    assert "refimpl attach 0a1b2c3d" in capsys.readouterr().out


def test_detached_keeps_json_clean(capsys):
    assert tell_outcome(None, "0a1b2c3d", jsonl=True) == 11
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"kind": "detached", "detached": {"operation": "0a1b2c3d", "exit_code": 11}}
    assert "refimpl attach" in captured.err


@pytest.mark.parametrize(
    ("end", "code"),
    [(Phase.CANCELLED, 0), (Phase.COMPLETED, 0), (Phase.COMPLETED_WITH_WARNINGS, 0), (Phase.INDETERMINATE, 6)],
)
def test_a_cancel_succeeds_only_when_the_move_was_cancelled(end, code):
    assert cancel_code(outcome(end), EXIT_CODES[end]) == code


def test_a_lab_error_is_told_like_any_other():
    from refimpl.lab.errors import LabError

    shown = problem_text(rows(LabError("lab.busy", lab_id="abc123"))[0])
    assert "[lab.busy]" in shown
    assert "mend:   Wait" in shown
    assert exit_code(LabError("lab.busy", lab_id="abc123")) == 8
    assert exit_code(LabError("lab.unknown", lab="x", known="none")) == 3


@pytest.mark.error("guest.not_built")
def test_a_guest_that_cannot_be_built_has_an_id():
    from refimpl.guest.kernel import GuestBuildError

    (row,) = rows(GuestBuildError("gcc is not installed", "install what ci/setup lists"))
    assert (row["id"], row["mend"]) == ("guest.not_built", "install what ci/setup lists")
    assert "gcc is not installed" in row["text"]


@pytest.mark.error("machine.failed")
def test_an_error_of_the_system_has_an_id_and_a_code():
    (row,) = rows(PermissionError(13, "Permission denied"))
    assert row["id"] == "machine.failed"
    assert exit_code(PermissionError(13, "Permission denied")) == 8


def test_an_error_with_an_exit_code_of_its_own_keeps_it():
    assert exit_code(error("lab.several_up", labs="a, b")) == 2
