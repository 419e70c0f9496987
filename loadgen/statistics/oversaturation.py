"""Whether more is asked than can be served: two trends that must both rise."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median

from msgspec import Struct

from llmtop.loadgen.core.results import LoadSnapshot
from llmtop.loadgen.statistics.student import t_quantile

LEAST = 8  # points below which a trend shows nothing
CONFIDENCE = 0.95
WINDOW_S = 30.0  # that trends are looked for in: long enough to see, short enough to see it end
LEAST_S = 8.0  # of it
APART_S = 0.5  # of two points: closer points are strongly correlated
SAME_LEVEL = 0.10  # a rate that changed by more begins a new window
FILL = 1.5  # times what a request takes at first: until then in flight grows at any rate
LEAST_UNSERVED = 0.05  # of the rate: so much of it is surely left over
LEAST_GROWTH = 0.25  # of the median TTFT, within the window
LASTS_S = 5.0  # that it has to hold before a whole run is called over-saturated


class Slope(Struct, frozen=True):
    """A straight line's slope by least squares, a second, with its two-sided interval."""

    estimate: float
    low: float
    high: float


def slope(points: Sequence[tuple[float, float]], confidence: float = CONFIDENCE) -> Slope | None:
    """The trend of (seconds, value); None for too few points or no passage of time.

    The interval takes the residuals to be independent. Neighbouring samples of a queue are not,
    so it is narrower than it should be: that is why one trend alone decides nothing.
    """
    n = len(points)
    if n < LEAST:
        return None
    middle_x = sum(x for x, _ in points) / n
    middle_y = sum(y for _, y in points) / n
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    if spread <= 0:
        return None
    estimate = sum((x - middle_x) * (y - middle_y) for x, y in points) / spread
    rest = sum((y - middle_y - estimate * (x - middle_x)) ** 2 for x, y in points)
    reach = t_quantile(0.5 + confidence / 2, n - 2) * math.sqrt(rest / (n - 2) / spread)
    return Slope(estimate, estimate - reach, estimate + reach)


def oversaturated(
    in_flight: Sequence[tuple[float, float]],
    ttft: Sequence[tuple[float, float]],
    confidence: float = CONFIDENCE,
) -> bool:
    """Whether both requests in flight and TTFT are surely growing.

    Both are needed: in flight grows alone when answers get longer, TTFT alone when prompts do. A
    closed loop holds what is in flight, so this speaks of the open loop only.
    """
    trends = [slope(points, confidence) for points in (in_flight, ttft)]
    return all(trend is not None and trend.low > 0 for trend in trends)


class Overload:
    """Decides from an open loop's snapshots, as they come, whether more is asked than served.

    Both trends of ``oversaturated``, and each by an amount that matters: what is left over is a
    share of the rate (requests in flight grow by arrivals less endings), and TTFT has grown by a
    share of its median. Only while the rate stands still, and after the engine has filled up: on a
    ramp both grow at an engine that keeps up. now: None while that is not known. ever: whether it
    held for ``LASTS_S``, None where it was never known. since_s: from when, on the clock of at_s.
    """

    def __init__(self) -> None:
        self.now: bool | None = None
        self.ever: bool | None = None
        self.since_s: float | None = None
        self._level = 0.0
        self._began_s = 0.0
        self._took_s: float | None = None  # a request, at first
        self._holds_since: float | None = None
        self._points: deque[tuple[float, float, float]] = deque()

    def update(self, at_s: float, snapshot: LoadSnapshot) -> None:
        """The load at a moment."""
        if snapshot.loop != "open" or not snapshot.running or snapshot.asked <= 0:
            self._begin(at_s, 0.0)
            return
        if abs(snapshot.asked - self._level) > SAME_LEVEL * self._level:
            self._begin(at_s, snapshot.asked)
        if snapshot.e2e.p95 is not None and self._took_s is None:
            self._took_s = snapshot.e2e.p95
        ttft = snapshot.ttft.p50
        if self._took_s is None or ttft is None:
            return
        if at_s < self._began_s + FILL * self._took_s:
            return
        if not self._points or at_s - self._points[-1][0] >= APART_S:
            self._points.append((at_s, float(snapshot.in_flight), ttft))
            while self._points[0][0] < at_s - WINDOW_S:
                self._points.popleft()
            self._judge(at_s)

    def _begin(self, at_s: float, level: float) -> None:
        self._level, self._began_s, self._took_s = level, at_s, None
        self._points.clear()
        self.now = self._holds_since = None

    def _judge(self, at_s: float) -> None:
        span = at_s - self._points[0][0]
        if span < LEAST_S or len(self._points) < LEAST:
            return
        flight = [(at, n) for at, n, _ in self._points]
        ttft = [(at, seconds) for at, _, seconds in self._points]
        queue, wait = slope(flight), slope(ttft)
        self.now = (
            oversaturated(flight, ttft)
            and queue is not None
            and wait is not None
            and queue.low > LEAST_UNSERVED * self._level
            and wait.estimate * span > LEAST_GROWTH * median(seconds for _, seconds in ttft)
        )
        self.ever = bool(self.ever)
        if not self.now:
            self._holds_since = None
            return
        if self._holds_since is None:
            self._holds_since = at_s
        if at_s - self._holds_since >= LASTS_S and not self.ever:
            self.ever, self.since_s = True, self._points[0][0]
