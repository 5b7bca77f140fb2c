"""Bounded waiting for what nothing announces: looked at again and again, with a pause, until a time is over."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], bool], timeout_s: float, pause_s: float) -> bool:
    """Tell whether the condition came true within `timeout_s` seconds; it is looked at at the end of that time too."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(pause_s)
    return True
