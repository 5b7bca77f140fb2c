"""The guest's memory after a move, judged by the checks that it goes on making of its own working set.

Each page carries its number, generation, content made from both, and a checksum; the guest knows which generation each
page has to have, and looks at a page also before it writes it again. A page that was lost, torn, or came from an
earlier pass is seen. Only a whole pass that began after the move says that all of it is well.
"""

from __future__ import annotations

from refimpl.meter.lines import JoinedLog, Line
from refimpl.meter.verdict import State, Verdict, not_measured

NAME = "memory"


def memory_verdict(log: JoinedLog, boot: str, after_sequence: int) -> Verdict:
    """Judge what the guest found after the line number `after_sequence` (the last line it wrote at the source).

    Bad as soon as one bad page was found; ok only with at least one whole pass begun after that line.
    """
    later = [line for line in log.lines if line.boot == boot and line.sequence > after_sequence]
    bad_pages = [line for line in later if line.kind == "bad-page"]
    ended = [line for line in later if line.kind == "check-end"]
    bad = max((int(line.fields[2]) for line in ended), default=0) or len({line.fields[0] for line in bad_pages})
    started = {line.fields[0] for line in later if line.kind == "check-start"}
    whole = [line for line in ended if line.fields[0] in started]
    figures = {"pages": _pages(ended), "whole_checks": len(whole), "bad_pages": bad}
    if bad:
        return Verdict(NAME, State.BAD, _describe(bad, bad_pages, ended), figures)
    if not whole:
        return not_measured(NAME, "no check of the whole working set was begun and ended after the move", **figures)
    return Verdict(NAME, State.OK, f"{_pages(whole)} pages checked {len(whole)} times, none bad", figures)


def _pages(ended: list[Line]) -> int:
    return int(ended[-1].fields[1]) if ended else 0


def _describe(bad: int, bad_pages: list[Line], ended: list[Line]) -> str:
    if bad_pages:
        number, expected, found, address = bad_pages[0].fields[:4]
        return (
            f"{bad} pages bad; page {number} at guest-physical {address} should hold generation {expected}, "
            f"its header says {found}"
        )
    return f"{bad} pages bad, the first is page {next(line.fields[3] for line in ended if line.fields[3] != '-')}"
