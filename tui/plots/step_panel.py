"""The steps on the large dashboard: time per step, split into decode, prefill and host."""

from __future__ import annotations

from llmtop.diagnosis.steps.history import StepHistory
from llmtop.tui.plots.step_bins import StepColumns
from llmtop.tui.plots.step_rows import share_spans, stacked, time_rows
from llmtop.tui.store.store import EngineTrack
from llmtop.tui.view.panel import Panel
from llmtop.tui.view.view import View
from llmtop.tui.widgets.axis import axis_maximum
from llmtop.tui.widgets.braille import DOTS_ACROSS
from llmtop.tui.widgets.chart import GUTTER
from llmtop.tui.widgets.frame import Ranked, frame
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row

WINDOW_S = 20.0
LEAST_TOP_S = 0.002  # the smallest axis maximum
COLUMN_S = 0.1  # the narrowest column: the scheduler steps every few milliseconds
ONGOING_S = 0.5  # a step that takes longer is shown before it ends


def ongoing(engine: EngineTrack, now: float) -> float | None:
    """Seconds since the last step ended, while requests run; None while that is usual."""
    history, sample = engine.steps, engine.sample
    if history is None or not history.steps or sample is None or not sample.running:
        return None
    last = history.steps[-1]
    still = now - last.end
    usual = max(ONGOING_S, 5 * last.duration_s)
    # The steps were read up to a redraw ago. Newer ones are not known yet.
    return still if last.running > 0 and still > usual + 1.5 else None


def time_of_reading(history: StepHistory, view: View) -> float:
    """When the steps were last read, unix seconds. The time after it is unknown, and no gap."""
    return history.time if history.time is not None else view.wall


class StepsPanel(Panel):
    """One row of the large layout. Its time is the wall clock, because steps have its stamps."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._columns: StepColumns | None = None

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """The stacked area in a box; without steps, the reason."""
        engine = view.engine
        history = engine.steps if engine is not None else None
        if engine is None or history is None:
            why = engine.steps_missing if engine is not None else ""
            rows: list[Row] = [((" ", TEXT), (why or "no steps yet", MUTED))]
            return frame(rows, width, height, view.glyphs, title="time per step")
        count = max(1, (width - 2 - GUTTER) * DOTS_ACROSS)
        seconds = max(COLUMN_S, round(20 * WINDOW_S / count) / 20)
        if self._columns is None or self._columns.seconds != seconds:
            self._columns = StepColumns(seconds)
        now = time_of_reading(history, view)
        self._columns.update(history, now)
        columns = self._columns.window(now, count)
        under_way = ongoing(engine, view.wall)
        peak = max(stacked(self._columns.fitted(now, count))[1], under_way or 0.0)
        maximum = axis_maximum(peak, LEAST_TOP_S)
        body = time_rows(columns, width - 2, height - 2, maximum, view.glyphs, under_way)
        return frame(
            body, width, height, view.glyphs, title="time per step",
            head=_head(history, now), foot=[(f"{seconds * count:.0f}s", MUTED)],
        )  # fmt: skip


def _head(history: StepHistory, now: float) -> list[Ranked]:
    window = history.window(now, 1.0)
    if window is None:
        return [(0, [("no step in the last second", "warn")])]
    steps: Ranked = (3, [("steps ", MUTED), (f"{len(window.steps)}/s", STRONG)])
    shares = share_spans(window.parts)
    return [steps, *((rank, spans) for rank, spans in enumerate(shares))]
