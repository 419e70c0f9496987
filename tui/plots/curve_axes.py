"""The axes of the throughput-latency curve, and the values to draw on them. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from msgspec import Struct

from llmtop.loadgen.experiments.knee import Knee
from llmtop.loadgen.experiments.search import Answer
from llmtop.operations.curves import Curve, CurvePoint
from llmtop.tui.commands.forecast_requests import CurveForecast
from llmtop.tui.widgets.axis import nice
from llmtop.tui.widgets.braille import Columns

LEFT, RIGHT = 6, 7  # cells for the labels of either axis
SIGMAS = 2.0  # standard errors of the throughput, up and down, that an error bar shows
FIRST, FEWEST = 4.0, 64.0  # streams that the axis spans before a level is measured
MARGIN = 1.25  # factor by which the axis extends beyond its lowest and highest level
DECADE = (1.0, 2.0, 5.0)  # leading digits of a round bound of TTFT


class Drawing(Struct, frozen=True):
    """What the chart shows. curve: this search. ghosts: earlier curves, the oldest first.

    limit: the limit of TTFT, seconds. level: the level that is measured now. knee, holds: the
    results so far, None if unknown. top: the highest level that may be tried. forecast: of the
    throughput, None without one.
    """

    curve: Curve | None = None
    ghosts: Sequence[Curve] = ()
    knee: Knee | None = None
    holds: Answer | None = None
    limit: float | None = None
    level: int | None = None
    top: int = 1024
    forecast: CurveForecast | None = None


class Axes(Struct, frozen=True):
    """The bounds. first, last: streams, logarithmic. tokens: tokens/s, linear from zero.

    fast, slow: TTFT in seconds, logarithmic.
    """

    first: float
    last: float
    tokens: float
    fast: float
    slow: float
    cells: int

    def column(self, level: float) -> float:
        """The x position of a level, in half cells from the left edge."""
        span = math.log(self.last / self.first)
        return math.log(level / self.first) / span * (2 * self.cells - 1)

    def cell(self, level: float) -> int:
        """The cell of a level. A level outside the axis is in the first or the last cell."""
        return max(0, min(self.cells - 1, int(round(self.column(level)) // 2)))


def axes(drawing: Drawing, cells: int) -> Axes:
    """Axes for all that is drawn. The bounds are round, so that they seldom change."""
    points = [p for curve in curves_of(drawing) for p in curve.points]
    levels = [float(p.level) for p in points]
    if drawing.level is not None:
        levels.append(float(drawing.level))
    most = max(levels, default=FIRST)
    last = 2.0 ** math.ceil(math.log2(max(most, min(FEWEST, float(drawing.top)))))
    ttfts = [p.ttft_p95 for p in points if p.ttft_p95]
    if drawing.limit:
        ttfts.append(drawing.limit)
    tokens = [upper(p) for p in points]
    edge = max(last, 2.0) * MARGIN
    if drawing.forecast is not None:
        tokens += [p.high for p in drawing.forecast.points if p.streams <= edge]
    fast, slow = min(ttfts, default=0.05), max(ttfts, default=1.0)
    return Axes(
        min(levels, default=FIRST) / MARGIN,
        edge,
        nice(max(tokens, default=0.0) * 1.04) or 1000.0,
        _below(fast / 1.1),
        _above(slow * 1.1),
        cells,
    )


def curves_of(drawing: Drawing) -> list[Curve]:
    """The curves that are drawn, the newest last."""
    return [*drawing.ghosts, *([drawing.curve] if drawing.curve else [])]


def upper(point: CurvePoint) -> float:
    """The upper end of the error bar of a point, tokens/s."""
    return point.tokens_per_s * (1 + SIGMAS * (point.error or 0.0))


def _below(value: float) -> float:
    size = 10.0 ** math.floor(math.log10(value))
    return max(step * size for step in DECADE if step * size <= value * (1 + 1e-9))


def _above(value: float) -> float:
    size = 10.0 ** math.floor(math.log10(value))
    return min(step * size for step in (*DECADE, 10.0) if step * size >= value * (1 - 1e-9))


def columns(values: dict[int, list[float]], at: Axes) -> Columns:
    """Two columns per cell: the means of the levels, with straight lines between them.

    values: the measured values of each level.
    """
    known = [(at.column(level), fmean(values[level])) for level in sorted(values)]
    out: list[float | None] = [None] * (2 * at.cells)
    for x, value in known:
        out[round(x)] = value
    for (x0, y0), (x1, y1) in pairwise(known):
        for x in range(math.ceil(x0), math.floor(x1) + 1):
            if x1 > x0:
                out[x] = y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return out


def row_of(share: float, tall: int) -> int:
    """The row, from the top, of a value at ``share`` of the axis; rounded as by ``plot``."""
    levels = tall * 4 - 1
    return (levels - max(0, min(levels, round(share * levels)))) // 4
