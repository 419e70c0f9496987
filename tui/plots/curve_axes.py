"""The axes of the throughput-latency curve, and what stands on them. Pure."""

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
SIGMAS = 2.0  # of the throughput, either way, that its bar is long
FIRST, FEWEST = 4.0, 64.0  # streams that the axis spans before anything is known
MARGIN = 1.25  # by which the axis goes beyond its outermost levels
DECADE = (1.0, 2.0, 5.0)


class Drawing(Struct, frozen=True):
    """What the chart shows. ghosts: earlier curves, the oldest first. limit: of TTFT, seconds.

    level: the one that is being measured. knee, holds: as known by now, None where not.
    top: the highest level that may be tried. forecast: of the throughput, None without one.
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
    """The bounds: streams and TTFT on logarithmic axes, tokens a second from zero."""

    first: float
    last: float
    tokens: float
    fast: float
    slow: float
    cells: int

    def column(self, level: float) -> float:
        """Where a level lies, in columns of half a cell."""
        span = math.log(self.last / self.first)
        return math.log(level / self.first) / span * (2 * self.cells - 1)

    def cell(self, level: float) -> int:
        """The cell that a level lies in; at the border what lies beyond."""
        return max(0, min(self.cells - 1, int(round(self.column(level)) // 2)))


def axes(drawing: Drawing, cells: int) -> Axes:
    """Axes that hold what there is to draw, at round bounds so that they seldom move."""
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
    """Those that are drawn, the newest last."""
    return [*drawing.ghosts, *([drawing.curve] if drawing.curve else [])]


def upper(point: CurvePoint) -> float:
    """The upper end of its bar."""
    return point.tokens_per_s * (1 + SIGMAS * (point.error or 0.0))


def _below(value: float) -> float:
    size = 10.0 ** math.floor(math.log10(value))
    return max(step * size for step in DECADE if step * size <= value * (1 + 1e-9))


def _above(value: float) -> float:
    size = 10.0 ** math.floor(math.log10(value))
    return min(step * size for step in (*DECADE, 10.0) if step * size >= value * (1 - 1e-9))


def columns(values: dict[int, list[float]], at: Axes) -> Columns:
    """Two columns a cell, straight lines between the levels as they are drawn."""
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
    """The cell row of a value at ``share`` of the axis, as ``plot`` rounds it."""
    levels = tall * 4 - 1
    return (levels - max(0, min(levels, round(share * levels)))) // 4
