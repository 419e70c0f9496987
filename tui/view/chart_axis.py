"""The time axis of the charts, and the cursor on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING

from msgspec import Struct

from llmtop.analysis.series import SeriesName
from llmtop.tui.widgets.axis import TimeGrid, time_grid
from llmtop.tui.widgets.frame import Ranked
from llmtop.tui.widgets.row import MUTED, STRONG
from llmtop.wording import format as f

if TYPE_CHECKING:
    from llmtop.analysis.marks import Mark
    from llmtop.tui.store.series import Series

DEFAULT_S = 100.0  # window of the charts
NAMES = {
    SeriesName.RUNNING: "running",
    SeriesName.WAITING: "waiting",
    SeriesName.CAP: "cap",
    SeriesName.QUEUE_LIMIT: "queue limit",
    SeriesName.KV_USAGE: "KV",
    SeriesName.OUTPUT_TOKENS: "decode",
    SeriesName.PROMPT_TOKENS: "prefill",
    SeriesName.TTFT_P95_LOW: "server p95",
    SeriesName.TTFT_MEAN: "server mean",
    SeriesName.ITL_P95_LOW: "server p95",
    SeriesName.ITL_MEAN: "server mean",
    SeriesName.CLIENT_TTFT_P50: "p50",
    SeriesName.CLIENT_TTFT_P95: "p95",
    SeriesName.CLIENT_TTFT_P99: "p99",
    SeriesName.CLIENT_ITL_P95: "p95",
    SeriesName.OLDEST_WAIT: "oldest wait",
    SeriesName.SPEC_ACCEPTANCE: "accepted",
    SeriesName.REQUESTS: "requests/s",
}


class ChartAxis(Struct, frozen=True):
    """The time axis of all charts. Times are unix seconds.

    window_s: shortest time to show, in seconds. end: the right edge; None: now. cursor: a time;
    None: no cursor. frozen: a key froze ``end``; else ``end`` was panned to.
    """

    window_s: float = DEFAULT_S
    end: float | None = None
    cursor: float | None = None
    frozen: bool = False

    def grid(self, now: float, cells: int) -> TimeGrid:
        """The grid of a chart that is ``cells`` cells wide."""
        return time_grid(self.last(now), cells, self.window_s)

    def last(self, now: float) -> float:
        """The right edge, unix seconds."""
        return now if self.end is None else min(self.end, now)

    def sign(self, now: float) -> str:
        """The label that the charts do not show the present; "" if they do."""
        if self.end is None:
            return ""
        ago = f.duration(max(0.0, now - self.end))
        return f"FROZEN {ago}" if self.frozen else f"{ago} AGO"


class CursorCell(Struct, frozen=True):
    """The cell under the cursor: from ``start`` until before ``end``, unix seconds."""

    start: float
    end: float


def cursor_cell(axis: ChartAxis, grid: TimeGrid) -> CursorCell | None:
    """The cell under the cursor; None without a cursor or if it is outside the chart."""
    cell = grid.cell_of(axis.cursor) if axis.cursor is not None else None
    if cell is None:
        return None
    start = grid.start + cell * grid.cell_s
    return CursorCell(start, start + grid.cell_s)


def cursor_head(
    cell: CursorCell,
    series: Sequence[tuple[SeriesName, Series | None, Series | None]],
    label: Callable[[float], str],
    zone: tzinfo | None,
) -> list[Ranked]:
    """The values under the cursor: mean, the range if lowest and highest differ, and n points.

    series: name, values, and the upper bounds if the series is a range. label: formats a value.
    zone: for the time of day; None: the local time zone.
    """
    head: list[Ranked] = []
    points = 0
    for rank, (name, held, upper) in enumerate(series):
        seen = held.summary(cell.start, cell.end) if held is not None else None
        if seen is None:
            continue
        top = upper.summary(cell.start, cell.end) if upper is not None else None
        text = label(seen.mean)
        if upper is not None:
            text += f"-{label(top.mean)}" if top is not None else " or more"
        spans = [(f"{NAMES.get(name, name.value)} ", MUTED), (text, STRONG)]
        if upper is None and label(seen.low) != label(seen.high):
            spans.append((f" {label(seen.low)}-{label(seen.high)}", MUTED))
        head.append((rank + 1, spans))
        points = max(points, seen.n)
    words = f"n={points}" if points else "no value"
    return [(0, [(f.clock(cell.start, zone), "warn"), (f" {words}", MUTED)]), *head]


def cursor_mark(cell: CursorCell, marks: Sequence[Mark]) -> list[Mark]:
    """The newest mark under the cursor."""
    return [mark for mark in marks if cell.start <= mark.time < cell.end][-1:]
