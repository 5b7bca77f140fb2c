"""Preparing a move and the one long call, on hosts made of fakes: what is done at which host, and in which order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from refimpl.backends.libvirt.operation import Call
from refimpl.backends.libvirt.steering import cancel
from refimpl.backends.libvirt.transfer import ABORTED, REFUSALS, USUAL_DOWNTIME_MS, prepare, transfer
from refimpl.hosts.channel import Completed
from refimpl.model.events import Kind
from refimpl.model.phase import Side
from refimpl.model.request import VmState
from tests.unit.backends.libvirt.mover import MAC, Move, libvirt, refusal

CONNECT, PROVE, MARK, SHUT = "h1 timeout", "h2 ip -force -batch", "mark", "h2 nft -f"
STEPS = (CONNECT, PROVE, MARK, SHUT)
REFUSED = Completed(1, "", "Operation not permitted\n")
NO_ROUTE = Completed(1, "", "bash: connect: No route to host\nbash: line 1: /dev/tcp: No route to host\n")


@pytest.fixture
def move(monkeypatch: pytest.MonkeyPatch) -> Move:
    return Move(monkeypatch)


@pytest.mark.rule("R16", "R13", "R10")
def test_the_network_is_proved_then_the_port_then_the_vm_is_marked_then_the_port_is_shut(move: Move) -> None:
    """Shut only when it is marked: what a killed controller leaves shut is found by the mark."""
    prepare(move.operation)
    assert move.kinds == [Kind.PREPARED]
    assert move.steps(*STEPS) == list(STEPS)
    proved = next(step for step in move.done if PROVE in step)
    assert "master sw2" in proved, "the switch of the destination, not the source's"
    shut = next(step for step in move.done if SHUT in step)
    assert "add table bridge refimpl_0a1b2c3d" in shut
    assert f"ether saddr {{ {MAC} }} drop" in shut
    assert not any(step.startswith(("h1 ip", "h1 nft")) for step in move.done), "the source's port stays as it is"


@pytest.mark.rule("R16", "R19")
@pytest.mark.error("port.rejected")
@pytest.mark.parametrize(("tool", "done"), [("ip", [CONNECT, PROVE]), ("nft", list(STEPS))])
def test_a_port_that_the_destination_does_not_give_fails_the_preparation_there(
    move: Move, tool: str, done: list[str]
) -> None:
    move.destination.fails[tool] = REFUSED
    prepare(move.operation)
    assert move.kinds == [Kind.PREPARE_FAILED]
    problem = move.problem
    assert (problem.id, problem.side, problem.host) == ("port.rejected", Side.DESTINATION, "h2")
    assert "Operation not permitted" in problem.native.text
    assert move.steps(*STEPS) == done


@pytest.mark.rule("R13", "R19")
@pytest.mark.error("network.no_connection")
@pytest.mark.parametrize(("answer", "said"), [(NO_ROUTE, "No route to host"), (TimeoutError("no answer"), "no answer")])
def test_a_network_that_does_not_connect_is_told_and_nothing_is_touched(move: Move, answer: Any, said: str) -> None:
    move.operation.plan = replace(move.operation.plan, network=1)
    move.source.fails["timeout"] = answer
    prepare(move.operation)
    assert move.kinds == [Kind.NETWORK_FAILED]
    assert move.events[0]["address"] == "198.51.100.12"
    (asked,) = move.done
    assert asked.split()[-2:] == ["198.51.100.12", "16514"]
    problem = move.problem
    assert (problem.side, problem.host, problem.values["tried"]) == (Side.SOURCE, "h1", "198.51.100.12")
    assert said in problem.native.text


@pytest.mark.rule("R10")
def test_of_a_vm_that_is_off_nothing_is_proved_and_it_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    move = Move(monkeypatch, vm_state=VmState.OFF)
    prepare(move.operation)
    assert move.kinds == [Kind.PREPARED]
    assert move.steps(*STEPS) == [MARK]


@pytest.mark.rule("R8")
@pytest.mark.parametrize("limit_ms", [None, 50])
def test_the_downtime_limit_is_given_before_every_transfer(
    monkeypatch: pytest.MonkeyPatch, limit_ms: int | None
) -> None:
    """QEMU keeps what it was given for an earlier one: after a forced switch that would be no limit at all."""
    for _ in range(2):
        move = Move(monkeypatch, cancel_if_blackout_exceeds_ms=limit_ms)
        transfer(move.operation)
        assert move.done == [f"downtime {limit_ms or USUAL_DOWNTIME_MS}", "migrate"]
        assert [(e.kind, e["ok"]) for e in move.events] == [(Kind.CALL_RETURNED, True)]


@pytest.mark.rule("R8")
def test_a_transfer_whose_limit_cannot_be_set_is_not_begun(move: Move) -> None:
    move.raises["downtime"] = refusal(1)
    transfer(move.operation)
    assert "migrate" not in move.done
    assert move.events[-1]["ok"] is False


def test_a_vm_that_is_off_has_no_downtime_to_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    move = Move(monkeypatch, vm_state=VmState.OFF)
    transfer(move.operation)
    assert move.done == ["migrate"]


@pytest.mark.rule("R10")
def test_the_vm_runs_on_while_its_memory_is_sent(move: Move) -> None:
    transfer(move.operation)
    assert move.given[1] & libvirt.VIR_MIGRATE_LIVE


@pytest.mark.rule("R12")
@pytest.mark.parametrize(("method", "packed"), [("", False), ("xbzrle", True), ("zstd", True)])
def test_memory_is_packed_by_the_method_of_the_plan_and_only_then(
    monkeypatch: pytest.MonkeyPatch, method: str, packed: bool
) -> None:
    move = Move(monkeypatch, compression=method)
    transfer(move.operation)
    parameters, flags = move.given
    assert bool(flags & libvirt.VIR_MIGRATE_COMPRESSED) is packed
    assert parameters.get("compression") == ([method] if packed else None)


@pytest.mark.rule("R13")
def test_the_memory_goes_over_the_network_that_was_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    move = Move(monkeypatch, network=1)
    transfer(move.operation)
    address = move.operation.plan.address
    assert (move.given[0]["migrate_uri"], move.given[0]["listen_address"]) == (f"tcp://{address}", address)


@pytest.mark.rule("R4")
@pytest.mark.error("transfer.cancelled")
def test_a_cancel_before_anything_was_begun_keeps_all_of_it_from_beginning(move: Move) -> None:
    cancel(move.operation)
    prepare(move.operation)
    transfer(move.operation)
    assert move.kinds == [Kind.CANCEL_ACCEPTED, Kind.PREPARE_FAILED, Kind.CALL_RETURNED]
    assert [e["problem"].id for e in move.events[1:]] == ["transfer.cancelled"] * 2
    assert move.events[-1]["ok"] is False
    assert move.done == []


@pytest.mark.rule("R4")
def test_a_cancel_while_it_is_prepared_is_the_answer(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move.operation, "hold_source_process", lambda: cancel(move.operation))
    prepare(move.operation)
    assert move.kinds == [Kind.CANCEL_ACCEPTED, Kind.PREPARE_FAILED]
    assert move.events[-1]["problem"].id == "transfer.cancelled"


@pytest.mark.rule("R4")
def test_a_cancel_in_memory_breaks_the_transfer_off_and_is_why_it_ended(move: Move) -> None:
    move.meanwhile["migrate"] = lambda: cancel(move.operation)
    move.raises["migrate"] = refusal(ABORTED)
    transfer(move.operation)
    assert move.done == [f"downtime {USUAL_DOWNTIME_MS}", "migrate", "abort"]
    assert move.kinds == [Kind.CANCEL_ACCEPTED, Kind.CALL_RETURNED]
    assert (move.events[-1]["ok"], move.events[-1]["problem"].id) == (False, "transfer.cancelled")


@pytest.mark.rule("R4")
@pytest.mark.parametrize("seen", [Kind.SWITCH_SEEN, Kind.SOURCE_STOPPED, Kind.DESTINATION_ARRIVED])
def test_from_the_switch_on_a_cancel_is_too_late_and_nothing_is_broken_off(move: Move, seen: Kind) -> None:
    move.operation.call = Call.RUNNING
    move.operation.watch.once(seen, 1, Side.SOURCE)
    cancel(move.operation)
    assert move.kinds == [Kind.CANCEL_TOO_LATE]
    assert not move.operation.cancel_accepted
    assert move.done == []


@pytest.mark.rule("R6", "R19")
@pytest.mark.error("memory.not_reserved")
def test_a_destination_without_the_memory_is_a_refusal_that_names_it(move: Move) -> None:
    move.raises["migrate"] = refusal(1, text="cannot set up guest memory 'pc.ram': Cannot allocate memory")
    transfer(move.operation)
    assert move.kinds == [Kind.NATIVE_REFUSAL]
    problem = move.problem
    assert (problem.id, problem.side, problem.host) == ("memory.not_reserved", Side.DESTINATION, "h2")
    assert (problem.native.domain, problem.native.code) == ("libvirt/10", 1)


@pytest.mark.rule("R6")
def test_the_whole_memory_is_taken_before_a_page_is_sent(move: Move) -> None:
    transfer(move.operation)
    assert '<allocation mode="immediate"' in move.given[0]["destination_xml"]


@pytest.mark.rule("R19")
@pytest.mark.parametrize(
    ("code", "kind", "id"),
    [
        *((code, Kind.NATIVE_REFUSAL, "transfer.refused") for code in sorted(REFUSALS)),
        (9, Kind.CALL_RETURNED, "transfer.failed"),
        (38, Kind.CALL_RETURNED, "transfer.failed"),
    ],
)
def test_what_the_daemon_says_is_kept_word_for_word_with_side_and_host(
    move: Move, code: int, kind: Kind, id: str
) -> None:
    move.raises["migrate"] = refusal(code, domain=7, text="said so")
    transfer(move.operation)
    assert move.kinds == [kind]
    problem = move.problem
    assert (problem.id, problem.side, problem.host) == (id, Side.SOURCE, "h1")
    assert (problem.native.domain, problem.native.code, problem.native.text) == ("libvirt/7", code, "said so")


@pytest.mark.rule("R19")
@pytest.mark.parametrize(("side", "host"), [(Side.SOURCE, "h1"), (Side.DESTINATION, "h2")])
@pytest.mark.parametrize(
    ("error", "native"),
    [
        (refusal(38, 7, "no"), ("libvirt/7", 38, "no")),
        (OSError(113, "No route to host"), ("os", 113, "[Errno 113] No route to host")),
        (TimeoutError("too long"), ("os", "TimeoutError", "too long")),
    ],
)
def test_a_problem_of_an_operation_has_side_host_and_native_code(
    move: Move, side: Side, host: str, error: Exception, native: tuple[str, object, str]
) -> None:
    problem = move.operation.problem("prepare.failed", side, error, more=1)
    assert (problem.side, problem.host) == (side, host)
    assert problem.native is not None
    assert (problem.native.domain, problem.native.code, problem.native.text) == native
    assert f"(seen at the {side} on host {host!r})" in problem.text
    assert problem.values["more"] == 1


@pytest.mark.rule("R1")
@pytest.mark.parametrize("state", [VmState.RUNNING, VmState.OFF])
@pytest.mark.parametrize(("on", "done"), [(True, [MARK, "autostart 0"]), (False, [MARK])])
def test_a_marked_vm_is_not_started_by_its_host_any_more(
    monkeypatch: pytest.MonkeyPatch, state: VmState, on: bool, done: list[str]
) -> None:
    """First the mark, which knows that it was on."""
    move = Move(monkeypatch, vm_state=state, autostart=on)
    move.autostart = on
    prepare(move.operation)
    assert move.steps(MARK, "autostart 0") == done


@pytest.mark.rule("R1")
def test_a_lock_daemon_that_ended_before_the_preparation_is_told_by_it(move: Move) -> None:
    del move.destination.files["/proc/49/comm"]
    prepare(move.operation)
    assert [(e.kind, e.side) for e in move.events] == [
        (Kind.LOCK_DAEMON_GONE, Side.DESTINATION),
        (Kind.PREPARED, None),
    ]
    move.operation.forget()
