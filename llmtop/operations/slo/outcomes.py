"""How many requests were served in time, from an engine's own exact latencies."""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from llmtop.engines.core.latencies import Latencies, LatencyHistogram, bucket_bounds
from llmtop.slo_control.limits import Goal

RECENT = 2.0  # time scales
LEAST = 5


class Outcomes(Struct, frozen=True):
    """Requests since the watch began. ended: that got their last token. late_ttft, late_tpot:
    above the limit. late: at most so many broke a limit, for one may have broken both."""

    accepted: int
    ended: int
    late_ttft: int
    late_tpot: int

    @property
    def late(self) -> int:
        """At most so many."""
        return self.late_ttft + self.late_tpot


class LatencyWatch:
    """Follows the latencies of one engine; a restart of the engine begins again and loses none.
    recent_s: how long the last seconds are; None: two time scales of the goal."""

    def __init__(self, goal: Goal, recent_s: float | None = None) -> None:
        self._goal = goal
        self._recent_s = RECENT * goal.time_scale_s if recent_s is None else recent_s
        self._first: Latencies | None = None
        self._last: Latencies | None = None
        self._recent: deque[Latencies] = deque()
        self._before = Outcomes(0, 0, 0, 0)  # of engines that were restarted since

    def add(self, found: Latencies) -> None:
        """One reading."""
        if self._first is None or found.boots != self._first.boots:
            self._before = self.outcomes()
            self._first = found
            self._recent.clear()
        self._last = found
        self._recent.append(found)
        while len(self._recent) > 2 and self._recent[1].time <= found.time - self._recent_s:
            self._recent.popleft()

    def forget(self) -> None:
        """Readings so far are no part of the last seconds: the clock was set, or it was silent."""
        self._recent.clear()

    def ttft_p95(self) -> float | None:
        """Of the first tokens of the last seconds; None for too few."""
        window = self._last_seconds("ttft")
        return window.quantile(0.95) if window is not None else None

    def slow_share(self) -> float | None:
        """Of the requests that ended in the last seconds: above the limit of TPOT. None for too
        few."""
        window = self._last_seconds("tpot")
        return above(window, self._goal.tpot_s) / window.count if window is not None else None

    def _last_seconds(self, name: str) -> LatencyHistogram | None:
        window = _since(self._recent[-1], self._recent[0], name) if self._recent else None
        return window if window is not None and window.count >= LEAST else None

    def outcomes(self) -> Outcomes:
        """Since the watch began."""
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
    """Observations above a limit, to within a bucket."""
    if found is None or limit is None:
        return 0
    return sum(n for index, n in found.buckets.items() if bucket_bounds(index)[0] > limit)
