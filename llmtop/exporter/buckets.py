"""Converts histograms with fine buckets to the buckets of classic and native histograms."""

from __future__ import annotations

import math

from llmtop.engines.core.latencies import LatencyHistogram, bucket_bounds

# Bounds in microseconds, two per octave, from 1 ms to 134 s. A fine bucket ends at each of them, so
# the counts are exact.
_FIRST_US, _LAST_US = 1 << 10, 1 << 27
CLASSIC_US: tuple[int, ...] = tuple(
    size
    for power in range(10, 28)
    for size in (1 << power, 3 << (power - 1))
    if _FIRST_US <= size <= _LAST_US
)
SCHEMA = 3  # of native histograms: 2^3 buckets per octave, each 9 % wide
_PER_OCTAVE = 1 << SCHEMA
ZERO_S = 1e-6  # shorter values go into the zero bucket


def classic(histogram: LatencyHistogram) -> list[tuple[str, int]]:
    """Cumulative buckets: (upper bound in seconds as text, observations up to it).

    The last bound is ``+Inf``. Values are whole microseconds, and a bucket has those below its
    bound.
    """
    counts = sorted(histogram.buckets.items())
    found: list[tuple[str, int]] = []
    cumulative = index = 0
    for bound in CLASSIC_US:
        while index < len(counts) and bucket_bounds(counts[index][0])[1] * 1e6 < bound - 0.5:
            cumulative += counts[index][1]
            index += 1
        found.append((f"{bound / 1e6:g}" if bound < 10**6 else f"{bound / 1e6:.6f}", cumulative))
    found.append(("+Inf", histogram.count))
    return found


def native(histogram: LatencyHistogram) -> tuple[int, dict[int, int]]:
    """The count of the zero bucket, and the count of each native bucket by its index.

    Bucket i has the values above 2^((i-1)/8) and up to 2^(i/8) seconds (native histograms, schema
    3). A fine bucket is assigned by its middle, so an observation is off by at most 0.4 %.
    """
    zero = 0
    found: dict[int, int] = {}
    for index, count in histogram.buckets.items():
        low, high = bucket_bounds(index)
        middle = (low + high) / 2
        if middle < ZERO_S:
            zero += count
            continue
        native_index = math.ceil(math.log2(middle) * _PER_OCTAVE - 1e-9)
        found[native_index] = found.get(native_index, 0) + count
    return zero, found
