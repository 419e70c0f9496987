"""Is more asked than can be served? Told from two trends that must both point up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llmtop.loadgen.student import t_quantile

LEAST = 8  # points below which a trend says nothing
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Slope:
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
