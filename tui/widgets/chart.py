"""A chart of several series over time as rows: axis, dots, marks and limits. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from llmtop.tui.widgets.axis import TimeGrid
from llmtop.tui.widgets.braille import BLANK, DOTS_DOWN, Columns, Grid, band, overlay, plot
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import MUTED, Row, Span, fit

GUTTER = 5  # cells for the axis labels
NOW = "now"


class Trace(Struct, frozen=True):
    """One series of a chart. columns: two values per cell. fill: draw the area below it.

    rule: a limit, drawn as a dashed line behind the rest. tint: a part of the previous trace, in
    another colour. upper: the upper end of a range; ``columns`` is its lower end.
    """

    columns: Columns
    role: str
    fill: bool = False
    rule: bool = False
    tint: bool = False
    upper: Columns | None = None

    def drawn(self, cells: int, height: int, maximum: float) -> Grid:
        """Its dot masks: a line, the area below it, or a band."""
        if self.upper is not None:
            return band(self.columns, self.upper, cells, height, maximum)
        return plot(self.columns, cells, height, maximum, fill=self.fill)


def chart_rows(
    traces: Sequence[Trace],
    grid: TimeGrid,
    height: int,
    maximum: float,
    glyphs: Glyphs,
    *,
    label: Callable[[float], str],
    marks: Sequence[tuple[float, str]] = (),
    empty: str = "",
    cursor: float | None = None,
) -> list[Row]:
    """The chart as ``height`` rows of ``GUTTER + grid.cells`` cells.

    Traces are drawn in their order, so that the last one is on top. Its newest dot is bright.
    label: formats the axis maximum. marks: vertical lines, (unix seconds, role) each. empty: the
    text of a chart without any value. cursor: the unix seconds of another vertical line.
    """
    cells = grid.cells
    if height <= 0:
        return []
    drawn = [t for t in traces if not t.rule]
    seen = [t for t in drawn if t.columns.count(None) < len(t.columns)]
    layers = [(t.drawn(cells, height, maximum), t.role) for t in seen]
    canvas = overlay(layers, cells, height, braille=glyphs.braille)
    for trace in [t for t in drawn if not t.tint][-1:]:
        _brighten(canvas, trace, cells, height, maximum)
    for trace in traces:
        if trace.rule:
            _rule(canvas, trace, cells, height, maximum, glyphs)
    for time, role in marks:
        cell = grid.cell_of(time)
        if cell is not None:
            for line in canvas:
                if line[cell][0] in (" ", glyphs.rule):
                    line[cell] = (glyphs.mark, role)
    at = grid.cell_of(cursor) if cursor is not None else None
    if at is not None:
        for line in canvas:
            line[at] = (glyphs.down if line[at][0] == " " else line[at][0], NOW)
    rows = [_row(_label(y, height, maximum, label), line) for y, line in enumerate(canvas)]
    if empty and all(t.columns.count(None) == len(t.columns) for t in drawn):
        middle = (height - 1) // 2
        pad = max(0, (cells - len(empty)) // 2)
        gutter = (_label(middle, height, maximum, label), MUTED)
        rows[middle] = fit([gutter, (" " * pad, MUTED), (empty, MUTED)], GUTTER + cells)
    return rows


def _label(y: int, height: int, maximum: float, label: Callable[[float], str]) -> str:
    if y == 0:
        return label(maximum)[:GUTTER].rjust(GUTTER - 1).ljust(GUTTER)  # "100ms" fills it
    if y == height - 1:
        return "0".rjust(GUTTER - 1) + " "
    return " " * GUTTER


def _row(label: str, line: Sequence[Span]) -> Row:
    return merged(line, (label, MUTED))


def merged(line: Sequence[Span], first: Span = ("", MUTED)) -> Row:
    """Cells of one character each, merged into spans of one role. first: the span before them."""
    text, at = first
    if line.count(BLANK) == len(line):
        return ((text + " " * len(line), at),)
    spans: list[Span] = []
    for char, role in line:
        # A blank takes the role of the span before it: fewer colour changes, fewer bytes.
        if role != at and char != " ":
            spans.append((text, at))
            text, at = char, role
        else:
            text += char
    spans.append((text, at))
    return tuple(spans)


def _level(value: float, height: int, maximum: float) -> int:
    """The row of cells that a value is drawn in, counted from the top."""
    levels = height * DOTS_DOWN - 1
    level = min(levels, max(0, round(value / maximum * levels))) if maximum else 0
    return (levels - level) // DOTS_DOWN


def _brighten(
    canvas: list[list[Span]], trace: Trace, cells: int, height: int, maximum: float
) -> None:
    """Draw the newest dot in the brightest colour, so that the present is easy to find."""
    shift = cells * 2 - len(trace.columns)
    for number in range(len(trace.columns) - 1, max(-1, len(trace.columns) - 5), -1):
        value = trace.columns[number]
        if value is not None:
            x, y = (number + shift) // 2, _level(value, height, maximum)
            if canvas[y][x][0] != " ":
                canvas[y][x] = (canvas[y][x][0], NOW)
            return


def _rule(
    canvas: list[list[Span]],
    trace: Trace,
    cells: int,
    height: int,
    maximum: float,
    glyphs: Glyphs,
) -> None:
    shift = cells * 2 - len(trace.columns)
    for x in range(cells):
        number = x * 2 - shift
        value = trace.columns[number] if 0 <= number < len(trace.columns) else None
        if value is None or value > maximum:
            continue
        y = _level(value, height, maximum)
        if canvas[y][x][0] == " ":
            canvas[y][x] = (glyphs.rule, trace.role)
