"""Moves in the charts' time: cursor, pan, zoom, freeze, in one ``ChartAxis``."""

from __future__ import annotations

from llmtop.tui.view.chart_axis import DEFAULT_S, ChartAxis
from llmtop.values import replace

ZOOMS = (60.0, DEFAULT_S, 300.0, 900.0, 3600.0, 3 * 3600.0, 12 * 3600.0, 24 * 3600.0)
FURTHEST_S = 24 * 3600.0


class ChartNavigation:
    """The axis of all charts of a screen. cells: of the chart that the cursor's steps fit."""

    def __init__(self) -> None:
        self.axis = ChartAxis()
        self.enlarged: str | None = None  # one chart that takes the place of all boxes

    def move(self, by: int, now: float, cells: int) -> None:
        """The cursor by a cell; at an edge the charts move with it."""
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
        """A quarter of the window back (-1) or on (1)."""
        axis = self.axis
        self._pan_to(axis.last(now) + by * axis.window_s / 4, now)

    def zoom(self, by: int) -> None:
        """The next longer window (1) or shorter one (-1)."""
        at = ZOOMS.index(self.axis.window_s) + by
        self.axis = replace(self.axis, window_s=ZOOMS[min(len(ZOOMS) - 1, max(0, at))])

    def freeze(self, now: float) -> None:
        """Hold the charts where they are; again: follow the present."""
        axis = self.axis
        if axis.end is None:
            self.axis = replace(axis, end=now, frozen=True)
        else:
            self.axis = replace(axis, end=None, frozen=False)

    def back(self) -> bool:
        """To the present, without cursor, zoom and large chart; whether there was any of them."""
        changed = self.enlarged is not None or self.axis != ChartAxis()
        self.enlarged, self.axis = None, ChartAxis()
        return changed

    def enlarge(self, charts: list[str]) -> None:
        """The first chart large, then the next one, then all as before."""
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
