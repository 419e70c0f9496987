"""Cumulative histograms: merged over engines, laid side by side, and asked for quantiles honestly.

A bucket tells how many observations lie at or below its bound and nothing more. Where that does
not fix a quantile (the first bucket, the one without an upper bound) the answer says so instead of
interpolating: with a true queue time of zero, vLLM's first bound of 0.3 s would read "p50 150 ms".
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

from llmtop.engines.adapter import MetricText
from llmtop.engines.samples import BucketHistogram, Quantile, Quantiles


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
                bound = float(have["le"])
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
    """What was observed between ``old`` and ``new``; None when that cannot be told.

    It cannot when the bounds differ or anything went backwards: the engine was restarted.
    """
    if new.bounds != old.bounds:
        return None
    if new is old and new.counts:  # an idle engine's: nothing was observed
        return BucketHistogram(new.bounds, (0.0,) * len(new.counts), 0.0)
    counts = tuple(after - before for after, before in zip(new.counts, old.counts, strict=True))
    if not counts or counts[0] < 0 or any(low > high for low, high in pairwise(counts)):
        return None
    total = new.total - old.total
    # Sums are floats of millions of additions; only a fall beyond their rounding is a fall.
    if total < -1e-9 * max(abs(new.total), abs(old.total)):
        return None
    return BucketHistogram(new.bounds, counts, max(total, 0.0))


def quantile(hist: BucketHistogram, q: float) -> Quantile | None:
    """The quantile ``q`` (0..1): interpolated inside its bucket, or only bounded.

    In the first bucket it is "<" that bucket's bound, beyond the last finite bound it is ">" that.
    None when nothing was observed or no bound is finite.
    """
    if not hist.counts or hist.counts[-1] <= 0 or len(hist.bounds) < 2:
        return None
    rank = q * hist.counts[-1]
    index = next((i for i, count in enumerate(hist.counts) if count >= rank and count > 0), -1)
    upper = hist.bounds[index]
    if index == 0:
        return Quantile(upper, "<")
    lower = hist.bounds[index - 1]
    if math.isinf(upper):
        return Quantile(lower, ">")
    below = hist.counts[index - 1]
    inside = hist.counts[index] - below
    return Quantile(lower + (upper - lower) * max(0.0, rank - below) / inside)


def mean(hist: BucketHistogram) -> float | None:
    """Sum over count, seconds; None when nothing was observed."""
    return hist.total / hist.counts[-1] if hist.counts and hist.counts[-1] > 0 else None


def summary(hist: BucketHistogram, window_s: float) -> Quantiles:
    """The quantiles that are shown, of what was observed in ``window_s`` seconds."""
    return Quantiles(
        p50=quantile(hist, 0.50),
        p95=quantile(hist, 0.95),
        p99=quantile(hist, 0.99),
        mean=mean(hist),
        n=round(hist.counts[-1]) if hist.counts else 0,
        window_s=window_s,
    )


def _whole(counts: dict[float, float], total: float) -> BucketHistogram:
    bounds = tuple(sorted(counts))
    cumulative: list[float] = []
    for bound in bounds:
        # A well-behaved engine never goes down from bucket to bucket; a text is not to be trusted.
        cumulative.append(max(counts[bound], cumulative[-1] if cumulative else 0.0))
    return BucketHistogram(bounds, tuple(cumulative), total)
