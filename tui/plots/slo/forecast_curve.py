"""The forecast of the throughput at each number of streams, behind the measured curve. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from llmtop.tui.commands.forecast_requests import CurveForecast, ForecastPoint
from llmtop.tui.plots.curve_axes import Axes, row_of
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import FAINT, MUTED, Span, shorten
from llmtop.wording import format as f

FORECAST = "server"
CLEAR = "\u2800"  # a braille cell without a dot


def draw_forecast(
    canvas: list[list[Span]], points: Sequence[ForecastPoint], at: Axes, tall: int, glyphs: Glyphs
) -> None:
    """Draw a dot in each column for the expected value, and a band for its interval.

    Only empty cells are changed, so that no measured value is covered.
    """
    for x, (low, value, high) in enumerate(_columns(points, at)):
        if value < 0:
            continue
        top, bottom = row_of(high / at.tokens, tall), row_of(low / at.tokens, tall)
        for y in range(top, bottom + 1):
            if canvas[y][x][0] in (" ", CLEAR):
                canvas[y][x] = (glyphs.band, FAINT)
        y = row_of(value / at.tokens, tall)
        if canvas[y][x][0] in (" ", CLEAR, glyphs.band):
            canvas[y][x] = (glyphs.dot, FORECAST)


def forecast_legend(found: CurveForecast | None, glyphs: Glyphs) -> list[Span]:
    """The legend of the forecast, with its knee; [] without a forecast."""
    if found is None or not found.points:
        return []
    knee = f", knee about {found.knee:,.0f}" if found.knee is not None else ""
    return [(f"{glyphs.dot}{glyphs.dot} forecast{knee}", FORECAST)]


def refusal_words(found: CurveForecast | None, cells: int) -> list[Span]:
    """Why there is no forecast, or none for more streams; [] if it is complete."""
    if found is None or not found.refused:
        return []
    head = "no forecast"
    if found.points:
        head = f"no forecast beyond {f.count(found.points[-1].streams)} streams"
    reason = f.clean(found.refused)
    whole = [f"{head}: {reason}", f"{head}: {reason.partition(', ')[0]}"]
    if found.points:
        whole.append(head)  # if the reason does not fit: only where the curve ends
    fitting = next((one for one in whole if len(one) <= cells - 2), whole[-1])
    return [(f"  {shorten(fitting, cells - 2)}", MUTED)]


def _columns(points: Sequence[ForecastPoint], at: Axes) -> list[tuple[float, float, float]]:
    """(low, value, high) of each cell, interpolated between the points; negative: unknown."""
    known = [(at.column(one.streams) / 2, one) for one in points]
    found = [(-1.0, -1.0, -1.0)] * at.cells
    for (x0, a), (x1, b) in pairwise(known):
        for x in range(max(0, round(x0)), min(at.cells - 1, round(x1)) + 1):
            share = min(1.0, max(0.0, (x - x0) / (x1 - x0))) if x1 > x0 else 0.0
            found[x] = (
                a.low + share * (b.low - a.low),
                a.value + share * (b.value - a.value),
                a.high + share * (b.high - a.high),
            )
    return found
