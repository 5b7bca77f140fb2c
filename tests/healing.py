"""Something dear that many tests share, one after the other, and that is made anew when one of them has spoilt it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Generic, TypeVar

import pytest

T = TypeVar("T")


class Healing(Generic[T]):
    """Lends one thing to test after test, and looks after each whether the thing is as it has to be.

    A look that finds it otherwise fails the test that left it so. Only then the next test is given a new one, and
    pytest's summary has a warning that names the test before. `give_up` is told of the old one before it is put away.
    """

    def __init__(
        self,
        what: str,
        make: Callable[[], AbstractContextManager[T]],
        look: Callable[[T], None],
        give_up: Callable[[T], None] = lambda _: None,
    ) -> None:
        self._what = what
        self._make = make
        self._look = look
        self._give_up = give_up
        self._stack = ExitStack()
        self._things: list[T] = []
        self._spoilt_by = ""
        self._fault = ""

    @contextmanager
    def lent(self, test: pytest.Item) -> Iterator[T]:
        """Lend it to a test until the block ends."""
        if self._spoilt_by:
            self._throw_away(test)
        # Until the look at the end has found it good, it is taken to be spoilt.
        self._spoilt_by, self._fault = test.nodeid, "it could not be made, or not be looked at"
        if not self._things:
            self._things.append(self._stack.enter_context(self._make()))
        (thing,) = self._things
        try:
            yield thing
            self._look(thing)
        except BaseException as fault:
            self._fault = f"{type(fault).__name__}: {fault}".partition("\n")[0]
            raise
        self._spoilt_by = ""

    def close(self) -> None:
        """Put it away; what a test has spoilt is given up before."""
        with ExitStack() as put_away:
            put_away.callback(self._stack.close)
            things, self._things = self._things, []
            for thing in things if self._spoilt_by else ():
                self._give_up(thing)

    def _throw_away(self, test: pytest.Item) -> None:
        said = f"{self._what} is made anew for {test.nodeid}, as {self._spoilt_by} left it unfit: {self._fault}"
        warnings.warn(pytest.PytestWarning(said), stacklevel=1)
        try:
            self.close()
        except BaseException:
            self._spoilt_by, self._fault = test.nodeid, "the one before could not be put away"
            raise
