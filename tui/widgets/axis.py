"""Axes that hold still: round maxima, fitted to blocks of time, and columns tied to the clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
CELL_SECONDS = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600)

Point = tuple[float, float | None]  # unix seconds, value


def nice(value: float) -> float:
    """The smallest round number that is not below ``value``; 0 for 0 and less."""
    if value <= 0 or not math.isfinite(value):
        return 0.0
    size: float = 10.0 ** math.floor(math.log10(value))
    for step in STEPS:
        if step * size >= value * (1 - 1e-9):
            return step * size
    return 10 * size


def axis_maximum(peak: float, floor: float) -> float:
    """The top of an axis whose highest value is ``peak``; never below ``floor``, so that noise near
    zero does not fill the chart."""
    return max(floor, nice(peak * 1.04))


def fitted_from(start: float, block: float) -> float:
    """Since when values count for the axis of a chart that begins at ``start``.

    The time before is cut into blocks, and the whole block counts that the left edge lies in. So an
    axis grows at once and shrinks only once a block. It depends on the values alone: a replay shows
    the same axis after a jump as when it was played to that moment.
    """
    return start // block * block


class TimeGrid(Struct, frozen=True):
    """The x axis: ``cells`` cells of ``cell_s`` seconds, on whole multiples of it since 1970.

    So a chart moves by one whole cell every ``cell_s`` seconds, and in between only its last cell
    changes: that is what keeps it cheap over SSH. start: unix seconds of the left edge.
    """

    start: float
    cell_s: int
    cells: int

    @property
    def window_s(self) -> int:
        """Seconds from the left edge to the right one."""
        return self.cell_s * self.cells

    def with_past(self) -> TimeGrid:
        """The same grid with half a window before it: what its axis is fitted to."""
        more = self.cells // 2
        return TimeGrid(self.start - more * self.cell_s, self.cell_s, self.cells + more)

    @property
    def fitted_from(self) -> float:
        """Since when values count for the axis: up to half a window before the left edge."""
        return fitted_from(self.start, max(1, self.cells // 2) * self.cell_s)

    def cell_of(self, time: float) -> int | None:
        """The cell that a moment falls into, None outside."""
        cell = int((time - self.start) // self.cell_s)
        return cell if 0 <= cell < self.cells else None


def time_grid(now: float, cells: int, window_s: float = 100.0) -> TimeGrid:
    """The grid of ``cells`` cells that ends in the one of ``now``, over ``window_s`` or more."""
    cell_s = next((s for s in CELL_SECONDS if s * cells >= window_s), CELL_SECONDS[-1])
    last = int(now // cell_s)
    return TimeGrid(float((last - cells + 1) * cell_s), cell_s, cells)


def columns(
    points: Sequence[Point], grid: TimeGrid, now: float, gap_s: float
) -> list[float | None]:
    """Two columns a cell: the mean of the points in each.

    A column without a point repeats the one before while that point is at most ``gap_s`` seconds
    old (a sample came a little late); beyond that, and after a point of None, it is a gap.
    """
    return _folded(points, grid.start, grid.cell_s / 2, grid.cells * 2, now, gap_s)


class Timed(Protocol):
    """The state of a series of points. rewritten: how many points it has replaced."""

    rewritten: int

    @property
    def newest(self) -> float | None:
        """When the newest point was."""

    def since(self, time: float) -> Sequence[Point]:
        """The points at or after a moment."""


class Trail:
    """The columns of one series from beat to beat: what is past is not worked out again.

    The columns before the one that the newest point fell into stay what they were.
    """

    def __init__(self) -> None:
        self._made_of: tuple[object, ...] = ()
        self._start = self._newest = 0.0
        self._columns: list[float | None] = []

    def columns(
        self, series: Timed | None, grid: TimeGrid, now: float, gap_s: float
    ) -> list[float | None]:
        """``columns`` of a series; None has none."""
        start, size, count = grid.start, grid.cell_s / 2, grid.cells * 2
        newest = series.newest if series is not None else None
        if series is None or newest is None:
            return [None] * count
        made_of = (series, series.rewritten, grid.cell_s, grid.cells, gap_s)
        kept = math.floor((self._newest - start) / size)
        if made_of == self._made_of and self._start <= start and 0 <= kept < count:
            moved = math.floor((start - self._start) / size)
            begins = start + kept * size
            rest = _folded(series.since(begins), begins, size, count - kept, now, gap_s)
            found = [*self._columns[moved : moved + kept], *rest]
        else:
            found = _folded(series.since(start - gap_s), start, size, count, now, gap_s)
        self._made_of, self._start, self._newest = made_of, start, newest
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
        if not begun:  # nothing stands before the first point
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
