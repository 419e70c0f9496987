"""Cumulative histograms: sums over engines, differences, and quantiles.

A bucket only counts the observations at or below its bound. If that does not determine a quantile,
the answer is a range or a bound, not an interpolated number: for a true queue time of zero, vLLM's
first bound of 0.3 s would give "p50 150 ms".
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import sub

from llmtop.engines.core.adapter import MetricText
from llmtop.engines.core.samples import BucketHistogram, Latency, Quantile, Quantiles
from llmtop.values import replace

# A bucket wider than this share of its lower bound is a range. In a narrower one, all values are
# within 25 % of each other.
WIDE = 0.25
# With fewer observations, the nearest rank is the largest observation: the maximum.
FEWEST_P95 = 20
FEWEST_P99 = 100
_Series = Sequence[tuple[Mapping[str, str], float]]
_ROUNDING = 1e-9  # 0.1 - 0.08 is more than 0.02 in floats


def histogram(text: MetricText, name: str, **labels: str) -> BucketHistogram | None:
    """The histogram called ``name``, merged over all its series whose labels match.

    Each data-parallel engine has its own series. None without a complete series.
    """
    wanted = labels.items()
    sums = [one for one in text.series(f"{name}_sum") if wanted <= one[0].items()]
    buckets = text.series(f"{name}_bucket")
    if len(sums) == 1:
        (own, total), counts = sums[0], dict[float, float]()
        items, size = own.items(), len(own) + 1
        for have, value in buckets:  # those that have the labels of the sum, and a bound
            if len(have) == size and items <= have.items():
                bound = _bound(have.get("le", ""))
                if bound is not None:
                    counts[bound] = value
        return _whole(counts, total) if math.inf in counts else None
    return _merged(sums, buckets)


def _merged(sums: _Series, buckets: _Series) -> BucketHistogram | None:
    """Of several series each, by the labels that a sum and its buckets have in common."""
    totals = {frozenset(have.items()): value for have, value in sums}
    parts: dict[frozenset[tuple[str, str]], dict[float, float]] = {}
    for have, value in buckets:
        rest = frozenset(item for item in have.items() if item[0] != "le")
        bound = _bound(have.get("le", ""))
        if bound is not None and rest in totals:
            parts.setdefault(rest, {})[bound] = value
    return merge(
        _whole(counts, totals[rest]) for rest, counts in parts.items() if math.inf in counts
    )


@lru_cache(maxsize=1024)
def _bound(text: str) -> float | None:
    """The bound of a bucket; None for what is none."""
    try:
        # Python also accepts digits of other scripts.
        bound = float(text) if text.isascii() else math.nan
    except ValueError:
        return None
    return None if math.isnan(bound) else bound


def merge(histograms: Iterable[BucketHistogram]) -> BucketHistogram | None:
    """The sum of histograms, on their common bounds; None without histograms.

    Counts are cumulative, so a bound that is missing in one of them can be dropped exactly.
    """
    parts = list(histograms)
    if len(parts) <= 1:
        return parts[0] if parts else None
    total = sum(part.total for part in parts)
    if all(part.bounds == parts[0].bounds for part in parts):
        counts = tuple(sum(column) for column in zip(*(part.counts for part in parts), strict=True))
        return BucketHistogram(parts[0].bounds, counts, total)
    common = set(parts[0].bounds).intersection(*(part.bounds for part in parts[1:]))
    bounds = tuple(sorted(common))
    tables = [dict(zip(part.bounds, part.counts, strict=True)) for part in parts]
    counts = tuple(sum(table[bound] for table in tables) for bound in bounds)
    return BucketHistogram(bounds, counts, total)


def difference(new: BucketHistogram, old: BucketHistogram) -> BucketHistogram | None:
    """The observations between ``old`` and ``new``; None if unknown.

    It is unknown when the bounds differ or a count decreased: the engine was restarted.
    """
    if new.bounds != old.bounds:
        return None
    if new is old and new.counts:  # an idle engine
        return empty(new)
    counts = tuple(map(sub, new.counts, old.counts))
    if not counts or counts[0] < 0 or list(counts) != sorted(counts):
        return None
    total = new.total - old.total
    # Sums are floats after millions of additions: ignore a decrease within their rounding.
    if total < -1e-9 * max(abs(new.total), abs(old.total)):
        return None
    return BucketHistogram(new.bounds, counts, max(total, 0.0))


def quantile(hist: BucketHistogram, q: float) -> Quantile | None:
    """The quantile ``q`` (0..1) by nearest rank: the smallest value with that share at or below it.

    Interpolated in a bucket at most a quarter wider than its lower bound. Else the bucket is the
    answer: a range, "<" in the first bucket, ">" above the last finite bound. None without
    observations or without a finite bound.
    """
    if not hist.counts or hist.counts[-1] <= 0 or len(hist.bounds) < 2:
        return None
    # 0.95 of 100 must not become rank 96 by rounding.
    rank = max(1.0, math.ceil(q * hist.counts[-1] * (1 - _ROUNDING)))
    index = min(bisect_left(hist.counts, rank), len(hist.counts) - 1)  # they are cumulative
    upper = hist.bounds[index]
    if index == 0:
        return Quantile(upper, "<")
    lower = hist.bounds[index - 1]
    if math.isinf(upper):
        return Quantile(lower, ">")
    if lower <= 0:
        return Quantile(upper, "<")
    if upper - lower > WIDE * lower * (1 + _ROUNDING):
        return Quantile(lower, "-", upper)
    below = hist.counts[index - 1]
    inside = hist.counts[index] - below
    return Quantile(lower + (upper - lower) * max(0.0, rank - below) / inside)


def mean(hist: BucketHistogram) -> float | None:
    """Sum over count, seconds; None without observations."""
    return hist.total / hist.counts[-1] if hist.counts and hist.counts[-1] > 0 else None


def summary(hist: BucketHistogram, window_s: float) -> Quantiles:
    """The displayed quantiles of the observations in ``window_s`` seconds.

    Below 20 observations there is no p95, below 100 no p99.
    """
    n = round(hist.counts[-1]) if hist.counts else 0
    return Quantiles(
        p50=quantile(hist, 0.50),
        p95=quantile(hist, 0.95) if n >= FEWEST_P95 else None,
        p99=quantile(hist, 0.99) if n >= FEWEST_P99 else None,
        mean=mean(hist),
        n=n,
        window_s=window_s,
    )


def possible(latencies: Mapping[Latency, Quantiles]) -> dict[Latency, Quantiles]:
    """Removes a contradiction: a queue time cannot exceed the TTFT.

    Engines record the queue time when a request ends, and the TTFT at its first token. So one
    window has two sets of requests. If their quantiles contradict, the queue's becomes unknown: the
    TTFT is the recent one.
    """
    queue, ttft = latencies.get(Latency.QUEUE), latencies.get(Latency.TTFT)
    if queue is None or ttft is None:
        return dict(latencies)
    kept = replace(
        queue,
        p50=_not_beyond(queue.p50, ttft.p50),
        p95=_not_beyond(queue.p95, ttft.p95),
        p99=_not_beyond(queue.p99, ttft.p99),
    )
    return {**latencies, Latency.QUEUE: kept}


def _not_beyond(part: Quantile | None, whole: Quantile | None) -> Quantile | None:
    if part is None or whole is None or whole.at_most is None:
        return part
    # Values in a bucket are above its lower bound, so a range that begins at the other's end is
    # greater.
    beyond = part.at_least > whole.at_most or (
        part.at_least == whole.at_most and part.value is None
    )
    return None if beyond else part


def empty(like: BucketHistogram) -> BucketHistogram:
    """The same histogram before its first observation."""
    return BucketHistogram(like.bounds, (0.0,) * len(like.counts), 0.0)


def _whole(counts: dict[float, float], total: float) -> BucketHistogram:
    bounds = tuple(sorted(counts))
    cumulative: list[float] = []
    for bound in bounds:
        # Cumulative counts must not decrease, but the text is not trusted.
        cumulative.append(max(counts[bound], cumulative[-1] if cumulative else 0.0))
    return BucketHistogram(bounds, tuple(cumulative), total)
