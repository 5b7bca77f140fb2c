"""Steps of a long piece of work, timed and told to whoever asked."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from refimpl.hosts.stops import stop_point

OnStep = Callable[[str, float], None]


def no_report(_name: str, _seconds: float) -> None:
    """Take the time of a step and do nothing with it."""


@dataclass(slots=True)
class Steps:
    """Times the steps of a long piece of work; after each there is a stop point of its name (tests only)."""

    on_step: OnStep = no_report

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what is done inside, in seconds; a step that fails is not reported."""
        begin = time.perf_counter()
        yield
        self.on_step(name, time.perf_counter() - begin)
        stop_point(name)
