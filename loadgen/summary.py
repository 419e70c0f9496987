"""Quantiles of what came back: from exact values, or from the buckets of a histogram."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

from llmtop.loadgen.histogram import RESOLUTION, quantiles
from llmtop.loadgen.results import LatencySummary

SHARES = (0.50, 0.95, 0.99)
MAX_EXACT = 1_000_000  # values kept of each latency: 8 MB; a longer run is told from the histogram


def of_counts(counts: array[int], window_s: float | None = None) -> LatencySummary:
    """Out of a histogram's counts."""
    (p50, p95, p99), n = quantiles(counts, SHARES)
    return LatencySummary(p50, p95, p99, n, window_s, RESOLUTION)


def of_values(values: Sequence[float]) -> LatencySummary:
    """Out of the values themselves, by nearest rank: each quantile is a value that occurred."""
    n = len(values)
    if n == 0:
        return LatencySummary(None, None, None, 0)
    ordered = sorted(values)
    p50, p95, p99 = (ordered[max(1, math.ceil(share * n)) - 1] for share in SHARES)
    return LatencySummary(p50, p95, p99, n)
