"""Counts the requests within the limits, from an engine's own exact latencies."""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from llmtop.engines.core.latencies import Latencies, LatencyHistogram, bucket_bounds
from llmtop.slo_control.limits import Goal

RECENT = 2.0  # default window of recent latencies, in time scales of the goal
LEAST = 5  # observations that a window needs


class Outcomes(Struct, frozen=True):
    """Counts of requests. accepted: those with a first token. ended: those with their last token.

    late_ttft, late_tpot: those above the limit.
    """

    accepted: int
    ended: int
    late_ttft: int
    late_tpot: int

    @property
    def late(self) -> int:
        """Upper bound of the requests above a limit: one may be above both."""
        return min(self.late_ttft + self.late_tpot, self._seen)

    @property
    def late_share(self) -> float | None:
        """Upper bound of the share of requests above a limit; None without requests."""
        return self.late / self._seen if self._seen else None

    @property
    def _seen(self) -> int:
        """Requests with a first or a last token; some had their first before the hold."""
        return max(self.accepted, self.ended)


class LatencyWatch:
    """Counts the latencies of one engine; counts survive restarts of the engine.

    recent_s: window of recent latencies, in seconds; None: RECENT time scales of the goal.
    """

    def __init__(self, goal: Goal, recent_s: float | None = None) -> None:
        self._goal = goal
        self._recent_s = RECENT * goal.time_scale_s if recent_s is None else recent_s
        self._first: Latencies | None = None
        self._last: Latencies | None = None
        self._recent: deque[Latencies] = deque()
        self._before = Outcomes(0, 0, 0, 0)  # counts before the last restart

    def add(self, found: Latencies) -> None:
        """Add a reading of cumulative latencies."""
        if self._first is None or found.boots != self._first.boots:
            self._before = self.outcomes()
            self._first = found
            self._recent.clear()
        self._last = found
        self._recent.append(found)
        while len(self._recent) > 2 and self._recent[1].time <= found.time - self._recent_s:
            self._recent.popleft()

    def forget(self) -> None:
        """Drop the window, after the clock was set or the engine was silent."""
        self._recent.clear()

    def ttft_p95(self) -> float | None:
        """TTFT p95 in the window, in seconds; None for too few requests."""
        window = self._window("ttft")
        return window.quantile(0.95) if window is not None else None

    def slow_share(self) -> float | None:
        """The share of requests in the window above the TPOT limit; None for too few requests."""
        window = self._window("tpot")
        return above(window, self._goal.tpot_s) / window.count if window is not None else None

    def _window(self, name: str) -> LatencyHistogram | None:
        window = _since(self._recent[-1], self._recent[0], name) if self._recent else None
        return window if window is not None and window.count >= LEAST else None

    def outcomes(self) -> Outcomes:
        """The counts since the first reading."""
        before = self._before
        if self._first is None or self._last is None:
            return before
        ttft = _since(self._last, self._first, "ttft")
        tpot = _since(self._last, self._first, "tpot")
        return Outcomes(
            before.accepted + (ttft.count if ttft is not None else 0),
            before.ended + (tpot.count if tpot is not None else 0),
            before.late_ttft + above(ttft, self._goal.ttft_s),
            before.late_tpot + above(tpot, self._goal.tpot_s),
        )


def _since(now: Latencies, then: Latencies, name: str) -> LatencyHistogram | None:
    found, earlier = now.histograms.get(name), then.histograms.get(name)
    if found is None:
        return None
    return found if earlier is None else found.minus(earlier)


def above(found: LatencyHistogram | None, limit: float | None) -> int:
    """The number of observations above a limit (seconds), with the precision of a bucket."""
    if found is None or limit is None:
        return 0
    return sum(n for index, n in found.buckets.items() if bucket_bounds(index)[0] > limit)
