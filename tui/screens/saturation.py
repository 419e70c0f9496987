"""The saturation screen: the curve of a search while it is measured, and the result in words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from textual.binding import BindingType

from llmtop import LlmtopError, UsageError
from llmtop.loadgen.experiments import slo as slos
from llmtop.loadgen.experiments.search import MAIN_SHARE
from llmtop.operations.curves import Curve
from llmtop.tui.commands.experiment_requests import PREPARING, SearchPlan, SearchState
from llmtop.tui.commands.forecast_requests import CurveForecast, CurveQuestion
from llmtop.tui.keys.bindings import bindings
from llmtop.tui.layout.arrangement import LARGE
from llmtop.tui.plots.answers import answer_rows, earlier_rows, earlier_words
from llmtop.tui.plots.curve import (
    INVALID,
    LATENCY,
    LIMIT,
    THROUGHPUT,
    UNUSED,
    curve_rows,
)
from llmtop.tui.plots.curve_axes import LEFT, Drawing, axes
from llmtop.tui.plots.form import Field, Form, form_rows
from llmtop.tui.plots.form_values import MOST_SECONDS, MOST_STREAMS, length, number
from llmtop.tui.plots.levels import level_rows
from llmtop.tui.plots.per_level import P50, P95, tpot_rows
from llmtop.tui.plots.slo.forecast_curve import forecast_legend, refusal_words
from llmtop.tui.screens.experiment import ExperimentScreen
from llmtop.tui.view.page import (
    beside,
    form_keys,
    keys_row,
    paragraph_rows,
    running_keys,
    sentence_rows,
    title_row,
    usual_keys,
)
from llmtop.tui.view.search_words import has_invalid_level, progress_of, shown_state, state_word
from llmtop.tui.view.view import View
from llmtop.tui.widgets.frame import Ranked, frame
from llmtop.tui.widgets.row import MUTED, Row, Span
from llmtop.tui.widgets.row import width as cells_of
from llmtop.values import replace
from llmtop.wording import format as f
from llmtop.wording.findings import limits, saturation_sentence
from llmtop.wording.sentences import lengths

LIMITS, TOP, SECONDS = "limits", "max streams", "seconds a level"
PROMPT, OUTPUT = "prompt tokens", "output tokens"
HOW = (
    "Streams in flight are doubled from 4 on, until too few requests are in time and more load "
    "brings no more tokens. Then the gap between the last level that holds and the first that does "
    "not is halved again and again, for 95 % of requests, and for 90 and 99 % where there are "
    "enough. At most 24 levels; each is warmed up before it is measured.",
    "The knee is the first level with 90 % of the best throughput.",
    "The search runs its own load. You can go back to the dashboard; the search keeps running.",
)
GHOSTS = ("all", "newest", "none")
BEST = 4  # rows of "what it holds" without those of the shares: header, knee, border
FEW, MANY = 10, 16  # levels in the table beside the curve, at least and at most
STREAMS = "streams in flight"
PER_LEVEL = 10  # rows from which TPOT is drawn


class SaturationScreen(ExperimentScreen):
    """Curve, sentence, table and progress of ``Store.search``."""

    NAME = "saturation"
    ACTIONS: ClassVar[dict[str, str]] = {
        **ExperimentScreen.ACTIONS,
        "saturation.ghosts": "ghosts",
        "saturation.back": "back",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)
    ghosts = GHOSTS[0]

    def on_mount(self) -> None:
        """Fetch the curves of earlier sessions. Redraws begin in ``ExperimentScreen``."""
        self.run_worker(self._fetch_earlier_curves(), group="recall", exit_on_error=False)

    async def _fetch_earlier_curves(self) -> None:
        engine = self._make_view().engine
        if engine is not None:
            await self._control.recall_curves(engine.name)
            self.redraw()

    def new_form(self, view: View) -> Form:
        """The default limits, and the prompts of the screen's load."""
        prompts = view.store.prompts
        return Form(
            [
                Field(LIMITS, "ttft=500ms,tpot=50ms", "of a request: ttft, tpot, e2e; empty: none"),
                Field(TOP, "1024", "streams in flight at most; doubled from 4 on"),
                Field(SECONDS, "8", "each level is measured this long, after its warm-up"),
                Field(PROMPT, lengths(prompts.prompt_tokens), "a number, or a range: 448..576"),
                Field(OUTPUT, lengths(prompts.output_tokens), "a number, or a range: 112..144"),
            ]
        )

    def shows(self, view: View) -> bool:
        """Whether there is a search to show."""
        return shown_state(view) is not None

    def running(self, view: View) -> bool:
        """Whether a search is running, on any engine."""
        return view.store.search is not None and not view.store.search.over

    def most_streams(self) -> int:
        """The highest level that the search may try; UsageError if the field is not valid."""
        return int(number(self.form, TOP, 1, MOST_STREAMS))

    def command(self, view: View) -> Callable[[], Awaitable[None]]:
        """Start a search on the selected engine; LlmtopError if the form is not valid."""
        engine = view.engine
        if engine is None:
            raise LlmtopError("there is no engine to search", "start one: llmtop run sim")
        text = self.form[LIMITS]
        plan = SearchPlan(
            engine.name,
            slos.parse(text) if text else None,
            top=self.most_streams(),
            seconds=number(self.form, SECONDS, 0.5, MOST_SECONDS),
            prompts=replace(
                view.store.prompts,
                prompt_tokens=length(self.form, PROMPT),
                output_tokens=length(self.form, OUTPUT),
            ),
        )
        return lambda: self._control.start_search(plan)

    def action_ghosts(self) -> None:
        """Show all earlier curves, the newest, or none: the next of the three."""
        self.ghosts = GHOSTS[(GHOSTS.index(self.ghosts) + 1) % len(GHOSTS)]
        self.redraw()

    def page(self, view: View, width: int, height: int) -> list[Row]:
        """Title, sentence, curve, table or form, progress, keys."""
        state = shown_state(view)
        lines = 2 if width >= 100 else 3
        least = lines if self.running(view) else 1  # a longer sentence does not move the curve
        head = [
            title_row(self.NAME, view.engine, state_word(state), view, width),
            *sentence_rows(*self._sentence(state, view), width, lines, least),
        ]
        foot = [keys_row(self._keys(state, view), width)]
        if state is not None and not self.form_open:
            foot.insert(0, progress_of(state, view, width))
        room = height - len(head) - len(foot)
        if width >= LARGE[0] and height >= LARGE[1]:
            side = width * 11 // 20
            chart = self._chart(state, view, width - side, room)
            return [*head, *beside(chart, self._side_column(state, view, side, room)), *foot]
        low = 7 if height < 30 else height // 3
        if self.form_open:
            low = min(len(self.form.fields) + 3, max(4, room - 8))
        if height < 20 and not self.form_open:
            low = 0
        below = self._form(view, width, low) if self.form_open else []
        if not self.form_open and low:
            below = self._table(state, view, width, low)
        return [*head, *self._chart(state, view, width, room - low), *below, *foot]

    def _sentence(self, state: SearchState | None, view: View) -> tuple[str, str]:
        if state is None:
            name = f.clean(view.engine.name, 40) if view.engine else "an engine"
            return f"How much does {name} hold, and where does its throughput peak?", MUTED
        words = saturation_sentence(state.result)
        if state.trouble:
            return f"Ended early: {f.clean(state.trouble)}. Results so far: {words}", "bad"
        if not state.over:
            return (f"So far: {words}" if state.result.levels else PREPARING + " ..."), "title"
        ended = state.result.complete or state.result.client_limited
        return (words if ended else f"Stopped. Results so far: {words}"), "title"

    def _side_column(
        self, state: SearchState | None, view: View, width: int, height: int
    ) -> list[Row]:
        """The column beside the curve: form or results, levels, earlier searches, TPOT."""
        rows: list[Row] = []
        if self.form_open:
            rows = self._form(view, width, len(self.form.fields) + 3)
        elif state is not None:
            body = answer_rows(state.result, width - 2)
            room = BEST + len(state.result.answers)
            rows = frame(body, width, room, view.glyphs, title="what it holds")
        if state is None:
            how, left = paragraph_rows(HOW, width - 2), height - len(rows)
            return [*rows, *frame(how, width, left, view.glyphs, title="how it searches")]
        last = self._earlier_table(state, view, width)
        levels = max(FEW, min(MANY, len(state.result.levels))) + 3
        left = height - len(rows) - levels - len(last)
        if left >= PER_LEVEL:
            last += self._tpot(state, view, width, left)
        rows += self._table(state, view, width, height - len(rows) - len(last))
        return [*rows, *last]

    def _earlier_table(self, state: SearchState, view: View, width: int) -> list[Row]:
        earlier = self._earlier_curves(state, view)
        if not earlier:
            return []
        body = earlier_rows(state.curve, earlier, self._limit(state), view.now, width - 2)
        return frame(body, width, len(body) + 2, view.glyphs, title="earlier searches")

    def _tpot(self, state: SearchState, view: View, width: int, height: int) -> list[Row]:
        glyphs, limit = view.glyphs, state.plan.slo.tpot if state.plan.slo else None
        drawing = self._drawing(state, view)
        body = tpot_rows(
            state.result.levels, limit, axes(drawing, width - 3 - LEFT), drawing.level,
            height - 2, glyphs,
        )  # fmt: skip
        head: list[Ranked] = [
            (0, [(f"{glyphs.bullet} TPOT p95", P95)]),
            (1, [(f"{glyphs.across}{glyphs.across} p50", P50)]),
        ]
        foot: list[Span] = [(STREAMS, MUTED)]
        title = "time per output token"
        return frame(body, width, height, glyphs, title=title, head=head, foot=foot)

    def _drawing(self, state: SearchState | None, view: View) -> Drawing:
        answers = state.result.answers if state else ()
        return Drawing(
            curve=state.curve if state else None,
            ghosts=self._earlier_curves(state, view),
            knee=state.result.knee if state else None,
            holds=next((a for a in answers if a.share == MAIN_SHARE), None),
            limit=self._limit(state),
            level=state.progress.level if state and state.progress else None,
            top=state.plan.top if state else MOST_STREAMS,
            forecast=self._forecast(state, view),
        )

    def _chart(self, state: SearchState | None, view: View, width: int, height: int) -> list[Row]:
        drawing, glyphs = self._drawing(state, view), view.glyphs
        legend: list[Ranked] = [
            (0, [(f"{glyphs.bullet} tok/s", THROUGHPUT)]),
            (0, [(f"{glyphs.hollow} TTFT p95", LATENCY)]),
            (1, [(f"{glyphs.rule}{glyphs.rule} limit", LIMIT)] if drawing.limit else []),
            (1, forecast_legend(drawing.forecast, glyphs)),
            (2, [(f"{INVALID} not used", UNUSED)] if has_invalid_level(state) else []),
        ]
        foot: list[Span] = [(STREAMS, MUTED)]
        if not drawing.ghosts:
            foot += refusal_words(drawing.forecast, width - len(STREAMS) - 8)
        return frame(
            curve_rows(drawing, width - 2, height - 2, glyphs),
            width,
            height,
            glyphs,
            title="throughput and latency",
            head=legend,
            foot=foot,
            foot_right=self._ghost_words(
                list(drawing.ghosts), state, view, width - cells_of(foot) - 8
            ),
        )

    def _forecast(self, state: SearchState | None, view: View) -> CurveForecast | None:
        """The forecast of this search. It is requested here, and again after each level."""
        try:
            question = self._question(state, view)
            if question is not None and (state is None or not state.over):
                self._control.expect_curve(question)
        except LlmtopError:  # without a forecast, none is drawn
            return None
        found = view.store.curve_forecast
        if found is None or question is None or not found.question.same_search(question):
            return None
        return found

    def _question(self, state: SearchState | None, view: View) -> CurveQuestion | None:
        if state is not None:
            plan, levels = state.plan, state.result.levels
            span = plan.prompts.prompt_tokens, plan.prompts.output_tokens
            measured = max((one.level for one in levels), default=0)
            return CurveQuestion(plan.engine, *span, plan.top, measured)
        if view.engine is None:
            return None
        span = length(self.form, PROMPT), length(self.form, OUTPUT)
        return CurveQuestion(view.engine.name, *span, self.most_streams())

    def _limit(self, state: SearchState | None) -> float | None:
        if state is not None:
            return state.plan.slo.ttft if state.plan.slo else None
        try:
            return slos.parse(self.form[LIMITS]).ttft
        except UsageError:
            return None

    def _earlier_curves(self, state: SearchState | None, view: View) -> list[Curve]:
        engine = view.engine
        key = state.curve.key if state else (engine.kind, engine.model or "") if engine else None
        own_time = state.curve.time if state else None
        found = [c for c in view.store.curves if c.key == key and c.time != own_time]
        keep = {"all": len(found), "newest": 1, "none": 0}[self.ghosts]
        return found[len(found) - keep :] if keep else []

    def _ghost_words(
        self, earlier: list[Curve], state: SearchState | None, view: View, room: int
    ) -> list[Span]:
        if not earlier:
            return [("earlier curves are hidden", MUTED)] if self.ghosts == "none" else []
        return earlier_words(earlier, state.curve if state else None, view.now, room)

    def _table(self, state: SearchState | None, view: View, width: int, height: int) -> list[Row]:
        if state is None:
            return frame([], width, height, view.glyphs, title="levels")
        plan, body = state.plan, level_rows(state.result, width - 2, height - 2, view.glyphs)
        tokens = f"{lengths(plan.prompts.prompt_tokens)}+{lengths(plan.prompts.output_tokens)} tok"
        head: list[Ranked] = [
            (0, [(limits(plan.slo) if plan.slo else "no limits", MUTED)]),
            (1, [(tokens, MUTED)]),
            (2, [(f"{f.span(plan.seconds)} a level", MUTED)]),
        ]
        return frame(body, width, height, view.glyphs, title="levels", head=head)

    def _form(self, view: View, width: int, height: int) -> list[Row]:
        body = form_rows(self.form, width - 2, height - 2, view.glyphs)
        busy = view.load is not None and view.load.running
        head: list[Ranked] = [(0, [("the running load is stopped first", "warn")] if busy else [])]
        return frame(body, width, height, view.glyphs, title="a search", head=head, lit=True)

    def _keys(self, state: SearchState | None, view: View) -> list[tuple[str, str]]:
        if self.form_open:
            return form_keys(view)
        keys = view.keys
        rest = [
            (keys.label("saturation.ghosts"), f"earlier curves: {self.ghosts}"),
            *usual_keys(view),
        ]
        if self.running(view):
            return [*running_keys(view), *rest]
        back = (keys.label("experiment.back"), "back")
        return [(keys.label("experiment.start"), "another search"), back, *rest]
