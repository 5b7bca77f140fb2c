"""A host that does not answer is cut off by force, with proof, and comes back late; a fence that lies is found out."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from refimpl.app.fencing import risk, try_fence
from refimpl.app.recovery import recover_one
from refimpl.backends.libvirt import connection
from refimpl.backends.libvirt.backend import LibvirtBackend
from refimpl.engine.store import GroupStore
from refimpl.hosts import process
from refimpl.model.fencing import OWN_FENCE, FenceSetting
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from refimpl.model.request import HandOver, VmState
from tests.lab.libvirt_support import host_of
from tests.lab.moving import Moving, until
from tests.lab.striking import at_the_end, daemon_frozen

pytestmark = pytest.mark.lab

ATTEMPTS = 3
LIAR = """#!/bin/sh
action=$(sed -n 's/^action=//p')
[ "$action" = off ] && { touch "$0.off"; exit 0; }
[ -e "$0.off" ] && exit 2
exit 0
"""
"""A fence agent that says that the host is off, and does nothing."""


def forced(moving: Moving) -> Outcome:
    (item,) = moving.interrupted(marks=False)
    return recover_one(moving.home, moving.group, item, force=True).wait()


def told(outcome: Outcome) -> list[str]:
    return [problem.text for problem in (*outcome.problems, *outcome.warnings)]


def has_fence(moving: Moving, host: str, fence: FenceSetting) -> None:
    GroupStore(Path(moving.group.store_path)).change_settings(host, lambda old: replace(old, fence=fence))


@contextmanager
def silent(moving: Moving, host: str) -> Iterator[None]:
    """A host whose libvirtd is frozen, until the end of the block if it is still there."""
    daemon = moving.lab.daemon(host, "libvirtd")
    assert daemon is not None
    process.send_signal(daemon, signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(daemon, signal.SIGCONT)


def comes_back(moving: Moving, host: str) -> Outcome:
    """Switch a host on again and put in order what it still keeps."""
    moving.lab.host_power_on(host)
    (item,) = moving.interrupted(marks=False)
    return recover_one(moving.home, moving.group, item).wait()


@pytest.mark.rule("R1")
@pytest.mark.error("fence.done")
def test_a_source_that_stood_still_until_it_was_cut_off(moving: Moving) -> None:
    for _ in range(ATTEMPTS):
        source, destination = moving.place(), moving.other()
        arrival = (destination, moving.spec.id, at_the_end(HandOver.STRICT))
        with daemon_frozen(moving.lab, source, arrival, lambda: True) as freeze:
            moving.kill_at("switch")
            until(freeze.fired.is_set, "the arrival")
            outcome = forced(moving)
        assert "fence.done" in {warning.id for warning in outcome.warnings}, told(outcome)
        late = comes_back(moving, source)
        assert (late.completed, moving.place()) == (True, destination), told(late)
        # Its copy may have been ended before its daemon froze: nobody can know by what, until that answers.
        if outcome.end is not Phase.INDETERMINATE:
            break
    assert (outcome.end, outcome.runs_on) == (Phase.COMPLETED_WITH_WARNINGS, destination), told(outcome)


@pytest.mark.full
@pytest.mark.rule("R1")
@pytest.mark.error("fence.failed")
def test_a_fence_that_lies_is_found_out_and_nothing_is_done(moving: Moving, tmp_path: Path) -> None:
    source = moving.place()
    agent = tmp_path / "agent"
    agent.write_text(LIAR)
    agent.chmod(0o700)
    has_fence(moving, source, FenceSetting(str(agent)))
    try:
        assert try_fence(moving.group, source)[0] == f"fence agent {agent}"
        moving.kill_at("memory", bandwidth_mib_s=1)
        with silent(moving, source):
            outcome = forced(moving)
        assert outcome.end is Phase.INDETERMINATE
        assert outcome.problems[-1].id == "fence.failed"
        assert "has not ended" in outcome.problems[-1].text
        assert moving.states()[source] is VmState.RUNNING
        moving.release_memory(source)
        moving.recover()
    finally:
        has_fence(moving, source, OWN_FENCE)


@pytest.mark.full
@pytest.mark.rule("R1")
def test_a_vm_whose_memory_went_with_its_host_is_started_elsewhere(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    moving.kill_at("memory", bandwidth_mib_s=1)
    with silent(moving, source):
        (item,) = moving.interrupted(marks=False)
        backend = LibvirtBackend(moving.group, lambda _: None, lambda: 0)
        try:
            named = risk(moving.home, moving.group, backend, item)
        finally:
            backend.close()
        assert (named.host, named.stays) == (source, destination)
        assert f"Host {source} does not answer" in named.lines[0]
        outcome = forced(moving)
    assert (outcome.end, outcome.runs_on) == (Phase.LOST, None), told(outcome)
    with connection.fresh(host_of(moving.group, destination)) as there:
        connection.find(there, moving.spec.id).create()
    late = comes_back(moving, source)
    assert (late.end, moving.place()) == (Phase.LOST, destination)
