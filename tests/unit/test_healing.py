"""What the tests share heals after one that spoilt it, visibly; and a failed test is not blamed twice."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

SHARED = """
from contextlib import contextmanager
import pytest
from tests.healing import Healing

made, given_up = [], []

@contextmanager
def make():
    made.append([])
    yield made[-1]

def look(thing):
    assert thing == [], "not empty"

@pytest.fixture(scope="session")
def things():
    things = Healing("the thing", make, look, given_up.append)
    yield things
    things.close()

@pytest.fixture
def thing(things, request):
    with things.lent(request.node) as thing:
        assert thing == []
        yield thing
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return Run(pytester)


class Run:
    """Runs tests of their own, with what these tests here share."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester

    def __call__(self, tests: str, **outcomes: int) -> str:
        """Run them; so many have to pass, fail and have errors. Return what was printed."""
        # Else a configuration that lies above would count.
        self._pytester.makeini("[pytest]")
        self._pytester.makepyfile(test_inner=tests)
        done = self._pytester.runpytest_inprocess("-p", "tests.conftest", "-p", "no:cacheprovider")
        counts = done.parseoutcomes()
        assert {word: counts.get(word, 0) for word in ("passed", "failed", "errors")} == {
            "passed": 0,
            "failed": 0,
            "errors": 0,
            **outcomes,
        }
        return done.stdout.str()


def test_a_test_that_fails_and_leaves_a_mess_costs_the_next_one_nothing_and_it_is_said(run: Run) -> None:
    inner = """
def test_breaks(thing):
    thing.append("mess")
    assert False, "on purpose"

def test_next(thing):
    assert (len(made), given_up) == (2, [["mess"]])

def test_the_one_after(thing):
    assert len(made) == 2
"""
    said = run(SHARED + inner, passed=2, failed=1, errors=1)
    assert "the thing is made anew for test_inner.py::test_next, as test_inner.py::test_breaks left it unfit" in said
    assert said.count("made anew") == 1
    assert "AssertionError: not empty" in said


def test_a_test_that_passes_and_leaves_a_mess_fails_when_it_is_torn_down(run: Run) -> None:
    inner = """
def test_leaves(thing):
    thing.append("mess")

def test_next(thing):
    assert len(made) == 2
"""
    said = run(SHARED + inner, passed=2, errors=1)
    assert "ERROR at teardown of test_leaves" in said
    assert "as test_inner.py::test_leaves left it unfit: AssertionError: not empty" in said


def test_a_test_that_fails_and_leaves_all_in_order_is_no_reason_to_heal(run: Run) -> None:
    inner = """
def test_fails(thing):
    assert False, "on purpose"

def test_next(thing):
    assert len(made) == 1
"""
    assert "made anew" not in run(SHARED + inner, passed=1, failed=1)


def test_what_broke_between_two_tests_fails_the_one_that_finds_it(run: Run) -> None:
    inner = """
def test_first(thing):
    pass

def test_meanwhile():
    made[0].append("mess")

def test_finds(thing):
    pass

def test_next(thing):
    assert len(made) == 2
"""
    said = run(SHARED + inner, passed=3, errors=1)
    assert "ERROR at setup of test_finds" in said
    assert "as test_inner.py::test_finds left it unfit" in said


def test_what_cannot_be_made_is_tried_again(run: Run) -> None:
    inner = """
attempts = []

@contextmanager
def make():
    attempts.append(1)
    assert len(attempts) > 1, "no room"
    yield []

def test_first(thing):
    pass

def test_next(thing):
    assert len(attempts) == 2
"""
    said = run(SHARED + inner, passed=1, errors=1)
    assert "it could not be made" in said


MARKED = """
import pytest
from refimpl.model import errors
"""


def test_a_marked_error_that_is_not_met_fails_a_test_that_passed(run: Run) -> None:
    inner = """
@pytest.mark.error("host.down")
def test_meets_nothing():
    pass

@pytest.mark.error("host.down")
def test_meets_it():
    errors.entry("host.down")
"""
    assert "errors that it did not meet: ['host.down']" in run(MARKED + inner, passed=2, errors=1)


def test_a_marked_test_that_fails_itself_or_before_has_no_second_error(run: Run) -> None:
    inner = """
@pytest.fixture
def broken():
    assert False, "on purpose"

@pytest.mark.error("host.down")
def test_fails():
    assert False, "on purpose"

@pytest.mark.error("host.down")
def test_cannot_begin(broken):
    pass
"""
    assert "did not meet" not in run(MARKED + inner, failed=1, errors=1)
