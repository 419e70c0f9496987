"""Stable axes: round maxima, fitted per block of time, and columns aligned to the clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

# The leading digits of a round axis maximum, and the allowed seconds of one cell.
STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
CELL_SECONDS = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600)

Point = tuple[float, float | None]  # unix seconds, value


def nice(value: float) -> float:
    """The smallest round number that is not below ``value``: one of ``STEPS`` times a power of ten.

    Zero, negative, infinite and NaN values give 0.
    """
    if value <= 0 or not math.isfinite(value):
        return 0.0
    size: float = 10.0 ** math.floor(math.log10(value))
    for step in STEPS:
        if step * size >= value * (1 - 1e-9):
            return step * size
    return 10 * size


def axis_maximum(peak: float, floor: float) -> float:
    """The top of an axis whose highest value is ``peak``: a round number at least 4 % above it.

    It is never below ``floor``, so that noise near zero does not fill the chart.
    """
    return max(floor, nice(peak * 1.04))


def fitted_from(start: float, block: float) -> float:
    """The earliest time whose values count for the axis of a chart that begins at ``start``.

    Time is cut into blocks of length ``block``, in the unit of ``start``. The block that contains
    ``start`` counts as a whole. So an axis grows at once and shrinks at most once per block. The
    result depends only on the values: a replay shows the same axis after a jump as after playing.
    """
    return start // block * block


class TimeGrid(Struct, frozen=True):
    """The x axis: ``cells`` cells of ``cell_s`` seconds, aligned to multiples of it since 1970.

    A chart moves by one whole cell every ``cell_s`` seconds. Between two moves only its last cell
    changes, so that few bytes go over SSH. start: unix seconds of the left edge.
    """

    start: float
    cell_s: int
    cells: int

    @property
    def window_s(self) -> int:
        """Seconds from the left edge to the right one."""
        return self.cell_s * self.cells

    def with_past(self) -> TimeGrid:
        """The same grid, extended to the left by half a window. The axis is fitted to it."""
        more = self.cells // 2
        return TimeGrid(self.start - more * self.cell_s, self.cell_s, self.cells + more)

    @property
    def fitted_from(self) -> float:
        """The earliest time, unix seconds, whose values count for the axis.

        It is at most half a window before the left edge.
        """
        return fitted_from(self.start, max(1, self.cells // 2) * self.cell_s)

    def cell_of(self, time: float) -> int | None:
        """The index of the cell that contains ``time``, unix seconds; None outside the grid."""
        cell = int((time - self.start) // self.cell_s)
        return cell if 0 <= cell < self.cells else None


def time_grid(now: float, cells: int, window_s: float = 100.0) -> TimeGrid:
    """The grid of ``cells`` cells over at least ``window_s`` seconds whose last cell holds ``now``.

    The window is shorter if the largest of ``CELL_SECONDS`` is not enough.
    """
    cell_s = next((s for s in CELL_SECONDS if s * cells >= window_s), CELL_SECONDS[-1])
    last = int(now // cell_s)
    return TimeGrid(float((last - cells + 1) * cell_s), cell_s, cells)


def columns(
    points: Sequence[Point], grid: TimeGrid, now: float, gap_s: float
) -> list[float | None]:
    """Two columns per cell: the mean of the points in each. None is a gap.

    A column without a point repeats the previous value while that is at most ``gap_s`` seconds old,
    because a sample may be late. It is a gap if the value is older, or if it is None.
    """
    return _folded(points, grid.start, grid.cell_s / 2, grid.cells * 2, now, gap_s)


class Timed(Protocol):
    """A series of points in time order. rewritten: how many of its points were replaced so far."""

    rewritten: int

    @property
    def newest(self) -> float | None:
        """The time of the newest point, unix seconds; None without points."""

    def since(self, time: float) -> Sequence[Point]:
        """The points at or after ``time``, unix seconds."""


class ColumnCache:
    """The columns of one series, kept from one redraw to the next.

    Only the columns from the newest known point on are computed again. The older ones are, too, if
    points of the series were replaced.
    """

    def __init__(self) -> None:
        self._inputs: tuple[object, ...] = ()
        self._start = self._newest = 0.0
        self._columns: list[float | None] = []

    def columns(
        self, series: Timed | None, grid: TimeGrid, now: float, gap_s: float
    ) -> list[float | None]:
        """``columns`` of a series; all gaps if ``series`` is None or has no point."""
        start, size, count = grid.start, grid.cell_s / 2, grid.cells * 2
        newest = series.newest if series is not None else None
        if series is None or newest is None:
            return [None] * count
        inputs = (series, series.rewritten, grid.cell_s, grid.cells, gap_s)
        kept = math.floor((self._newest - start) / size)
        if inputs == self._inputs and self._start <= start and 0 <= kept < count:
            moved = math.floor((start - self._start) / size)
            begins = start + kept * size
            rest = _folded(series.since(begins), begins, size, count - kept, now, gap_s)
            found = [*self._columns[moved : moved + kept], *rest]
        else:
            found = _folded(series.since(start - gap_s), start, size, count, now, gap_s)
        self._inputs, self._start, self._newest = inputs, start, newest
        self._columns = found
        return found


def _folded(
    points: Sequence[Point], start: float, size: float, count: int, now: float, gap_s: float
) -> list[float | None]:
    out: list[float | None] = [None] * count
    if not points:
        return out
    sums: dict[int, float] = {}
    numbers: dict[int, int] = {}
    gaps: set[int] = set()
    carried: float | None = None
    carried_at = -math.inf
    first, begun = count, False
    for time, value in points:
        at = math.floor((time - start) / size)
        if at >= count:
            break
        if at < 0:
            carried, carried_at, first = value, time, 0
            continue
        if not begun:  # columns before the first point stay empty
            first, begun = min(first, at), True
        if value is None:
            gaps.add(at)
        elif at in numbers:
            sums[at] += value
            numbers[at] += 1
        else:
            sums[at], numbers[at] = value, 1
    for at in range(first, min(count, math.floor((now - start) / size) + 1)):
        begins = start + at * size
        if at in numbers:
            carried, carried_at = sums[at] / numbers[at], begins
            out[at] = carried
        elif at in gaps:
            carried = None
        elif begins - carried_at <= gap_s:
            out[at] = carried
    return out
