"""From samples to a verdict: the interval is the same each time, and only a whole interval decides."""

from __future__ import annotations

import pytest

from tests.bench.statistics import LEAST, Estimate, Verdict, estimate, judge, ratios

SAMPLES = [1.0, 1.2, 0.9, 1.1, 1.05, 0.95, 1.3, 1.0, 1.15, 0.85]


def test_the_same_samples_give_the_same_interval_and_another_seed_hardly_another():
    first = estimate(SAMPLES)
    assert first == estimate(SAMPLES)
    other = estimate(SAMPLES, seed=7)
    assert abs(first.low - other.low) <= 0.05
    assert abs(first.high - other.high) <= 0.05


def test_the_median_is_of_the_samples_and_inside_its_interval():
    found = estimate(SAMPLES)
    assert found.median == pytest.approx(1.025)
    assert found.low <= found.median <= found.high
    assert found.count == 10


def test_the_interval_is_that_of_the_percentiles():
    # Of two samples three medians are possible, with chances 1/4, 1/2, 1/4: the interval is the outer ones.
    found = estimate([1.0, 2.0])
    assert (found.low, found.median, found.high) == (1.0, 1.5, 2.0)
    # One in twenty is too rare to be the median of a resample in one of forty.
    assert estimate([1.0] * 19 + [100.0]).high == 1.0


def test_more_samples_of_the_same_spread_give_a_narrower_interval():
    few, many = estimate(SAMPLES), estimate(SAMPLES * 10)
    assert many.high - many.low < few.high - few.low


def test_without_samples_there_is_no_figure():
    with pytest.raises(ValueError, match="no samples"):
        estimate([])


def test_a_ratio_is_of_a_pair():
    assert ratios([(3.0, 2.0), (1.0, 4.0)]) == [1.5, 0.25]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.9, 1.05, Verdict.KEPT),
        (0.9, 1.0501, Verdict.NOT_DISTINGUISHABLE),
        (1.05, 1.2, Verdict.NOT_DISTINGUISHABLE),
        (1.0501, 1.2, Verdict.MISSED),
    ],
)
def test_a_bound_is_missed_or_kept_only_by_the_whole_interval(low, high, verdict):
    assert judge(Estimate((low + high) / 2, low, high, 20), 1.05) is verdict


def test_without_a_bound_nothing_is_judged():
    assert judge(Estimate(9.0, 8.0, 10.0, 20), None) is Verdict.REPORTED


@pytest.mark.parametrize(("count", "verdict"), [(LEAST - 1, Verdict.NOT_DISTINGUISHABLE), (LEAST, Verdict.MISSED)])
def test_too_few_samples_decide_nothing(count, verdict):
    assert judge(Estimate(2.0, 2.0, 2.0, count), 1.0) is verdict
