"""Letting the destination run, on hosts made of fakes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from refimpl.backends.libvirt import binding, connection
from refimpl.backends.libvirt.operation import Operation, Reach
from refimpl.backends.libvirt.tap import Taps
from refimpl.backends.libvirt.watch import NativeEvent
from refimpl.hosts.channel import Completed
from refimpl.model.events import Event, Kind
from refimpl.model.request import VmState
from tests.unit.backends.libvirt import recorded as r

libvirt = pytest.importorskip("libvirt")


class Copy:
    """A copy that has arrived at the destination and waits."""

    number = libvirt.VIR_DOMAIN_PAUSED

    def state(self) -> list[int]:
        return [self.number, 1]

    def resume(self) -> None:
        self.number = libvirt.VIR_DOMAIN_RUNNING


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    copy = Copy()
    monkeypatch.setattr(connection.Connections, "to", lambda _self, host: host)
    monkeypatch.setattr(connection, "find", lambda _host, _id: copy)
    monkeypatch.setattr(binding, "announce", lambda _domain: None)
    monkeypatch.setattr(binding, "RESUME_EVENT_TIMEOUT_S", 0.01)
    return []


def arrived(told: list[Event], **changes: Any) -> Operation:
    plan = replace(r.PLAN, **changes)
    reach = Reach(r.GROUP, plan, connection.Connections(), Taps(lambda: 0))
    reach.source_channel, reach.destination_channel = r.FakeChannel(), r.FakeChannel()
    return Operation("op", plan, reach, told.append, lambda: 0)


def resumed(operation: Operation) -> None:
    operation._destination_told(NativeEvent("qmp", 7, name="RESUME"))


def kinds(told: list[Event]) -> list[Kind]:
    return [event.kind for event in told]


def test_a_paused_copy_that_somebody_resumes_later_is_told_to_run(told: list[Event]) -> None:
    operation = arrived(told, vm_state=VmState.PAUSED)
    binding.allow_run(operation)
    assert kinds(told) == [Kind.LEFT_PAUSED]
    resumed(operation)
    assert kinds(told) == [Kind.LEFT_PAUSED, Kind.DESTINATION_RAN]


def test_a_copy_is_told_to_run_once_with_qemus_time_wherever_its_event_comes(told: list[Event]) -> None:
    operation = arrived(told)
    binding.allow_run(operation)
    resumed(operation)
    assert kinds(told) == [Kind.DESTINATION_RAN]


@pytest.mark.rule("R16")
def test_a_copy_whose_port_cannot_be_opened_is_told_to_be_refused_and_to_run(told: list[Event]) -> None:
    operation = arrived(told)
    refused = {"nft": Completed(1, "", "Error: Operation not permitted")}
    operation.reach.destination_channel = r.FakeChannel(answers=refused)
    binding.allow_run(operation)
    assert kinds(told) == [Kind.RUN_REFUSED]
    assert "the port cannot be opened" in told[0]["problem"].text
    resumed(operation)
    assert kinds(told) == [Kind.RUN_REFUSED, Kind.DESTINATION_RAN]
