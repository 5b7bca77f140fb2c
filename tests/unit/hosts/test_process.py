"""Processes are told apart by pid, start time and boot id, and ended only when they are exactly the one meant."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from refimpl.hosts import process


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(["cat"], stdin=subprocess.PIPE, env={"A_VARIABLE": "abc123", "OTHER": ""})
    yield started
    started.kill()
    started.communicate()


def test_a_running_process_is_alive_and_has_one_reference(child: subprocess.Popen[bytes]) -> None:
    assert process.alive(process.here(child.pid))
    assert process.here(child.pid) == process.here(child.pid)


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "another-boot"}])
def test_a_reused_pid_is_another_process_and_is_not_touched(
    child: subprocess.Popen[bytes], change: dict[str, int | str]
) -> None:
    other = replace(process.here(child.pid), **change)  # type: ignore[arg-type]
    assert not process.alive(other)
    assert not process.send_signal(other, signal.SIGKILL)
    assert process.kill(other)
    assert process.alive(process.here(child.pid))


def test_kill_ends_it_and_waits(child: subprocess.Popen[bytes]) -> None:
    ref = process.here(child.pid)
    assert process.kill(ref)
    assert not process.alive(ref)
    assert process.wait_gone(ref, 0)


def test_waiting_for_one_that_stays_says_so(child: subprocess.Popen[bytes]) -> None:
    assert not process.wait_gone(process.here(child.pid), 0)


def test_a_zombie_is_not_alive() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessLookupError):
        process.here(pid)
    os.waitpid(pid, 0)


def test_a_variable_is_found_by_its_whole_name(child: subprocess.Popen[bytes]) -> None:
    assert process.environment_value(child.pid, "A_VARIABLE") == "abc123"
    assert process.environment_value(child.pid, "OTHER") == ""
    assert process.environment_value(child.pid, "LAB") is None
    assert process.environment_value(child.pid, "REFIMPL_LA") is None


def test_nothing_is_known_of_a_pid_that_does_not_exist() -> None:
    with pytest.raises(ProcessLookupError):
        process.here(2**22 + 1)
    assert process.environment_value(2**22 + 1, "PATH") is None
    assert process.inner_pid(2**22 + 1) is None
    assert process.namespace_inode(2**22 + 1, "net") is None


def test_without_a_pid_namespace_inside_and_outside_agree(child: subprocess.Popen[bytes]) -> None:
    assert process.inner_pid(child.pid) == child.pid


def test_a_process_in_the_middle_of_an_exec_keeps_its_variables() -> None:
    again = 'n=$1; [ "$n" = 0 ] && exec cat; exec sh -c "$0" "$0" $((n - 1))'
    started = subprocess.Popen(["sh", "-c", again, again, "300"], stdin=subprocess.PIPE, env={"A_VARIABLE": "abc123"})
    seen: set[str | None] = set()
    try:
        while Path(f"/proc/{started.pid}/comm").read_text() != "cat\n":
            seen.add(process.environment_value(started.pid, "A_VARIABLE"))
    finally:
        started.kill()
        started.communicate()
    assert seen == {"abc123"}
