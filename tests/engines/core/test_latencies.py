"""Histograms of latencies: quantiles within 1 %, differences, merging."""

from __future__ import annotations

import random

import pytest

from llmtop.engines.core.latencies import (
    RELATIVE_ERROR,
    LatencyHistogram,
    bucket_bounds,
    bucket_of,
)


def histogram(values: list[float]) -> LatencyHistogram:
    buckets: dict[int, int] = {}
    for value in values:
        buckets[bucket_of(value)] = buckets.get(bucket_of(value), 0) + 1
    return LatencyHistogram(len(values), sum(values), min(values), max(values), buckets)


@pytest.mark.parametrize("q", [0.5, 0.95, 0.99, 1.0])
def test_a_quantile_is_within_one_percent_of_the_true_one(q: float) -> None:
    rng = random.Random(7)
    values = sorted(rng.lognormvariate(-3, 1.5) for _ in range(4000))
    true = values[min(int(q * len(values) + 0.999999), len(values)) - 1]
    found = histogram(values).quantile(q)
    assert found == pytest.approx(true, rel=RELATIVE_ERROR)


def test_buckets_follow_each_other_without_a_gap() -> None:
    for index in range(3000):
        low, high = bucket_bounds(index)
        assert bucket_of(low) == bucket_of(high) == index
        assert bucket_of(high + 1e-6) == index + 1


def test_a_difference_has_only_what_came_since() -> None:
    before = histogram([0.010] * 90)
    after = before.merge(histogram([0.500] * 10))
    since = after.minus(before)
    assert since.count == 10
    assert since.quantile(0.5) == pytest.approx(0.5, rel=RELATIVE_ERROR)
    assert since.mean_s == pytest.approx(0.5)


def test_nothing_observed_has_no_quantile() -> None:
    assert LatencyHistogram(0, 0.0).quantile(0.5) is None
    assert LatencyHistogram(0, 0.0).mean_s is None


def test_ranks_are_merged() -> None:
    both = histogram([0.010] * 99).merge(histogram([2.0]))
    assert (both.count, both.min_s, both.max_s) == (100, 0.010, 2.0)
    assert both.quantile(0.99) == pytest.approx(0.010, rel=RELATIVE_ERROR)
    assert both.quantile(1.0) == 2.0
