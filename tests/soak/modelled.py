"""What the model of the hand-over says of a soak's moves: each is explained, or not checked and why, or a violation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.handover_model.records import MOST_FAULTS, Judgement, Trace, Word, judge

if TYPE_CHECKING:
    from tests.soak.history import Played, Row

MODEL = "model"
MOST_STATES = 30_000
"""Moves that could have happened need fewer states at one moment; it takes some seconds to look at so many."""

TOO_MANY_STATES = f"no path was found, and not all were tried: more than {MOST_STATES:,} states at one moment"
TOO_MANY_FAULTS = f"no path was found with {MOST_FAULTS} faults, and more than that were drawn"


def check(played: Played, trace: Trace, not_modelled: str = "", faults: int = 1) -> None:
    """Say in a move's verdicts what the model says of it: explained, not checked and why, or a violation.

    `not_modelled`: why it is not checked at all; `faults`: how many it may have met.
    """
    said = Judgement(Word.NOT_CHECKED, not_modelled) if not_modelled else judge(trace, most_states=MOST_STATES)
    if said.word is Word.REFUSED and not said.whole:
        said = Judgement(Word.NOT_CHECKED, TOO_MANY_STATES)
    elif said.word is Word.REFUSED and faults > MOST_FAULTS:
        said = Judgement(Word.NOT_CHECKED, TOO_MANY_FAULTS)
    played.verdicts[MODEL] = str(said.word)
    if said.word is Word.EXPLAINED:
        played.verdicts[MODEL] += f", faults: {said.faults}"
    elif said.word is Word.NOT_CHECKED:
        played.verdicts[MODEL] += f": {said.why}"
    else:
        played.violated("not-modelled", said.why)


def lines(rows: Sequence[Row]) -> list[str]:
    """Return how many moves the model explains, and the others by their reason; none when no move was given to it."""
    said = Counter(row["verdicts"][MODEL] for row in rows if MODEL in row["verdicts"])
    if not said:
        return []
    ordered = sorted(said.items(), key=lambda one: (-one[1], one[0]))
    head = ["", "| by the model of the hand-over | moves |", "| --- | ---: |"]
    return [*head, *(f"| {what} | {count} |" for what, count in ordered)]
