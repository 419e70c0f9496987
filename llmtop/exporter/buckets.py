"""Fine histograms on the coarse bounds of classic ones, and on those of native ones."""

from __future__ import annotations

import math

from llmtop.engines.core.latencies import LatencyHistogram, bucket_bounds

# Four microseconds bounds to two octaves, each of which a fine bucket ends at: a count at a bound
# is exact. From 1 ms to 2.3 minutes.
_FIRST_US, _LAST_US = 1 << 10, 1 << 27
CLASSIC_US: tuple[int, ...] = tuple(
    size
    for power in range(10, 28)
    for size in (1 << power, 3 << (power - 1))
    if _FIRST_US <= size <= _LAST_US
)
SCHEMA = 3  # eight buckets to an octave: each 9 % wide
_PER_OCTAVE = 1 << SCHEMA
ZERO_S = 1e-6  # what is shorter than a microsecond


def classic(histogram: LatencyHistogram) -> list[tuple[str, int]]:
    """(bound in seconds as text, observations at or below it), the last one ``+Inf``.

    Values are whole microseconds, so a bound stands for all that lie below it.
    """
    counts = sorted(histogram.buckets.items())
    found: list[tuple[str, int]] = []
    seen = place = 0
    for bound in CLASSIC_US:
        while place < len(counts) and bucket_bounds(counts[place][0])[1] * 1e6 < bound - 0.5:
            seen += counts[place][1]
            place += 1
        found.append((f"{bound / 1e6:g}" if bound < 10**6 else f"{bound / 1e6:.6f}", seen))
    found.append(("+Inf", histogram.count))
    return found


def native(histogram: LatencyHistogram) -> tuple[int, dict[int, int]]:
    """Observations of zero, and those of each native bucket by its index.

    Bucket i holds what is above 2^((i-1)/8) and at most 2^(i/8) seconds. A fine bucket belongs to
    the one that its middle lies in: at most 0.4 % beside its true place.
    """
    zero = 0
    found: dict[int, int] = {}
    for index, count in histogram.buckets.items():
        low, high = bucket_bounds(index)
        middle = (low + high) / 2
        if middle < ZERO_S:
            zero += count
            continue
        place = math.ceil(math.log2(middle) * _PER_OCTAVE - 1e-9)
        found[place] = found.get(place, 0) + count
    return zero, found
