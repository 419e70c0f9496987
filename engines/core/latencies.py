"""Exact latencies of an engine's requests: log-linear histograms with buckets of at most 0.8 %."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate

from msgspec import Struct, field

NAMES = ("ttft", "queue", "prefill", "tpot", "e2e", "itl", "arrival_lag", "output_lag")
"""What a plugin can measure (docs/reference/live-socket.md)."""
SUB_BUCKETS = 128  # for each power of two from 128 us on; below, one bucket for each microsecond
RELATIVE_ERROR = 0.01
"""The largest relative error of a quantile."""


class LatencyHistogram(Struct, frozen=True):
    """One distribution of latencies, in seconds. buckets: bucket index -> observations.

    min_s, max_s: None without observations, or for a difference of two states.
    """

    count: int
    sum_s: float
    min_s: float | None = None
    max_s: float | None = None
    buckets: Mapping[int, int] = field(default_factory=dict)

    @property
    def mean_s(self) -> float | None:
        """The mean, None without observations."""
        return self.sum_s / self.count if self.count else None

    def quantile(self, q: float) -> float | None:
        """The nearest-rank quantile: the middle of its bucket; None without observations."""
        return self.quantiles(q)[0]

    def quantiles(self, *shares: float) -> list[float | None]:
        """``quantile`` of each share. The buckets are sorted once."""
        if self.count < 1:
            return [None] * len(shares)
        order = sorted(self.buckets)
        seen = list(accumulate(map(self.buckets.__getitem__, order)))
        found: list[float | None] = []
        for share in shares:
            rank = min(max(math.ceil(share * self.count), 1), self.count)
            place = bisect_left(seen, rank)
            found.append(self._middle(order[place]) if place < len(order) else None)
        return found

    def _middle(self, index: int) -> float:
        """The middle of a bucket, limited by the lowest and the highest value if known."""
        middle = sum(bucket_bounds(index)) / 2
        middle = middle if self.min_s is None else max(middle, self.min_s)
        return middle if self.max_s is None else min(middle, self.max_s)

    def minus(self, earlier: LatencyHistogram) -> LatencyHistogram:
        """The observations since an earlier state of the same histogram."""
        before = earlier.buckets.get  # looked up once: there are hundreds of buckets
        buckets = {
            index: count - known
            for index, count in self.buckets.items()
            if count > (known := before(index, 0))
        }
        total = max(self.sum_s - earlier.sum_s, 0.0)
        return LatencyHistogram(sum(buckets.values()), total, None, None, buckets)

    def merge(self, other: LatencyHistogram) -> LatencyHistogram:
        """The observations of both histograms."""
        if not other.count:
            return self
        if not self.count:
            return other
        buckets = dict(self.buckets)
        for index, count in other.buckets.items():
            buckets[index] = buckets.get(index, 0) + count
        ends = (self.min_s, other.min_s), (self.max_s, other.max_s)
        least, most = ([value for value in end if value is not None] for end in ends)
        return LatencyHistogram(
            self.count + other.count,
            self.sum_s + other.sum_s,
            min(least) if len(least) > 1 else None,
            max(most) if len(most) > 1 else None,
            buckets,
        )


class Latencies(Struct, frozen=True):
    """What an engine measured of its requests since it started, all ranks together.

    histograms: by name: ttft, queue, prefill, tpot, e2e, itl, arrival_lag (arrival at the server to
    the scheduler), output_lag (end of the step to the client's socket). base: where a measurement
    begins, in words. ranks: the number that answered. missing: what cannot be measured, with
    reasons. boots: identify the runs of the ranks. A difference is valid only between equal boots.
    """

    histograms: Mapping[str, LatencyHistogram]
    time: float
    ranks: int
    missing: Mapping[str, str] = field(default_factory=dict)
    base: Mapping[str, str] = field(default_factory=dict)
    boots: tuple[str, ...] = ()


def bucket_of(seconds: float) -> int:
    """The index of the bucket of a latency."""
    microseconds = max(int(seconds * 1e6 + 0.5), 0)
    if microseconds < SUB_BUCKETS:
        return microseconds
    exponent = microseconds.bit_length() - 8
    return exponent * SUB_BUCKETS + (microseconds >> exponent)


def bucket_bounds(index: int) -> tuple[float, float]:
    """Lower and upper bound of a bucket, seconds. Values are rounded to whole microseconds."""
    if index < SUB_BUCKETS:
        return index * 1e-6, index * 1e-6
    exponent, place = index // SUB_BUCKETS - 1, index % SUB_BUCKETS + SUB_BUCKETS
    return (place << exponent) * 1e-6, ((place + 1) << exponent) * 1e-6 - 1e-6
