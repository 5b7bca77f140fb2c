"""A helper process that answers, fails, hangs, and ends with the one who asks."""

from __future__ import annotations

import sys

import pytest

from refimpl.hosts.talk import Talk

ECHO = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"


def talk(program: str) -> Talk:
    return Talk([sys.executable, "-I", "-S", "-c", program])


def test_answers_come_in_order_however_long_they_are() -> None:
    helper = talk(ECHO)
    try:
        assert helper.ask({"n": 1, "text": "x" * 200_000}, 20)["text"] == "x" * 200_000
        assert [helper.ask({"n": n}, 20) for n in (2, 3)] == [{"n": 2}, {"n": 3}]
    finally:
        helper.close()


def test_a_helper_that_ends_says_its_last_words_and_no_more() -> None:
    helper = talk("import sys; sys.stdin.readline(); sys.exit('no room here')")
    try:
        with pytest.raises(OSError, match="status 1: no room here"):
            helper.ask({}, 20)
        with pytest.raises(OSError, match="no room here"):
            helper.ask({}, 20)
    finally:
        helper.close()


def test_a_late_answer_is_not_taken_for_the_next_one() -> None:
    helper = talk("import sys, signal\nsys.stdin.readline()\nsignal.pause()")
    try:
        with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
            helper.ask({"n": 1}, 0.05)
        with pytest.raises(OSError, match=r"within 0\.05 s"):
            helper.ask({"n": 2}, 20)
    finally:
        helper.close()


def test_words_that_are_no_answer_are_an_error_of_the_host() -> None:
    helper = talk("print('hello', flush=True); import sys; sys.stdin.read()")
    try:
        with pytest.raises(OSError, match="Expecting value"):
            helper.ask({}, 20)
    finally:
        helper.close()


def test_a_host_without_the_program_is_an_error_of_the_host() -> None:
    helper = Talk(["env", "no-such-program-here"])
    try:
        with pytest.raises(OSError, match="status 127"):
            helper.ask({}, 20)
    finally:
        helper.close()
