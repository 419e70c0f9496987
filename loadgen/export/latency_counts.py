"""How often each latency occurred in a load: histograms that a recording keeps with its result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from llmtop.loadgen.core.results import Fate, RequestRecord
from llmtop.loadgen.statistics.histogram import bucket, upper_s

_LATENCIES: dict[str, Callable[[RequestRecord], float | None]] = {
    "ttft": lambda record: record.ttft,
    "tpot": lambda record: record.tpot,
    "e2e": lambda record: record.e2e,
}


class LatencyCounts:
    """Counts the answered requests of a load by latency."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[int]] = {name: Counter() for name in _LATENCIES}

    def add(self, record: RequestRecord) -> None:
        """One request has ended."""
        if record.fate is not Fate.OK:
            return
        for name, latency in _LATENCIES.items():
            seconds = latency(record)
            if seconds is not None:
                self._counts[name][bucket(round(seconds * 1e9))] += 1

    def pairs(self) -> dict[str, tuple[tuple[float, int], ...]]:
        """By latency: the upper bound of each bucket in seconds, and its count. A bucket is 0.8 %
        wide or less; empty ones are left out."""
        return {
            name: tuple((round(upper_s(index), 6), counts[index]) for index in sorted(counts))
            for name, counts in self._counts.items()
            if counts
        }
