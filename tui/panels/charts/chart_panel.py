"""The drawing of a chart: its lines over time in a box with numbers above and below."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct

from llmtop.analysis.series import SeriesName
from llmtop.diagnosis.state_rules import Level
from llmtop.tui.panels.state import LEVEL_ROLE
from llmtop.tui.store.series import Series
from llmtop.tui.view.chart_axis import cursor_cell, cursor_head, cursor_mark
from llmtop.tui.view.chart_marks import mark_role, mark_words
from llmtop.tui.view.panel import Panel
from llmtop.tui.view.view import View
from llmtop.tui.widgets.axis import ColumnCache, TimeGrid, axis_maximum
from llmtop.tui.widgets.chart import GUTTER, Trace, chart_rows
from llmtop.tui.widgets.frame import Ranked, frame, head_room
from llmtop.tui.widgets.row import MUTED, Row, Span, faded
from llmtop.tui.widgets.row import width as cells
from llmtop.wording import format as f

# An idle chart alternates between two drawings: its newest cell is half full, then full.
DRAWN = 2
BORDER = 8  # cells of a lower border that stay free between its texts


class Line(Struct, frozen=True):
    """One series of a chart. fill: also the area below it. rule: a limit, as a dashed line.

    heat: (share, role) of its high parts. A value has the role from this share of ``limit`` on, or
    from this value on if there is no limit. upper: the upper end of a band; ``series`` is the lower
    end. alone: drawn only while no load of this llmtop measures the same.
    """

    series: SeriesName
    role: str
    fill: bool = False
    rule: bool = False
    upper: SeriesName | None = None
    alone: bool = False
    heat: tuple[tuple[float, str], ...] = ()
    limit: SeriesName | None = None


class ChartKind(Struct, frozen=True):
    """What a chart shows. head: the numbers of its upper border with their ranks, in N cells.

    floor: the smallest axis maximum. fixed: ``floor`` is always the maximum (percentages).
    foot: more words for the lower border of a box of N cells, [] for none. empty: the text of a
    chart without any value. cause: the limit that it shows, by the name that the state has for it.
    """

    title: str
    lines: tuple[Line, ...]
    label: Callable[[float], str]
    head: Callable[[View, int], Sequence[Ranked]]
    floor: float
    fixed: bool = False
    foot: Callable[[View, int], list[Span]] = lambda view, width: []
    empty: Callable[[View], str] = lambda view: "no data yet"
    cause: str = ""


class ChartPanel(Panel):
    """A chart in a box: numbers above; the window and the text of the newest mark below."""

    def __init__(self, kind: ChartKind, *, id: str) -> None:
        super().__init__(id=id)
        self._kind = kind
        self._shown: tuple[object, ...] = ()
        self._drawn: deque[tuple[tuple[object, ...], list[Row]]] = deque(maxlen=DRAWN)
        self._caches: dict[tuple[str, SeriesName], ColumnCache] = {}

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """The chart in its box."""
        kind = self._kind
        other = view.other
        shown = frozenset(v.engine.name for v in (view, other) if v is not None and v.engine)
        axis = view.axis
        of = shown, axis.window_s, axis.end
        if of != self._shown:  # another engine or time
            self._shown = of
            self._caches.clear()
        grid = axis.grid(view.now, max(1, width - 2 - GUTTER - 1))
        cell = cursor_cell(axis, grid)
        gap_s = max(3.0, 2.5 * view.interval)
        traces, peak = self._traces(view, grid, gap_s)
        if other is not None:  # one axis for both, so that they can be compared
            peak = max(peak, self._traces(other, grid, gap_s)[1])
        maximum = kind.floor if kind.fixed else axis_maximum(peak, kind.floor)
        marks = [m for m in view.engine.marks if m.time >= grid.start] if view.engine else []
        places, empty = [(grid.cell_of(m.time), m.load) for m in marks], kind.empty(view)
        head, foot = _head(kind, view, width), _foot(kind, view, grid, width)
        if cell is not None:
            series = [(o.series, view.series(o.series), upper(o, view)) for o in kind.lines]
            head = cursor_head(cell, series, kind.label, view.zone)
        named = marks if cell is None else cursor_mark(cell, marks)
        mark = mark_words(named, grid, width - BORDER - cells(foot))
        border = _border(kind, view)
        size = width, height, view.glyphs
        inputs = border, traces, maximum, places, empty, head, foot, mark, cell, *size
        for before, rows in self._drawn:
            if before == inputs:
                return rows
        body = chart_rows(
            traces,
            grid,
            height - 2,
            maximum,
            view.glyphs,
            label=kind.label,
            marks=[(m.time, mark_role(m)) for m in marks],
            empty=empty,
            cursor=cell.start if cell is not None else None,
        )
        rows = frame(
            body, width, height, view.glyphs,
            title=kind.title, head=head, foot=foot, foot_right=mark, border=border,
        )  # fmt: skip
        self._drawn.append((inputs, rows))
        return rows

    def _traces(self, view: View, grid: TimeGrid, gap_s: float) -> tuple[list[Trace], float]:
        """The lines to draw, and the highest value that the axis must hold."""
        name = view.engine.name if view.engine is not None else ""
        past = grid.with_past()
        hidden = 2 * (past.cells - grid.cells)
        fitted = 2 * round((grid.fitted_from - past.start) / grid.cell_s)

        def columns(series: SeriesName) -> list[float | None]:
            cache = self._caches.setdefault((name, series), ColumnCache())
            held = view.series(series)
            points = held.covering(grid.start) if held is not None else None
            wide = gap_s if points is None else max(gap_s, 2.5 * points.span_s)
            return cache.columns(points, past, view.axis.last(view.now), wide)

        found: list[Trace] = []
        peak, limits = 0.0, []
        for line in self._kind.lines:
            if line.alone and view.client is not None:
                continue
            top = columns(line.upper) if line.upper is not None else None
            whole = columns(line.series)
            values = whole[hidden:]
            if line.rule:
                limits.append(values[-2] or 0.0 if grid.cells > 1 else 0.0)
            else:
                peak = max(peak, _highest(whole[fitted:]), _highest((top or [])[fitted:]))
            shown = top[hidden:] if top is not None else None
            found.append(Trace(values, line.role, line.fill, line.rule, upper=shown))
            limit = columns(line.limit)[hidden:] if line.limit is not None else [1.0] * len(values)
            for share, role in line.heat:
                hot = [_above(one, most, share) for one, most in zip(values, limit, strict=True)]
                if any(one is not None for one in hot):
                    found.append(Trace(hot, role, line.fill, tint=True))
        # A limit far above the values is not drawn: it would flatten them.
        return found, max([peak, *(limit for limit in limits if limit <= 2 * peak)])


def upper(line: Line, view: View) -> Series | None:
    """The upper end of a line that is a band, None for another line."""
    return view.series(line.upper) if line.upper is not None else None


def _above(value: float | None, limit: float | None, share: float) -> float | None:
    """The value if it is at least ``share`` of its limit, else None."""
    return value if value is not None and limit and value >= share * limit else None


def _border(kind: ChartKind, view: View) -> str:
    """The role of the border: the state's, if the limit that the chart shows is reached."""
    state = view.engine.load_state if view.engine is not None else None
    if state is None or kind.cause not in state.limits or state.level < Level.SATURATED:
        return ""
    return LEVEL_ROLE[state.level]


def _highest(values: Sequence[float | None]) -> float:
    return max(filter(None, values), default=0.0)


def _foot(kind: ChartKind, view: View, grid: TimeGrid, width: int) -> list[Span]:
    seconds, sign = grid.window_s, view.axis.sign(view.now)
    window: list[Span] = [(f"{seconds}s" if seconds <= 600 else f.duration(seconds), MUTED)]
    if sign:
        return [*window, ("  ", MUTED), (sign, "warn")]
    more = kind.foot(view, width)
    # 22 cells are for the text of a mark, also of a later one.
    if not more or cells([*window, *more]) + 22 > width:
        return window
    return [*window, ("  ", MUTED), *more]


def _head(kind: ChartKind, view: View, width: int) -> Sequence[Ranked]:
    """The numbers of the upper border. Stale ones are muted, and their age is shown."""
    room = head_room(width, kind.title)
    if view.stale_s is None:
        return kind.head(view, room)
    stale = f"stale {f.duration(view.stale_s)}"
    head = kind.head(view, room - len(stale) - 2)
    return [*((rank, faded(spans)) for rank, spans in head), (0, [(stale, "bad")])]
