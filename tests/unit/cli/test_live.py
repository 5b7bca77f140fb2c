"""Progress of a move from its events, and the lines that a person reads."""

from __future__ import annotations

import pytest

from refimpl.app.live import Progress, fold, line, status
from refimpl.model.events import Kind
from tests.unit.cli.fakes import PROBLEM, event

MIB = 1024 * 1024
REQUEST = {"vm": "web", "destination": "h2", "pass_limit": 5, "encryption": True}


def after(*events) -> Progress:
    progress = Progress()
    for one in events:
        progress = fold(progress, one)
    return progress


def progress_event(**values):
    return event(Kind.PROGRESS, 500, total_bytes=512 * MIB, **values)


IN_MEMORY = (
    event(Kind.STARTED, request=REQUEST),
    event(Kind.CHECKS_PASSED, 50, plan={"pass_limit": 5}),
    event(Kind.PHASE_ENTERED, 100, phase="memory"),
    progress_event(remaining_bytes=128 * MIB, bytes_s=100 * MIB, dirty_bytes_s=20 * MIB),
)


def test_the_status_tells_phase_pass_rest_rates_and_convergence():
    assert status(after(*IN_MEMORY)) == (
        "memory  pass 1 (limit 5)  converging  128 of 512 MiB left  100 MiB/s  guest writes 20 MiB/s"
    )


def test_a_guest_that_writes_faster_than_the_link_does_not_converge():
    found = after(*IN_MEMORY, progress_event(dirty_bytes_s=150 * MIB))
    assert found.convergence == "not converging (the switch is forced after pass 5)"


@pytest.mark.parametrize("missing", ["bytes_s", "dirty_bytes_s"])
def test_without_both_rates_nothing_is_claimed(missing):
    rates = {"bytes_s": 100 * MIB, "dirty_bytes_s": 20 * MIB, missing: None}
    assert "not known" in after(IN_MEMORY[0], progress_event(**rates)).convergence


def test_a_figure_once_known_is_kept_when_the_next_event_lacks_it():
    assert after(*IN_MEMORY, progress_event(remaining_bytes=None)).remaining_bytes == 128 * MIB


def test_passes_only_rise():
    found = after(*IN_MEMORY, event(Kind.PASS_ENDED, 600, number=2), event(Kind.PASS_ENDED, 700, number=1))
    assert found.passes == 2


def test_a_wish_to_cancel_is_in_the_status_until_the_end():
    wished = (*IN_MEMORY, event(Kind.CANCEL_WISHED, 800))
    assert "cancel asked for" in status(after(*wished))
    assert "cancel asked for" not in status(after(*wished, event(Kind.PHASE_ENTERED, 900, phase="cancelled")))


def test_elapsed_time_never_runs_backwards():
    begin = event(Kind.STARTED, 500, request=REQUEST)
    found = after(begin, event(Kind.MEMORY_SEEN, 2500), event(Kind.SWITCH_SEEN, 100))
    assert found.elapsed_s == 2.0


def test_progress_is_worth_no_line():
    assert line(IN_MEMORY[3], after(*IN_MEMORY)) is None


def test_an_end_is_worth_no_line_as_the_verdict_follows():
    assert line(event(Kind.PHASE_ENTERED, phase="completed"), Progress()) is None


def test_a_move_without_encryption_says_so_from_the_first_line_on():
    first = event(Kind.STARTED, request=REQUEST | {"encryption": False})
    assert "encryption is OFF" in (line(first, after(first)) or "")


@pytest.mark.parametrize(
    "kind", [Kind.PREPARE_FAILED, Kind.NATIVE_REFUSAL, Kind.CLAIM_REFUSED, Kind.LEASE_UNSAFE, Kind.CANNOT_SETTLE]
)
def test_a_problem_is_told_with_its_id(kind):
    told = line(event(kind, problem=PROBLEM), Progress()) or ""
    assert "connection lost" in told
    assert "[transfer.failed]" in told


def test_a_call_that_returned_well_is_worth_no_line():
    assert line(event(Kind.CALL_RETURNED, ok=True), Progress()) is None
    assert "[transfer.failed]" in (line(event(Kind.CALL_RETURNED, ok=False, problem=PROBLEM), Progress()) or "")
    assert line(event(Kind.CALL_RETURNED, ok=False, problem=None), Progress()) == "the transfer is over"


def test_what_is_left_is_told_at_the_end_of_a_pass_only_when_it_was_just_measured():
    just, long = event(Kind.PASS_ENDED, 510, number=1), event(Kind.PASS_ENDED, 900, number=1)
    assert "128 MiB left" in (line(just, after(*IN_MEMORY, just)) or "")
    assert "left" not in (line(long, after(*IN_MEMORY, long)) or "")


def test_a_pass_beyond_the_limit_is_not_one_of_so_many():
    beyond = event(Kind.PASS_ENDED, 900, number=6)
    assert (line(beyond, after(*IN_MEMORY, beyond)) or "").startswith("pass 6 ended (limit 5)")


def test_checks_made_again_under_the_claim_are_not_told_in_the_same_words():
    plan = {"source": "h1", "destination": "h2", "memory_mib": 512}
    passed = event(Kind.CHECKS_PASSED, plan=plan)
    first = line(passed, after(event(Kind.PHASE_ENTERED, phase="check"), passed))
    again = line(passed, after(event(Kind.PHASE_ENTERED, phase="setup"), passed))
    assert first == "checks passed: from host h1 to host h2, 512 MiB"
    assert again == "checks passed again, now that nobody else can move the VM"


def test_a_deadline_says_what_did_not_come():
    said = {name: line(event(Kind.DEADLINE, name=name), after(*IN_MEMORY)) for name in ("memory", "switch")}
    assert "nothing is sent any more" in said["memory"]
    assert "no end of phase switch in time" in said["switch"]


def test_a_lock_daemon_that_ended_is_told_with_its_host():
    told = event(Kind.LOCK_DAEMON_GONE) | {"host": "h2"}
    assert "lock daemon of host h2 has ended" in (line(told, Progress()) or "")
