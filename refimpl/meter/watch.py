"""Wait until a guest has said something, by looking at its files again and again, with a deadline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from refimpl.hosts.wait import until
from refimpl.meter.lines import JoinedLog, read_log

_PAUSE_S = 0.1


def wait_for_log(
    files: Mapping[str, Path], condition: Callable[[JoinedLog], bool], *, what: str, timeout_s: float
) -> JoinedLog:
    """Return the first log that fulfils the condition; TimeoutError, which names `what`, when none does in time."""
    log = read_log(files)

    def seen() -> bool:
        nonlocal log
        log = read_log(files)
        return condition(log)

    if not until(seen, timeout_s, _PAUSE_S):
        raise TimeoutError(f"{what} was not seen within {timeout_s:g} s ({len(log.lines)} lines so far)")
    return log


def has(kind: str, *, count: int = 1) -> Callable[[JoinedLog], bool]:
    """Return a condition: at least so many lines of a kind."""
    return lambda log: len(log.of_kind(kind)) >= count


def whole_check_after(boot: str, sequence: int) -> Callable[[JoinedLog], bool]:
    """Return a condition: a check of the whole working set was begun and ended after that line."""

    def condition(log: JoinedLog) -> bool:
        started = {line.fields[0] for line in log.of_kind("check-start", boot=boot) if line.sequence > sequence}
        return any(line.fields[0] in started for line in log.of_kind("check-end", boot=boot))

    return condition
