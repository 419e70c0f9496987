"""The steps of the selected engine: time per step, tokens per step, a histogram."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.binding import BindingType

from llmtop.config.key_table import Place
from llmtop.diagnosis.steps.history import StepHistory
from llmtop.engines.core.options import TOKEN_BUDGETS
from llmtop.engines.core.steps import Step
from llmtop.tui.commands.control import Control
from llmtop.tui.keys.bindings import bindings
from llmtop.tui.plots.step_bins import StepColumns
from llmtop.tui.plots.step_panel import COLUMN_S, LEAST_TOP_S, WINDOW_S, ongoing, time_of_reading
from llmtop.tui.plots.step_rows import (
    histogram_rows,
    most_tokens,
    quantile,
    share_spans,
    stacked,
    time_rows,
    token_rows,
)
from llmtop.tui.screens.inside.inside_screen import InsideScreen, filled, foot
from llmtop.tui.store.store import EngineTrack
from llmtop.tui.view.page import beside, paragraph_rows, title_row
from llmtop.tui.view.view import View
from llmtop.tui.widgets.axis import axis_maximum
from llmtop.tui.widgets.braille import DOTS_ACROSS
from llmtop.tui.widgets.chart import GUTTER
from llmtop.tui.widgets.frame import frame
from llmtop.tui.widgets.row import MUTED, STRONG, Row, Span, fit, join
from llmtop.wording import format as f

HISTOGRAM = 46  # cells of the histogram, if it is beside the charts
ROOMY = 100  # cells of a screen that has it there
LEAST_TOP_TOKENS = 64.0  # the smallest axis maximum
KEYS = ["steps.back", "steps.why", "help"]


class StepsScreen(InsideScreen):
    """The last 20 seconds of the scheduler."""

    NAME = "steps"
    help_places: ClassVar[tuple[Place, ...]] = (Place.STEPS,)
    ACTIONS: ClassVar[dict[str, str]] = {"steps.back": "back", "steps.why": "app.why"}
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)

    def __init__(self, make_view: Callable[[], View], control: Control, beat_s: float) -> None:
        super().__init__(make_view, control, beat_s)
        self._kept: StepColumns | None = None
        self._painted = True  # since the last tick: it was opened, or steps were read

    def steps_read(self) -> None:
        """Paint new steps at once. At the next tick they may be a second old."""
        self._painted = True
        self.redraw()

    def tick(self) -> None:
        """Paint if no new steps did, because an engine that does not answer shows a stall."""
        if not self._painted:
            self.redraw()
        self._painted = False

    def page(self, view: View, width: int, height: int) -> list[Row]:
        """Title, figures of the last second, charts, keys."""
        engine, last = view.engine, foot(KEYS, view, width)
        history = engine.steps if engine is not None else None
        state: Span = ("live", "good") if view.replay is None else ("recorded", MUTED)
        if history is None:
            state = ("no steps", MUTED)
        rows = [title_row("steps", engine, state, view, width)]
        if engine is None or history is None:
            why = engine.steps_missing if engine is not None else "no engine"
            if view.replay is not None:
                why = "the recording holds no steps of this time"
            rows += [(), *paragraph_rows([f.clean(why or "no step has ended yet", 200)], width)]
            return filled(rows, last, height)
        now = time_of_reading(history, view)
        rows.append(_second(history, now, width))
        wide = width >= ROOMY
        charts = width - HISTOGRAM if wide else width
        room = height - 3
        low = 0 if wide else max(6, room // 3)
        area = (room - low) * 2 // 3
        left = self._charts(engine, history, view, charts, area, room - low - area)
        steps = history.since(now - WINDOW_S)
        if wide:
            rows += beside(left, _histogram(steps, HISTOGRAM, room, view))
        else:
            rows += [*left, *_histogram(steps, width, low, view)]
        return filled(rows, last, height)

    def _charts(
        self, engine: EngineTrack, history: StepHistory, view: View, width: int, area: int, low: int
    ) -> list[Row]:
        now, count = time_of_reading(history, view), max(1, (width - 2 - GUTTER) * DOTS_ACROSS)
        seconds = max(COLUMN_S, round(20 * WINDOW_S / count) / 20)
        columns = self._columns(seconds)
        columns.update(history, now)
        shown, under_way = columns.window(now, count), ongoing(engine, view.wall)
        fitted = columns.fitted(now, count)
        maximum = axis_maximum(max(stacked(fitted)[1], under_way or 0.0), LEAST_TOP_S)
        body = time_rows(shown, width - 2, area - 2, maximum, view.glyphs, under_way)
        span: list[Span] = [(f"{seconds * count:.0f}s", MUTED)]
        gaps = sum(at > now - seconds * count for at in history.gaps)
        if gaps:
            span.append((f"  {gaps} gaps: steps were overwritten before they were read", "warn"))
        rows = frame(body, width, area, view.glyphs, title="time per step", foot=span)
        budget = _budget(engine)
        top = axis_maximum(most_tokens(fitted, budget), LEAST_TOP_TOKENS)
        body = token_rows(shown, width - 2, low - 2, budget, top, view.glyphs)
        head = [(0, [("budget ", MUTED), (f.count(budget), STRONG)])]
        return [*rows, *frame(body, width, low, view.glyphs, title="tokens per step", head=head)]

    def _columns(self, seconds: float) -> StepColumns:
        if self._kept is None or self._kept.seconds != seconds:
            self._kept = StepColumns(seconds)
        return self._kept


def _budget(engine: EngineTrack) -> float | None:
    for option in engine.options:
        if option.name in TOKEN_BUDGETS and isinstance(option.value, int):
            return float(option.value) if option.value > 0 else None
    return None


def _second(history: StepHistory, now: float, width: int) -> Row:
    window = history.window(now, 1.0)
    if window is None:
        return fit([(" no step in the last second", "warn")], width)
    groups = [
        (0, [(" this second ", MUTED), (f"{len(window.steps):,}", STRONG), (" steps", MUTED)]),
        *((1 + rank, spans) for rank, spans in enumerate(share_spans(window.parts))),
        (5, [("running ", MUTED), (f.count(window.running), STRONG)]),
        (6, [("waiting ", MUTED), (f.count(window.waiting), STRONG)]),
    ]
    return fit(join(groups, width), width)


def _histogram(known: list[Step], width: int, height: int, view: View) -> list[Row]:
    head = [
        (0, [("p50 ", MUTED), (f.latency(quantile(known, 0.5)), STRONG)]),
        (1, [("p99 ", MUTED), (f.latency(quantile(known, 0.99)), STRONG)]),
        (2, [(f"n={len(known):,}", MUTED)]),
    ]
    body = histogram_rows(known, width - 2, height - 2, view.glyphs)
    return frame(body, width, height, view.glyphs, title="step times", head=head)
