"""From samples to a verdict: medians, a bootstrap interval, and what may be said of a bound.

Samples of a pair were taken one after the other, so their ratio is free of what the machine did meanwhile. The interval
is the percentile bootstrap of the median with a fixed seed: the same samples give the same interval. A bound is missed
only when the whole interval lies beyond it, and kept only when none of it does.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 20
LEAST = 5
"""Fewer samples than this say nothing about a bound, however close together they are."""


class Verdict(StrEnum):
    """What may be said of a bound. REPORTED: the figure has none."""

    KEPT = "kept"
    MISSED = "missed"
    NOT_DISTINGUISHABLE = "not distinguishable"
    REPORTED = "reported"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median with the interval in which it lies, and of how many samples."""

    median: float
    low: float
    high: float
    count: int


def estimate(samples: Sequence[float], *, seed: int = SEED, resamples: int = RESAMPLES) -> Estimate:
    """Return the median of samples with its bootstrap interval; ValueError when there are none."""
    if not samples:
        raise ValueError("no samples")
    chance = random.Random(seed)
    count = len(samples)
    medians = sorted(median(chance.choices(samples, k=count)) for _ in range(resamples))
    cut = round((1 - LEVEL) / 2 * resamples)
    return Estimate(median(samples), medians[cut], medians[-1 - cut], count)


def ratios(pairs: Iterable[tuple[float, float]]) -> list[float]:
    """Return the first of each pair as a multiple of the second."""
    return [ours / theirs for ours, theirs in pairs]


def judge(found: Estimate, at_most: float | None) -> Verdict:
    """Return what may be said of an upper bound."""
    if at_most is None:
        return Verdict.REPORTED
    if found.count < LEAST:
        return Verdict.NOT_DISTINGUISHABLE
    if found.high <= at_most:
        return Verdict.KEPT
    return Verdict.MISSED if found.low > at_most else Verdict.NOT_DISTINGUISHABLE
