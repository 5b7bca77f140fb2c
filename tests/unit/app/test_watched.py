"""What is known of a VM that is to be watched, and what happens when it cannot be."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import click
import pytest

from refimpl.app import watched
from refimpl.app.home import Home
from refimpl.app.vm_record import NicRecord, VmRecord
from refimpl.app.watched import ProbeFiles, Subject, Watch, shelf_of, subject_of, watching
from refimpl.backends.libvirt.domain import mac_address
from refimpl.cli.watching import verdicts_text
from refimpl.guest import GuestParameters
from refimpl.lab import Lab
from refimpl.meter.program import Program
from refimpl.meter.verdict import State, Verdict, not_measured
from refimpl.model.errors import RefimplError
from refimpl.model.group import ChannelSpec, Group, HostEntry, ProcessRef

MARKER = "0f" * 16


@pytest.fixture
def group(tmp_path: Path) -> Group:
    channel = ChannelSpec("namespace", ProcessRef(1, 1, "b"))
    host = HostEntry("h1", "u", "uri", "uri", "10.0.0.1", (), 2048, channel, "sw", "/log/h1")
    labels = {"vm_network": "10.90.2.0/24", "observer_address": "10.90.2.1"}
    return Group("000000", "lab", (host,), "store", str(tmp_path), "leases", labels=labels)


def record(group: Group, **values: Any) -> VmRecord:
    written = VmRecord("web", "id-1", "10.90.2.100/24", 128, 1, "tcg", **values)
    shelf_of(group).write(written)
    return written


def test_of_the_built_in_guest_everything_is_known(group, tmp_path):
    record(group, parameters=GuestParameters(heartbeat_period_ms=5, marker=MARKER))
    probe = ProbeFiles({"h1": Path("/log/h1/web.lines")}, [tmp_path / "web.raw"], 5, MARKER)
    assert subject_of(group, "web") == Subject("web", mac_address("id-1"), "10.90.2.100", probe)


def test_of_a_guest_of_one_s_own_its_first_adapter_and_address_are_known(group):
    record(group, nics=(NicRecord("52:54:00:aa:bb:cc", "vmswitch", "10.90.2.100/24"),))
    assert subject_of(group, "web") == Subject("web", "52:54:00:aa:bb:cc", "10.90.2.100")


@pytest.mark.error("watch.no_record")
def test_a_vm_that_was_not_made_here_cannot_be_watched(group):
    with pytest.raises(RefimplError) as failure:
        subject_of(group, "web")
    assert failure.value.problems[0].id == "watch.no_record"


@pytest.mark.error("watch.not_started")
def test_an_observer_that_does_not_come_up_is_named_and_nothing_is_left(group, tmp_path):
    lab = cast(Lab, SimpleNamespace(id=group.id, group=group, links=lambda: ()))
    home = Home(tmp_path / "home")
    with pytest.raises(RefimplError) as failure, watching(lab, home, Subject("web", "52:54:00:00:00:01", None)):
        pass
    (problem,) = failure.value.problems
    assert problem.id == "watch.not_started"
    assert "the observer 'switch' did not start: nsenter" in str(problem.values["detail"])
    assert list(home.operations.iterdir()) == []


@pytest.mark.parametrize(("answers", "missing"), [(0, "answer number 1 "), (5, "answer number 160 ")])
def test_a_guest_that_does_not_answer_is_not_waited_for_long(group, tmp_path, monkeypatch, answers, missing):
    monkeypatch.setattr(watched, "_FIRST_S", 0.0)
    monkeypatch.setattr(watched, "HEARD_S", 0.0)
    watch = Watch(cast(Lab, None), Subject("web", "52:54:00:00:00:01", "10.90.2.100"), tmp_path)
    samples = [{"kind": "reply", "at_ns": number} for number in range(answers)]
    watch._programs = {"arp": cast(Program, SimpleNamespace(samples=lambda kind: samples))}
    with pytest.raises(RefimplError, match=missing) as failure:
        watch.ready()
    assert failure.value.problems[0].id == "guest.not_heard"


def test_what_was_seen_is_told_line_by_line_with_where_its_samples_are(tmp_path):
    found = (
        Verdict("blackout", State.OK, "no virtual CPU ran for 45.6 ms"),
        Verdict("tcp stream", State.BAD, "connection ended: reset"),
        not_measured("wire", "no marker of this guest is known"),
    )
    lines = click.unstyle(verdicts_text(found, tmp_path)).splitlines()
    assert lines[1:] == [
        "seen from outside:",
        "  blackout    ok            no virtual CPU ran for 45.6 ms",
        "  tcp stream  bad           connection ended: reset",
        "  wire        not measured  no marker of this guest is known",
        f"  every sample: {tmp_path}",
    ]
    assert "only of a completed move" in verdicts_text((), tmp_path)
