"""Navigation on the charts' time axis: cursor, pan, zoom, freeze."""

from __future__ import annotations

from llmtop.tui.view.chart_axis import DEFAULT_S, ChartAxis
from llmtop.values import replace

ZOOMS = (60.0, DEFAULT_S, 300.0, 900.0, 3600.0, 3 * 3600.0, 12 * 3600.0, 24 * 3600.0)
FURTHEST_S = 24 * 3600.0


class ChartNavigation:
    """The time axis of all charts of a screen. Times are unix seconds."""

    def __init__(self) -> None:
        self.axis = ChartAxis()
        self.enlarged: str | None = None  # a chart that replaces all boxes

    def move(self, by: int, now: float, cells: int) -> None:
        """Move the cursor by ``by`` cells of a chart that is ``cells`` wide; pan at the edges."""
        axis = self.axis
        grid = axis.grid(now, cells)
        at = axis.cursor
        if at is None or grid.cell_of(at) is None:
            at = axis.last(now) // grid.cell_s * grid.cell_s + grid.cell_s * (by < 0)
        at = min(max(at + by * grid.cell_s, now - FURTHEST_S), now)
        self.axis = replace(axis, cursor=at)
        if at < grid.start:
            self._pan_to(axis.last(now) - grid.window_s / 4, now)
        elif at >= grid.start + grid.window_s:
            self._pan_to(axis.last(now) + grid.window_s / 4, now)

    def pan(self, by: int, now: float) -> None:
        """Pan by a quarter of the window: back (-1) or forward (1)."""
        axis = self.axis
        self._pan_to(axis.last(now) + by * axis.window_s / 4, now)

    def zoom(self, by: int) -> None:
        """Select the next longer window (1) or shorter window (-1)."""
        at = ZOOMS.index(self.axis.window_s) + by
        self.axis = replace(self.axis, window_s=ZOOMS[min(len(ZOOMS) - 1, max(0, at))])

    def freeze(self, now: float) -> None:
        """Freeze the charts; if they are frozen or panned, follow the present again."""
        axis = self.axis
        if axis.end is None:
            self.axis = replace(axis, end=now, frozen=True)
        else:
            self.axis = replace(axis, end=None, frozen=False)

    def back(self) -> bool:
        """Reset cursor, zoom, pan and the large chart; return whether anything changed."""
        changed = self.enlarged is not None or self.axis != ChartAxis()
        self.enlarged, self.axis = None, ChartAxis()
        return changed

    def enlarge(self, charts: list[str]) -> None:
        """Enlarge the first chart, at the next call the next one, after the last one none."""
        order: list[str | None] = [None, *charts]
        at = order.index(self.enlarged) if self.enlarged in order else 0
        self.enlarged = order[(at + 1) % len(order)]

    def _pan_to(self, end: float, now: float) -> None:
        oldest = now - FURTHEST_S + self.axis.window_s
        end = max(end, min(oldest, now))
        if end >= now:
            self.axis = replace(self.axis, end=None, frozen=False)
        else:
            self.axis = replace(self.axis, end=end)
