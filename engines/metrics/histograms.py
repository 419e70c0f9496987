"""Cumulative histograms: merged over engines, laid side by side, and asked for quantiles honestly.

A bucket says how many observations lie at or below its bound and nothing more. Where that does
not fix a quantile the answer is a range or a bound, never an interpolated number: with a true queue
time of zero, vLLM's first bound of 0.3 s would read "p50 150 ms".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise

from llmtop.engines.core.adapter import MetricText
from llmtop.engines.core.samples import BucketHistogram, Latency, Quantile, Quantiles
from llmtop.values import replace

# A bucket this much wider than its lower bound is a range. Narrower, every value in it is
# within a quarter of every other.
WIDE = 0.25
# Of fewer, the nearest rank is the largest observation: a maximum under another name.
FEWEST_P95 = 20
FEWEST_P99 = 100
_ROUNDING = 1e-9  # 0.1 - 0.08 is more than 0.02 in floats


def histogram(text: MetricText, name: str, **labels: str) -> BucketHistogram | None:
    """The histogram called ``name``, merged over all its series whose labels match.

    Data-parallel engines each have a series of their own. None when there is none that is whole.
    """
    wanted = labels.items()
    sums: dict[frozenset[tuple[str, str]], float] = {}
    for have, value in text.series(f"{name}_sum"):
        if wanted <= have.items():
            sums[frozenset(have.items())] = value
    buckets: dict[frozenset[tuple[str, str]], dict[float, float]] = {}
    for have, value in text.series(f"{name}_bucket"):
        if wanted <= have.items():
            rest = frozenset(item for item in have.items() if item[0] != "le")
            try:
                # Digits of other scripts are numbers to Python alone.
                bound = float(have["le"]) if have["le"].isascii() else math.nan
            except (KeyError, ValueError):
                continue
            if not math.isnan(bound):
                buckets.setdefault(rest, {})[bound] = value
    return merge(
        _whole(counts, sums[rest])
        for rest, counts in buckets.items()
        if rest in sums and math.inf in counts
    )


def merge(histograms: Iterable[BucketHistogram]) -> BucketHistogram | None:
    """All of them as one, on the bounds that all of them have; None when there are none.

    Counts are cumulative, so a bound that one of them lacks is dropped without losing exactness.
    """
    parts = list(histograms)
    if len(parts) <= 1:
        return parts[0] if parts else None
    common = set(parts[0].bounds).intersection(*(part.bounds for part in parts[1:]))
    bounds = tuple(sorted(common))
    tables = [dict(zip(part.bounds, part.counts, strict=True)) for part in parts]
    counts = tuple(sum(table[bound] for table in tables) for bound in bounds)
    return BucketHistogram(bounds, counts, sum(part.total for part in parts))


def difference(new: BucketHistogram, old: BucketHistogram) -> BucketHistogram | None:
    """What was observed between ``old`` and ``new``; None when that is unknown.

    It cannot when the bounds differ or anything went backwards: the engine was restarted.
    """
    if new.bounds != old.bounds:
        return None
    if new is old and new.counts:  # an idle engine's: nothing was observed
        return empty(new)
    counts = tuple(after - before for after, before in zip(new.counts, old.counts, strict=True))
    if not counts or counts[0] < 0 or any(low > high for low, high in pairwise(counts)):
        return None
    total = new.total - old.total
    # Sums are floats of millions of additions; only a fall beyond their rounding is a fall.
    if total < -1e-9 * max(abs(new.total), abs(old.total)):
        return None
    return BucketHistogram(new.bounds, counts, max(total, 0.0))


def quantile(hist: BucketHistogram, q: float) -> Quantile | None:
    """The quantile ``q`` (0..1) by nearest rank: the smallest value with that share at or below it.

    Interpolated in a bucket no wider than a quarter of its lower bound; else the bucket is the
    answer: a range, "<" in the first bucket, ">" beyond the last finite bound. None when nothing
    was observed or no bound is finite.
    """
    if not hist.counts or hist.counts[-1] <= 0 or len(hist.bounds) < 2:
        return None
    # 0.95 of 100 must not become rank 96 by rounding.
    rank = max(1.0, math.ceil(q * hist.counts[-1] * (1 - _ROUNDING)))
    index = next((i for i, count in enumerate(hist.counts) if count >= rank), -1)
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
    """Sum over count, seconds; None when nothing was observed."""
    return hist.total / hist.counts[-1] if hist.counts and hist.counts[-1] > 0 else None


def summary(hist: BucketHistogram, window_s: float) -> Quantiles:
    """The quantiles that are shown, of what was observed in ``window_s`` seconds.

    Of fewer than 20 observations there is no p95, of fewer than 100 no p99.
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
    """Without what contradicts itself: a request cannot wait longer than until its first token.

    Engines note a request's time in the queue when it ends and its TTFT when its first token is
    there, so one window holds two sets of requests. Where the two then look impossible side by
    side, the queue's quantile is unknown: TTFT is the one of now.
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
    # What lies in a bucket is above its lower bound: a range that begins at the other's end is
    # beyond it.
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
        # A well-behaved engine never goes down from bucket to bucket; a text is not to be trusted.
        cumulative.append(max(counts[bound], cumulative[-1] if cumulative else 0.0))
    return BucketHistogram(bounds, tuple(cumulative), total)
