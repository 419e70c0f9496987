"""Quantiles of latencies: from exact values, or from the buckets of a histogram."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

from llmtop.loadgen.core.results import LatencySummary
from llmtop.loadgen.statistics.histogram import RESOLUTION, middle_s, quantiles
from llmtop.values import replace

SHARES = (0.50, 0.95, 0.99)
MAX_EXACT = 1_000_000  # values kept of each latency: 8 MB; a longer run is read from the histogram


def of_counts(
    counts: array[int], window_s: float | None = None, *, first: int = 0
) -> LatencySummary:
    """Out of a histogram's counts; of a whole run (window_s: None) with its mean and spread.

    first: the bucket of the first count.
    """
    (p50, p95, p99), n = quantiles(counts, SHARES, first)
    found = LatencySummary(p50, p95, p99, n, window_s, RESOLUTION)
    if window_s is not None or n == 0:
        return found
    pairs = [(middle_s(place), count) for place, count in enumerate(counts, first) if count]
    mean = math.fsum(value * count for value, count in pairs) / n
    variance = math.fsum((value - mean) ** 2 * count for value, count in pairs) / n
    return replace(
        found, mean=mean, minimum=pairs[0][0], maximum=pairs[-1][0], std=math.sqrt(variance)
    )


def of_values(values: Sequence[float]) -> LatencySummary:
    """Out of the values themselves, by nearest rank: each quantile is a value that occurred."""
    n = len(values)
    if n == 0:
        return LatencySummary(None, None, None, 0)
    ordered = sorted(values)
    p50, p95, p99 = (ordered[max(1, math.ceil(share * n)) - 1] for share in SHARES)
    mean = math.fsum(ordered) / n
    return LatencySummary(
        p50,
        p95,
        p99,
        n,
        mean=mean,
        minimum=ordered[0],
        maximum=ordered[-1],
        std=math.sqrt(math.fsum((value - mean) ** 2 for value in ordered) / n),
    )
