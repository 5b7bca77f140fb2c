"""Fences: the power of a lab's host, and agents by the convention of the fence-agents, real processes all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from refimpl.hosts import fence
from refimpl.hosts.fence import Agent, LabPower, fence_of
from refimpl.hosts.process import here
from refimpl.model.fencing import NONE, FenceSetting
from refimpl.model.group import ChannelSpec
from tests.unit.backends.libvirt import recorded as r

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
Written = Callable[[str], str]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Write a fence agent in shell."""

    def write(text: str) -> str:
        path = tmp_path / "agent"
        path.write_text(f"#!/bin/sh\ncat > '{tmp_path}/told'\n{text}\n")
        path.chmod(0o700)
        return str(path)

    return write


@pytest.mark.parametrize(("status", "on"), [(0, True), (2, False)])
def test_an_agent_tells_by_its_status(written: Written, tmp_path: Path, status: int, on: bool) -> None:
    assert Agent(written(f"exit {status}"), ("ip=192.0.2.1", "plug=h1")).on() is on
    assert (tmp_path / "told").read_text() == "ip=192.0.2.1\nplug=h1\naction=status\n"


def test_an_agent_that_fails_is_no_answer(written: Written) -> None:
    agent = Agent(written("echo no route >&2; exit 1"), ())
    for act in (agent.on, agent.off):
        with pytest.raises(OSError, match="no route"):
            act()


def test_what_an_agent_says_need_not_be_text(written: Written) -> None:
    agent = Agent(written("printf 'Ger\\344t fehlt\\n' >&2; exit 1"), ())
    for act in (agent.on, agent.off):
        with pytest.raises(OSError, match="t fehlt"):
            act()


def test_an_agent_that_is_not_there_or_hangs_is_an_error(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="nowhere"):
        Agent("/nowhere/agent", ()).on()
    monkeypatch.setattr(fence, "AGENT_TIMEOUT_S", 0.05)
    with pytest.raises(TimeoutError, match="did not end"):
        Agent(written("exec sleep 60"), ()).off()


def test_the_power_of_a_labs_host_is_its_init() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        power = LabPower("h1", here(child.pid))
        assert power.on()
        power.off()
        assert not power.on()
        power.off()


def test_which_fence_a_host_has() -> None:
    host = r.host("h1")
    assert isinstance(fence_of(host, FenceSetting()), LabPower)
    assert fence_of(host, FenceSetting(NONE)) is None
    agent = fence_of(host, FenceSetting("/usr/sbin/fence_ipmilan", "ip=192.0.2.1"))
    assert agent is not None
    assert agent.name == "fence agent /usr/sbin/fence_ipmilan"
    elsewhere = replace(host, channel=ChannelSpec("ssh", host.channel.init))
    assert fence_of(elsewhere, FenceSetting()) is None, "no host but a lab's has one of its own"
