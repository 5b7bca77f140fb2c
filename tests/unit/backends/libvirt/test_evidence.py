"""What is said of a source whose process ended: how, only where the VM is nowhere, and never in place of its guest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from refimpl.backends.libvirt import evidence
from refimpl.hosts.channel import Completed
from refimpl.model.events import Kind
from refimpl.model.facts import CopySeen, VmState
from refimpl.model.request import PostCopy
from tests.builders import destination, source
from tests.unit.backends.libvirt.recorded import FakeChannel

S = VmState
LOG = "2026-11-24 12:18:03.269+0000: initiating migration\nqemu: Assertion failed.\n"
TOLD = "its QEMU ended by SIGABRT and said last: qemu: Assertion failed"


class Dead:
    """An operation whose source's process has ended, or not."""

    def __init__(self, here: CopySeen, there: CopySeen, *, ended: bool = True, panicked: bool = False) -> None:
        channel = FakeChannel(answers={"tail": Completed(0, LOG, "")})
        self.reach = SimpleNamespace(sides=lambda: ((here,), (there,)), source_channel=channel)
        self.plan = SimpleNamespace(vm="web", post_copy=PostCopy.OFF)
        self.watch = SimpleNamespace(panicked=panicked)
        self.ended = ended
        self.posted: list[Any] = []

    def source_process_ended(self) -> bool:
        return self.ended

    def source_process_end(self) -> str:
        return "by SIGABRT" if self.ended else ""

    def post(self, kind: Kind, **values: Any) -> None:
        assert kind is Kind.EVIDENCE_SEEN
        self.posted.append(values["evidence"].source)


def seen(monkeypatch: pytest.MonkeyPatch, operation: Dead) -> CopySeen:
    monkeypatch.setattr(evidence, "_look", lambda _, copy: copy)
    monkeypatch.setattr(evidence.ending, "go_on", lambda _: None)
    evidence.inspect(operation)  # type: ignore[arg-type]
    (copy,) = operation.posted
    assert isinstance(copy, CopySeen)
    return copy


def test_a_process_that_ended_is_told_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    copy = seen(monkeypatch, Dead(source(S.OFF), destination()))
    assert (copy.reason, copy.bound) == (TOLD, True)
    assert seen(monkeypatch, Dead(source(S.OFF), destination(S.OFF))).reason == TOLD


def test_a_recovery_that_did_not_hold_the_process_tells_what_libvirt_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    copy = seen(monkeypatch, Dead(source(S.OFF, reason="crashed"), destination(), ended=False))
    assert copy.reason == "its QEMU ended and said last: qemu: Assertion failed"
    copy = seen(monkeypatch, Dead(source(S.OFF, reason="destroyed"), destination(), ended=False))
    assert copy.reason == "destroyed"


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (source(S.OFF, reason="shutdown", ended_by_guest=True), destination()),
        (source(S.ABSENT, reason="gone"), destination(S.RUNNING)),
        (source(S.OFF, reason="migration"), destination(S.PAUSED)),
    ],
)
def test_nothing_is_said_of_a_process_that_was_to_end(
    monkeypatch: pytest.MonkeyPatch, here: CopySeen, there: CopySeen
) -> None:
    assert seen(monkeypatch, Dead(here, there)).reason == here.reason


def test_a_panic_is_the_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    copy = seen(monkeypatch, Dead(source(S.OFF), destination(), panicked=True))
    assert (copy.ended_by_guest, copy.reason) == (True, evidence.PANICKED)
