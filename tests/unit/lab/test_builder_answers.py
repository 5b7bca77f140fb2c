"""A host of a new lab is asked who it is until its port is open, and only for that."""

from __future__ import annotations

from typing import Any

import pytest

from refimpl.lab import builder
from refimpl.lab.builder import Builder
from refimpl.lab.errors import LabError


def refused(says: str) -> LabError:
    return LabError("lab.command_failed", command="virsh", status="1", said=says)


class Runner:
    def __init__(self, answers: list[str | LabError]) -> None:
        self.answers = answers

    def ask(self, _uri: str, _timeout_s: float) -> str:
        answer = self.answers.pop(0)
        if isinstance(answer, LabError):
            raise answer
        return answer


def ask(monkeypatch: pytest.MonkeyPatch, runner: Runner) -> str:
    made: Any = object.__new__(Builder)
    monkeypatch.setattr(Builder, "lab", type("Lab", (), {"conductor_pki": "/pki"}), raising=False)
    monkeypatch.setattr(Builder, "_runner", lambda *_: runner)
    monkeypatch.setattr(builder.layout, "control_uri", lambda *_: "uri")
    monkeypatch.setattr(builder, "ASKED_EVERY_S", 0)
    return str(Builder._answer(made, object()))  # type: ignore[arg-type]


def test_a_port_that_is_not_open_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = refused("unable to connect to server at '10.0.0.2:16514': Connection refused")
    assert ask(monkeypatch, Runner([waiting, waiting, "h2"])) == "h2"


def test_another_refusal_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner([refused("certificate is not trusted"), "h2"])
    with pytest.raises(LabError, match="not trusted"):
        ask(monkeypatch, runner)
    assert runner.answers == ["h2"]


def test_a_port_that_stays_shut_is_told_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "ANSWER_S", 0)
    with pytest.raises(LabError, match="Connection refused"):
        ask(monkeypatch, Runner([refused("Connection refused")] * 2))
