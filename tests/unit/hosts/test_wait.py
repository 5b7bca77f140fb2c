"""Waiting ends with the condition, or with its time; a lock is held by one at a time."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from refimpl.hosts.lock import locked
from refimpl.hosts.wait import until


def test_it_looks_again_until_the_condition_holds() -> None:
    answers = iter([False, False, True])
    assert until(lambda: next(answers), 60, 0)
    assert next(answers, None) is None


def test_without_time_it_looks_once() -> None:
    looks: list[bool] = []
    assert not until(lambda: looks.append(True) or False, 0, 0)
    assert looks == [True]


def test_a_lock_is_held_inside_and_free_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path), path.open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
