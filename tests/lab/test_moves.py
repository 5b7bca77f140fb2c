"""Whole moves in conductor processes: there and back, bounded by passes, in clear by name, interrupted in a cancel."""

from __future__ import annotations

import pytest

from refimpl.app.operations import Operation
from refimpl.meter.heartbeat import heartbeat_verdict
from refimpl.model.phase import Phase
from refimpl.model.request import PerformanceOption
from tests.lab.moving import Moving, joined_log, kinds, wait_for

pytestmark = pytest.mark.lab

P = Phase


@pytest.mark.rule("R1", "R18")
def test_there_and_back(moving: Moving) -> None:
    first = moving.place()
    boot = joined_log(moving).boots[-1]
    for _ in range(2):
        source, destination = moving.place(), moving.other()
        operation = moving.start()
        result = operation.wait()
        assert (result.end, result.runs_on, result.problems, result.warnings) == (P.COMPLETED, destination, (), ())
        assert (result.performance_option, result.compression) == ("Compression", "zstd"), "the source's default"
        assert result.blackout_ms is not None
        assert result.qemu_downtime_ms is not None
        assert result.sent_bytes is not None
        assert result.commit_cost_ms is not None
        assert 0 < result.commit_cost_ms < result.blackout_ms
        assert moving.place() == destination != source
        moving.works()
        verdict = heartbeat_verdict(joined_log(moving), boot, destination)
        assert verdict.good, verdict
    assert moving.place() == first


@pytest.mark.rule("R8")
def test_a_guest_that_never_converges_is_switched_at_the_pass_limit(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    # Not compressed: otherwise the last passes are over faster than a switch can be forced.
    operation = moving.start(pass_limit=2, bandwidth_mib_s=20, performance_option=PerformanceOption.TCPIP)
    wait_for(operation, "memory-seen")
    moving.hold_memory(source)
    result = operation.wait()
    assert (result.end, moving.place()) == (P.COMPLETED, destination)
    told = kinds(operation)
    assert told.index("pass-limit-reached") < told.index("steered") < told.index("source-stopped")
    assert told.count("steered") == 1
    assert result.passes >= 2


def test_in_clear_only_by_name_and_said(moving: Moving) -> None:
    result = moving.start(encryption=False).wait()
    assert (result.end, result.encryption, result.compression) == (P.COMPLETED, False, "zstd")
    result = moving.start(performance_option=PerformanceOption.TCPIP).wait()
    assert (result.end, result.encryption, result.compression) == (P.COMPLETED, True, "")


@pytest.mark.rule("R2", "R4")
@pytest.mark.parametrize("journal", [True, False], ids=["with journal", "without journal"])
def test_killed_while_a_cancel_is_undone(moving: Moving, journal: bool) -> None:
    source = moving.place()

    def cancel(operation: Operation) -> None:
        wait_for(operation, "memory-seen")
        moving.hold_memory(source)
        operation.cancel()

    operation = moving.kill_at("undoing", then=cancel, bandwidth_mib_s=3)
    if not journal:
        moving.forget_journal(operation)
    result = moving.recover()
    assert result.end is (P.CANCELLED if journal else P.FAILED), "what was wished is in the journal only"
    assert moving.place() == source
