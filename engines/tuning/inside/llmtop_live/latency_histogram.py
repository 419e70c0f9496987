"""Latencies of all requests since the engine started, in log-linear buckets.

The buckets are those of an HDR histogram over whole microseconds: 128 for each power of two. So a
bucket is at most 0.8 % (1/128) wide, relative to its values.
"""

from __future__ import annotations

from typing import Any

SUB_BUCKETS = 128  # a bucket's width is at most 1/128 of its values
MOST_US = 1 << 40  # twelve days; longer values count as this

NAMES = ("ttft", "queue", "prefill", "tpot", "e2e", "itl", "arrival_lag", "output_lag")
"""The latencies that can be measured: docs/reference/live-socket.md."""


def bucket_of(microseconds: int) -> int:
    """The index of the bucket that holds a value of whole microseconds."""
    if microseconds < SUB_BUCKETS:
        return microseconds
    exponent = microseconds.bit_length() - 8
    return exponent * SUB_BUCKETS + (microseconds >> exponent)


class LatencyHistogram:
    """One distribution. The engine's thread adds to it, any thread reads it."""

    __slots__ = ("_buckets", "_count", "_least_s", "_most_s", "_sum_s")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self._count = 0
        self._sum_s = 0.0
        self._least_s: float | None = None
        self._most_s: float | None = None

    def add(self, seconds: float, times: int = 1) -> None:
        """Add one observation, or several with the same value. Ignores negative values and NaN."""
        if not seconds >= 0.0:
            return
        index = bucket_of(min(int(seconds * 1e6 + 0.5), MOST_US))
        self._buckets[index] = self._buckets.get(index, 0) + times
        self._count += times
        self._sum_s += seconds * times
        if self._least_s is None or seconds < self._least_s:
            self._least_s = seconds
        if self._most_s is None or seconds > self._most_s:
            self._most_s = seconds

    def read(self) -> dict[str, Any]:
        """The whole distribution.

        count is the sum of the buckets, in spite of concurrent writes.
        """
        buckets = sorted(self._buckets.copy().items())
        return {
            "count": sum(count for _, count in buckets),
            "sum_s": self._sum_s,
            "min_s": self._least_s,
            "max_s": self._most_s,
            "buckets": buckets,
        }


class LatencyHistograms:
    """The distributions that one engine measures, by name.

    base: for each latency, the event at which its measurement begins, in words.
    """

    def __init__(self, names: tuple[str, ...] = NAMES, base: dict[str, str] | None = None) -> None:
        self.base = dict(base or {})
        self._histograms = {name: LatencyHistogram() for name in names}

    def __getitem__(self, name: str) -> LatencyHistogram:
        return self._histograms[name]

    def read(self) -> dict[str, Any]:
        """All of them, in the form of the ``latencies`` answer."""
        histograms = {name: found.read() for name, found in self._histograms.items()}
        return {"histograms": histograms, "base": self.base}
