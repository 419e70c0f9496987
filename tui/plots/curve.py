"""The throughput-latency curve: tokens a second and TTFT p95 over the streams in flight. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from llmtop.loadgen.experiments.knee import Knee
from llmtop.loadgen.experiments.search import Answer
from llmtop.operations.curves import Curve, CurvePoint
from llmtop.tui.plots.curve_axes import (
    LEFT,
    RIGHT,
    SIGMAS,
    Axes,
    Drawing,
    axes,
    columns,
    curves_of,
    row_of,
)
from llmtop.tui.plots.slo.forecast_curve import draw_forecast
from llmtop.tui.widgets.braille import Grid, overlay, plot
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import MUTED, Row, Span, fit
from llmtop.wording import format as f

ROOMY = 12  # rows from which the TTFT of an earlier curve is drawn; with fewer, curves overlap
GHOST, OLDER = "muted", "faint"
NOW, THROUGHPUT, LATENCY, LIMIT, UNUSED = "now", "tokens", "ttft", "cap", "muted"
INVALID = "x"  # a level that is not used: the client may have distorted it


def curve_rows(drawing: Drawing, width: int, height: int, glyphs: Glyphs) -> list[Row]:
    """``height`` rows of ``width`` cells: chart, axis, knee and SLO level; [] without room."""
    cells = width - LEFT - RIGHT
    below = 3 if height >= 9 else 2
    tall = height - below
    if cells < 10 or tall < 3:
        return []
    at = axes(drawing, cells)
    layers: list[tuple[Grid, str]] = []
    for ghost in drawing.ghosts:
        newest = ghost is drawing.ghosts[-1]
        speed, ttft = _lines(ghost, at, tall)
        layers.append((speed, GHOST if newest else OLDER))
        if newest and tall >= ROOMY:
            layers.append((ttft, OLDER))
    if drawing.curve is not None:
        speed, ttft = _lines(drawing.curve, at, tall)
        layers += [(speed, THROUGHPUT), (_bars(drawing.curve, at, tall), THROUGHPUT)]
        layers.append((ttft, LATENCY))
    canvas = overlay(layers, cells, tall, braille=glyphs.braille)
    if drawing.forecast is not None:
        draw_forecast(canvas, drawing.forecast.points, at, tall, glyphs)
    if drawing.limit is not None:
        limit_line(
            canvas,
            _latency_row(drawing.limit, at, tall),
            f"TTFT {f.latency(drawing.limit)}",
            glyphs,
        )
    if drawing.level is not None:
        x = at.cell(drawing.level)
        for line in canvas:
            if line[x][0] in (" ", glyphs.rule):
                line[x] = (glyphs.mark, NOW)
    if drawing.curve is not None:
        _points(canvas, drawing.curve.points, at, tall, glyphs)
    known = any(curve.points for curve in curves_of(drawing))
    forecast = drawing.forecast is not None and bool(drawing.forecast.points)
    if not known and not forecast:
        _words(canvas, tall // 2, "the curve appears as levels finish")
    rows = [
        _joined(
            _left(y, tall, at) if known or forecast else "",
            line,
            _right(y, tall, at) if known else "",
            cells,
        )
        for y, line in enumerate(canvas)
    ]
    rows.append(ticks(at, drawing.level))
    rows.append(_knee(drawing.knee, at, glyphs, width))
    if below == 3:
        rows.append(_holds(drawing.holds, at, glyphs, width))
    return rows


def _lines(curve: Curve, at: Axes, tall: int) -> tuple[Grid, Grid]:
    """Throughput and TTFT as lines through the levels' means; invalid levels are omitted."""
    speed: dict[int, list[float]] = {}
    ttft: dict[int, list[float]] = {}
    for point in curve.points:
        if point.valid:
            speed.setdefault(point.level, []).append(point.tokens_per_s)
            if point.ttft_p95:
                ttft.setdefault(point.level, []).append(math.log(point.ttft_p95))
    return (
        plot(columns(speed, at), at.cells, tall, at.tokens),
        plot(columns(ttft, at), at.cells, tall, math.log(at.slow), math.log(at.fast)),
    )


def _bars(curve: Curve, at: Axes, tall: int) -> Grid:
    """Error bars: two standard errors of the throughput, up and down."""
    grid = [[0] * at.cells for _ in range(tall)]
    for point in curve.points:
        reach = SIGMAS * (point.error or 0.0) * point.tokens_per_s
        ends: list[float | None] = [None] * (2 * at.cells)
        ends[round(at.column(point.level))] = point.tokens_per_s + reach
        upper = plot(ends, at.cells, tall, at.tokens, fill=True)
        ends[round(at.column(point.level))] = point.tokens_per_s - reach
        lower = plot(ends, at.cells, tall, at.tokens, fill=True)
        x = at.cell(point.level)
        for y in range(tall):
            grid[y][x] |= upper[y][x] & ~lower[y][x]
    return grid


def _latency_row(seconds: float, at: Axes, tall: int) -> int:
    share = math.log(max(seconds, 1e-9) / at.fast) / math.log(at.slow / at.fast)
    return row_of(share, tall)


def _points(
    canvas: list[list[Span]], points: Iterable[CurvePoint], at: Axes, tall: int, glyphs: Glyphs
) -> None:
    for point in points:
        x = at.cell(point.level)
        if point.valid and point.ttft_p95:
            canvas[_latency_row(point.ttft_p95, at, tall)][x] = (glyphs.hollow, LATENCY)
        y = row_of(point.tokens_per_s / at.tokens, tall)
        canvas[y][x] = (glyphs.bullet, THROUGHPUT) if point.valid else (INVALID, UNUSED)


def limit_line(canvas: list[list[Span]], y: int, name: str, glyphs: Glyphs) -> None:
    """A dashed line through the empty cells of row ``y``, with its name at the left end."""
    for x, (char, _) in enumerate(canvas[y]):
        if char == " ":
            canvas[y][x] = (glyphs.rule, LIMIT)
    words = f" {name} "
    if all(char == glyphs.rule for char, _ in canvas[y][2 : 2 + len(words)]):
        for x, char in enumerate(words, 2):
            canvas[y][x] = (char, LIMIT)


def _words(canvas: list[list[Span]], y: int, words: str) -> None:
    start = (len(canvas[y]) - len(words)) // 2
    for x, char in enumerate(words, start):
        if 0 <= x < len(canvas[y]):
            canvas[y][x] = (char, MUTED)


def _left(y: int, tall: int, at: Axes) -> str:
    value = at.tokens if y == 0 else 0.0 if y == tall - 1 else None
    if value is None and tall >= 9 and y == row_of(0.5, tall):
        value = at.tokens / 2
    return "" if value is None else f.short(value)


def _right(y: int, tall: int, at: Axes) -> str:
    if y == 0:
        return f.latency(at.slow)
    if y == tall - 1:
        return f.latency(at.fast)
    # Between the bounds, the powers of ten have a label.
    for power in range(math.ceil(math.log10(at.fast)), math.ceil(math.log10(at.slow))):
        if 10.0**power > at.fast * 1.01 and _latency_row(10.0**power, at, tall) == y:
            return f.latency(10.0**power)
    return ""


def _joined(left: str, line: Sequence[Span], right: str, cells: int) -> Row:
    spans: list[Span] = [(left.rjust(LEFT - 1) + " ", THROUGHPUT if left else MUTED)]
    for char, role in line:
        spans.append((char, spans[-1][1] if char == " " else role))
    spans.append((f" {right}".ljust(RIGHT), LATENCY if right else MUTED))
    return fit(spans, LEFT + cells + RIGHT)


def ticks(at: Axes, level: int | None) -> Row:
    """Powers of two below their cells, as many as fit; the level that is measured now is bright."""
    text: list[Span] = [(" ", MUTED)] * at.cells
    free = -1
    powers = range(math.ceil(math.log2(at.first)), math.floor(math.log2(at.last)) + 1)
    wanted = [(2**n, MUTED) for n in powers if n >= 0]
    if level is not None:
        words = f"{level:,}"
        middle = at.cell(level)
        wanted = [w for w in wanted if abs(at.cell(w[0]) - middle) > len(words) + 1]
        wanted = sorted([*wanted, (level, NOW)])
    for value, role in wanted:
        words = f"{value:,}"
        start = max(0, min(at.cells - len(words), at.cell(value) - (len(words) - 1) // 2))
        if start > free or role == NOW:
            text[start : start + len(words)] = [(c, role) for c in words]
            free = start + len(words)
    return fit([(" " * LEFT, MUTED), *text], LEFT + at.cells + RIGHT, MUTED)


def _knee(knee: Knee | None, at: Axes, glyphs: Glyphs, width: int) -> Row:
    """The knee, and the bracket of measured levels around it."""
    if knee is None:
        return fit([("knee".rjust(LEFT - 1), MUTED), (f" {f.ABSENT}", MUTED)], width, MUTED)
    low = max(knee.low, int(at.first) or 1)
    high = knee.high if knee.high is not None else knee.best_level
    words = f" {knee.level:,} ({knee.low:,}..{f'{knee.high:,}' if knee.high is not None else '?'})"
    if knee.open_end:
        words = f" not yet: still rises at {knee.best_level:,}"
    marks = _bracket(low, knee.level, max(high, knee.level), at, glyphs, glyphs.bullet)
    return _labelled("knee", marks, words, THROUGHPUT, at, width)


def _holds(answer: Answer | None, at: Axes, glyphs: Glyphs, width: int) -> Row:
    """The highest level that meets the SLO, and the lowest that does not."""
    if answer is None or (answer.level is None and answer.fails is None):
        return fit([("SLO".rjust(LEFT - 1), MUTED), (f" {f.ABSENT}", MUTED)], width, MUTED)
    level, fails = answer.level, answer.fails
    share = f.percent(answer.share)
    if level is None:
        marks = _bracket(fails or 1, None, fails or 1, at, glyphs, "")
        return _labelled("SLO", marks, f" not at {fails:,}", LIMIT, at, width)
    words = f" {level:,}" + (f" ({level:,}..{fails:,})" if fails else " or more") + f" for {share}"
    marks = _bracket(level, level, fails or level, at, glyphs, glyphs.bullet)
    return _labelled("SLO", marks, words, LIMIT, at, width)


def _bracket(
    low: float, middle: float | None, high: float, at: Axes, glyphs: Glyphs, point: str
) -> dict[int, str]:
    first, last = at.cell(low), at.cell(high)
    marks = {x: glyphs.across for x in range(first, last + 1)}
    marks[first], marks[last] = glyphs.left_end, glyphs.right_end
    if middle is not None:
        marks[at.cell(middle)] = point
    return marks


def _labelled(name: str, marks: dict[int, str], words: str, role: str, at: Axes, width: int) -> Row:
    """Marks with their words at the right, or at the left if there is no room."""
    line = [marks.get(x, " ") for x in range(at.cells)]
    text = "".join(line)
    first, last = min(marks), max(marks)
    if last + 1 + len(words) <= at.cells + RIGHT:
        text = text[: last + 1] + words
    elif first >= len(words):
        text = text[: first - len(words)] + words.strip().rjust(len(words) - 1) + " " + text[first:]
    return fit([(name.rjust(LEFT - 1) + " ", MUTED), (text, role)], width, MUTED)
