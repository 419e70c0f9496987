"""Percentiles of a window with an error of at most 1 %, instead of those from coarse buckets."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from llmtop.engines.core.latencies import RELATIVE_ERROR, Latencies, LatencyHistogram
from llmtop.engines.core.live_protocol import LiveError
from llmtop.engines.core.samples import EngineSample, Latency, Quantile, Quantiles
from llmtop.engines.metrics.histograms import FEWEST_P95, FEWEST_P99, possible
from llmtop.engines.metrics.window import MIN_SPAN_S
from llmtop.values import replace

AGAIN_S = 10.0  # pause after a failure
SCHEDULER = "arrival at the scheduler"
_FROM_THE_SERVER = (Latency.TTFT, Latency.E2E)
_MOST = 1000


class _Look(NamedTuple):
    at: float
    latencies: Latencies


class ExactLatencies:
    """Reads the latencies of one engine and puts those of the window into its samples.

    ask: returns the engine's latencies, or raises LiveError. window_s: the window of percentiles.
    Percentiles that the engine does not show, and all while it does not answer, come from its
    buckets. clock: monotonic seconds.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[Latencies]],
        window_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._window_s = window_s
        self._clock = clock
        self._looks: deque[_Look] = deque(maxlen=_MOST)
        self._not_before = -1e9
        self._every_s = 0.0
        self._found: Mapping[Latency, Quantiles] = {}  # of the newest reading
        self.trouble = ""  # why it did not answer

    @property
    def newest(self) -> Latencies | None:
        """The engine's last answer, totals since its start; None while it does not answer."""
        return self._looks[-1].latencies if self._looks else None

    def refresh_every(self, seconds: float) -> None:
        """Set the shortest interval: samples in between get the percentiles of the last reading."""
        self._every_s = seconds

    async def refresh(self) -> None:
        """Read once. Never raises: without an answer the engine's buckets are used."""
        now = self._clock()
        if now < self._not_before or (self._looks and now - self._looks[-1].at < self._every_s):
            return
        try:
            found = await self._ask()
        except LiveError as error:
            self.trouble = error.message
            self._looks.clear()
            self._found = {}
            self._not_before = self._clock() + AGAIN_S
            return
        self.trouble = ""
        if self._looks and self._looks[-1].latencies.boots != found.boots:
            self._looks.clear()
        now = self._clock()
        self._looks.append(_Look(now, found))
        while len(self._looks) > 2 and now - self._looks[1].at >= self._window_s:
            self._looks.popleft()
        self._found = self._quantiles()

    def into(self, sample: EngineSample) -> EngineSample:
        """The sample with the exact percentiles."""
        if not self._found:
            return sample
        return replace(sample, latencies=possible({**sample.latencies, **self._found}))

    def _quantiles(self) -> Mapping[Latency, Quantiles]:
        if not self._looks:
            return {}
        newest = self._looks[-1]
        spans = [(newest.at - look.at, look) for look in self._looks]
        usable = [(abs(span - self._window_s), look) for span, look in spans if span >= MIN_SPAN_S]
        if not usable:
            return {}
        base = min(usable, key=lambda pair: pair[0])[1]
        found = {}
        for latency in Latency:
            after = newest.latencies.histograms.get(latency.value)
            before = base.latencies.histograms.get(latency.value)
            starts = newest.latencies.base.get(latency.value, "")
            if after is None or before is None:
                continue
            if latency in _FROM_THE_SERVER and starts.startswith(SCHEDULER):
                continue  # it excludes the front end, which the engine's own metric includes
            found[latency] = _summary(after.minus(before), newest.at - base.at)
        return found


def _summary(between: LatencyHistogram, window_s: float) -> Quantiles:
    n = between.count
    values = between.quantiles(0.5, 0.95, 0.99)
    p50, p95, p99 = (
        None if value is None or n < fewest else Quantile(value)
        for value, fewest in zip(values, (1, FEWEST_P95, FEWEST_P99), strict=True)
    )
    return Quantiles(
        p50=p50,
        p95=p95,
        p99=p99,
        mean=between.mean_s,
        n=n,
        window_s=window_s,
        exact=RELATIVE_ERROR,
    )
