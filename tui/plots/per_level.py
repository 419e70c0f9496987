"""Time per output token (TPOT) at each level of a search, over the streams in flight. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmtop.loadgen.experiments.level import LevelResult
from llmtop.tui.plots.curve import limit_line, ticks
from llmtop.tui.plots.curve_axes import LEFT, Axes, columns, row_of
from llmtop.tui.widgets.axis import nice
from llmtop.tui.widgets.braille import overlay, plot
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import MUTED, Row, Span, fit
from llmtop.wording import format as f

P95, P50 = "itl", "muted"
NEAR = 2.0  # a limit above this multiple of the peak is not drawn: it would flatten the curve


def tpot_rows(
    levels: Sequence[LevelResult],
    limit: float | None,
    at: Axes,
    level: int | None,
    height: int,
    glyphs: Glyphs,
) -> list[Row]:
    """``height`` rows of ``LEFT + at.cells + 1`` cells: p95 and p50 of TPOT, on a y axis from zero.

    limit: the limit of TPOT, seconds. at: the x axis. level: the level that is measured now.
    """
    tall, cells = height - 1, at.cells
    known = [one for one in levels if one.valid and not one.stalled]
    seen = max((one.tpot.p95 or 0.0 for one in known), default=0.0)
    shown = limit if limit is not None and (not seen or limit <= NEAR * seen) else None
    # Rounded in milliseconds, because the label has milliseconds.
    top = nice(max(seen, shown or 0.0) * 1e3 * 1.04) / 1e3 or 0.1

    def line(of: Callable[[LevelResult], float | None]) -> dict[int, list[float]]:
        out: dict[int, list[float]] = {}
        for one in known:
            value = of(one)
            if value is not None:
                out.setdefault(one.level, []).append(value)
        return out

    p50, p95 = line(lambda one: one.tpot.p50), line(lambda one: one.tpot.p95)
    canvas = overlay(
        [
            (plot(columns(p50, at), cells, tall, top), P50),
            (plot(columns(p95, at), cells, tall, top), P95),
        ],
        cells,
        tall,
        braille=glyphs.braille,
    )
    if shown is not None:
        limit_line(canvas, row_of(shown / top, tall), f"TPOT {f.latency(shown)}", glyphs)
    if level is not None:
        x = at.cell(level)
        for row in canvas:
            if row[x][0] in (" ", glyphs.rule):
                row[x] = (glyphs.mark, "now")
    for number, values in p95.items():
        y = row_of(values[-1] / top, tall)
        canvas[y][at.cell(number)] = (glyphs.bullet, P95)
    rows = []
    for y, row in enumerate(canvas):
        label = f.latency(top) if y == 0 else "0" if y == tall - 1 else ""
        spans: list[Span] = [(label.rjust(LEFT - 1) + " ", P95 if label else MUTED)]
        spans += [(char, role or MUTED) for char, role in row]
        rows.append(fit(spans, LEFT + cells + 1))
    return [*rows, fit(ticks(at, level), LEFT + cells + 1)]
