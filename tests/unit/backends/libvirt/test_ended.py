"""How a QEMU ended: what the kernel tells of a real process, and what a log of libvirt's shows."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from refimpl.backends.libvirt import ended
from refimpl.hosts.channel import Completed
from tests.unit.backends.libvirt.recorded import FakeChannel

QEMUS_ABORT = "qemu-system-x86_64: util/yank.c:107: yank_unregister_instance: Assertion `x' failed"
LOG = f"""-msg timestamp=on
2026-11-24 12:17:03.269+0000: initiating migration
2026-11-24T12:17:03.374053Z qemu-system-x86_64: an older one
2026-11-24 12:18:03.269+0000: initiating migration
2026-11-24T12:18:03.374053Z qemu-system-x86_64: Unable to write to socket: Broken pipe
{QEMUS_ABORT}.
2026-11-24 12:18:04.068+0000: shutting down, reason=crashed
"""


@contextmanager
def process() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that ends when its standard input does, and a pidfd of it."""
    with subprocess.Popen(["sh", "-c", "read line; exit 3"], stdin=subprocess.PIPE, text=True) as running:
        pidfd = os.pidfd_open(running.pid)
        try:
            yield running, pidfd
        finally:
            os.close(pidfd)
            running.kill()


def told(pidfd: int) -> str:
    said = ended.how(pidfd)
    if not said:
        pytest.skip("this kernel does not tell the exit of a process by its pidfd (Linux 6.15 does)")
    return said


def test_the_signal_that_ended_a_process_is_told() -> None:
    with process() as (running, pidfd):
        running.send_signal(signal.SIGABRT)
        running.wait()
        assert told(pidfd) == "by SIGABRT"


def test_the_status_of_a_process_that_ended_by_itself_is_told() -> None:
    with process() as (running, pidfd):
        running.communicate("end\n")
        assert told(pidfd) == "with status 3"


def test_of_a_process_that_runs_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended, "REAPED_TIMEOUT_MS", 1)
    with process() as (_, pidfd):
        assert ended.how(pidfd) == ""


def test_a_kernel_that_tells_nothing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended, "PIDFD_GET_INFO", 0)
    with process() as (running, pidfd):
        running.kill()
        running.wait()
        assert ended.how(pidfd) == ""


def test_the_end_of_a_process_is_waited_for_and_of_one_that_writes_its_core_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with process() as (running, pidfd):
        ended.await_end(pidfd, 1)
        assert running.poll() is None, "it runs, and is not waited for"
        monkeypatch.setattr(ended, "_dumps_core", lambda fd: fd == pidfd)
        monkeypatch.setattr(ended, "CORE_TIMEOUT_MS", 1)
        ended.await_end(pidfd, 1)
        assert running.poll() is None, "nor without an end"
        monkeypatch.setattr(ended, "CORE_TIMEOUT_MS", 30_000)
        assert running.stdin is not None
        running.stdin.close()
        ended.await_end(pidfd, 0)
        assert running.wait(0) == 3


def test_whether_a_process_writes_its_core_is_read_from_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    with process() as (running, pidfd):
        assert not ended._dumps_core(pidfd)
        real = Path.read_text
        status = f"/proc/{running.pid}/status"

        def dumping(path: Path) -> str:
            return real(path).replace("CoreDumping:\t0", "CoreDumping:\t1") if str(path) == status else real(path)

        monkeypatch.setattr(Path, "read_text", dumping)
        assert ended._dumps_core(pidfd)
        monkeypatch.undo()
        running.kill()
        running.wait()
        assert not ended._dumps_core(pidfd)
    assert not ended._dumps_core(-1)


def test_the_last_words_are_qemus_and_of_the_last_migration() -> None:
    assert ended.words(LOG) == QEMUS_ABORT
    assert ended.words(LOG.replace(QEMUS_ABORT + ".\n", "")) == (
        "qemu-system-x86_64: Unable to write to socket: Broken pipe"
    )
    silent = LOG + "2026-11-24 12:19:03.269+0000: initiating migration\n"
    assert ended.words(silent) == ""
    assert ended.words("") == ended.words(QEMUS_ABORT) == ""
    assert len(ended.words(LOG.replace("Assertion", "A" * 999))) == ended.MOST_WORDS


def test_a_log_that_cannot_be_read_is_no_error() -> None:
    channel = FakeChannel(answers={"tail": Completed(0, LOG, "")})
    assert ended.last_words(channel, "web") == QEMUS_ABORT
    assert channel.commands == [["tail", "-n", "40", "/var/log/libvirt/qemu/web.log"]]
    channel.answers["tail"] = Completed(1, LOG, "tail: cannot open")
    assert ended.last_words(channel, "web") == ""
    channel.down = True
    assert ended.last_words(channel, "web") == ""


def test_the_reason_says_what_is_known_and_no_more() -> None:
    assert ended.reason("by SIGABRT", QEMUS_ABORT) == f"its QEMU ended by SIGABRT and said last: {QEMUS_ABORT}"
    assert ended.reason("", "") == "its QEMU ended"
