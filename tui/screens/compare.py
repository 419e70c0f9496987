"""The compare screen: A against B, each measure as a whisker around 1, with a verdict."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from textual.binding import BindingType

from llmtop import LlmtopError, UsageError
from llmtop.engines.tuning import resolution
from llmtop.loadgen.experiments.comparison import NOISE_PAIRS
from llmtop.tui.commands.experiment_requests import PREPARING, ComparisonPlan, ComparisonState
from llmtop.tui.keys.bindings import bindings
from llmtop.tui.plots.form import Field, Form, form_rows
from llmtop.tui.plots.form_values import MOST_SECONDS, MOST_STREAMS, length, number
from llmtop.tui.plots.runs import LEAST, runs_rows
from llmtop.tui.plots.whiskers import comparison_rows, pair_rows
from llmtop.tui.screens.compare_form import (
    AGAINST,
    LEVEL,
    OUTPUT,
    PAIRS,
    PROMPT,
    SECONDS,
    USUAL,
    WHAT,
    A,
    B,
    about,
    needs_restart,
    propose,
    streams,
    typed_value,
)
from llmtop.tui.screens.experiment import ExperimentScreen
from llmtop.tui.view.page import (
    fitting,
    form_keys,
    keys_row,
    paragraph_rows,
    progress_row,
    running_keys,
    sentence_rows,
    title_row,
    usual_keys,
)
from llmtop.tui.view.view import View
from llmtop.tui.widgets.frame import Ranked, frame
from llmtop.tui.widgets.row import MUTED, Row, Span
from llmtop.values import replace
from llmtop.wording import format as f
from llmtop.wording.findings import comparison_sentences
from llmtop.wording.sentences import lengths, remaining

MEASURES = 4
ROOMY = 50  # rows from which a measure has three
HOW = (
    "Runs of A and of B take turns at the same number of streams: A B B A is two pairs, so that a "
    "drift cancels. First A runs against A, which shows how far two equal runs differ.",
    "For each measure you get B / A with its interval, and a verdict: better, worse, or how many "
    "more pairs are needed. At the end the option is restored.",
)


class CompareScreen(ExperimentScreen):
    """Table, sentence, pairs and progress of ``Store.comparison``."""

    NAME = "compare"
    ACTIONS: ClassVar[dict[str, str]] = {**ExperimentScreen.ACTIONS, "compare.back": "back"}
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)

    def new_form(self, view: View) -> Form:
        """The first option that changes live; its value now as A, another value as B."""
        engine, prompts = view.engine, view.store.prompts
        options = sorted(engine.options if engine else (), key=needs_restart)
        others = [name for name in view.store.engines if engine and name != engine.name]
        choices = (*(o.name for o in options), *(f"{AGAINST}{name}" for name in others))
        form = Form(
            [
                Field(WHAT, choices[0] if choices else "", "", choices),
                Field(A, ""),
                Field(B, ""),
                Field(LEVEL, USUAL, "in flight in every run"),
                Field(PAIRS, "8", "an even number: A B B A is two pairs, and drift cancels in it"),
                Field(SECONDS, "8", "each run is measured this long, after its warm-up"),
                Field(PROMPT, lengths(prompts.prompt_tokens), "a number, or a range: 448..576"),
                Field(OUTPUT, lengths(prompts.output_tokens), "a number, or a range: 112..144"),
            ]
        )
        propose(form, options)
        form.find(LEVEL).text = streams(form, view)
        return form

    def typed(self, name: str | None) -> None:
        """A new option proposes its values. New values propose streams at which they differ."""
        view = self._make_view()
        if name == WHAT and view.engine is not None:
            propose(self.form, view.engine.options)
        if name in (WHAT, A, B) and LEVEL not in self.form.changed:
            self.form.find(LEVEL).text = streams(self.form, view)

    def shows(self, view: View) -> bool:
        """Whether there is a comparison to show."""
        return _state(view) is not None

    def running(self, view: View) -> bool:
        """Whether a comparison is running, on any engine."""
        return view.store.comparison is not None and not view.store.comparison.over

    def most_streams(self) -> int:
        """The streams in flight of each run; UsageError if the field is not valid."""
        return int(number(self.form, LEVEL, 1, MOST_STREAMS))

    def command(self, view: View) -> Callable[[], Awaitable[None]]:
        """Start a comparison on the selected engine; LlmtopError if the form is not valid."""
        engine, form = view.engine, self.form
        if engine is None:
            raise LlmtopError("there is no engine to compare", "start one: llmtop run sim")
        pairs = int(number(form, PAIRS, 4, 200))
        if pairs % 2:
            raise UsageError(f"{PAIRS} must be even, not {pairs}", form.find(PAIRS).hint)
        plan = ComparisonPlan(
            engine.name,
            level=self.most_streams(),
            pairs=pairs,
            seconds=number(form, SECONDS, 0.5, MOST_SECONDS),
            prompts=replace(
                view.store.prompts,
                prompt_tokens=length(form, PROMPT),
                output_tokens=length(form, OUTPUT),
            ),
        )
        if form[WHAT].startswith(AGAINST):
            plan = replace(plan, other=form[WHAT].removeprefix(AGAINST))
        else:
            option = resolution.find(engine.options, form[WHAT])
            plan = replace(
                plan,
                option=option.name,
                a=typed_value(option, form[A]),
                b=typed_value(option, form[B]),
            )
            if plan.a == plan.b:
                raise UsageError("A and B are the same", "give them different values")
        return lambda: self._control.start_comparison(plan)

    def page(self, view: View, width: int, height: int) -> list[Row]:
        """Title, sentence, table, form or pairs, progress, keys."""
        state = _state(view)
        least = 2 if self.running(view) else 1  # a longer sentence does not move the rest
        head = [
            title_row(self.NAME, view.engine, _status(state), view, width),
            *sentence_rows(*_sentence(state, width, 2), width, 2, least),
        ]
        foot = [keys_row(self._keys(view), width)]
        if state is not None and not self.form_open:
            foot.insert(0, _progress(state, view, width))
        room = height - len(head) - len(foot)
        body = self._form_page if self.form_open else self._result_page
        return [*head, *body(state, view, width, room), *foot]

    def _form_page(
        self, state: ComparisonState | None, view: View, width: int, room: int
    ) -> list[Row]:
        """The form: below the last comparison, or above an explanation if there is none."""
        form = len(self.form.fields) + 3
        if state is None:
            how = frame(
                paragraph_rows(HOW, width - 2), width, max(0, room - form), view.glyphs,
                title="how it compares",
            )  # fmt: skip
            return [*self._form(view, width, min(room, form)), *how]
        top = room - form if room - form >= MEASURES + 4 else 0
        rows = self._table(state, view, width, top) if top else []
        return [*rows, *self._form(view, width, room - top)]

    def _result_page(
        self, state: ComparisonState | None, view: View, width: int, room: int
    ) -> list[Row]:
        """The table, and with room also the pairs and a chart of the runs."""
        # With room, a measure has two or three rows. The rest is for the pairs.
        each = 3 if room >= ROOMY else 2 if room >= 2 * MEASURES + 4 + 6 else 1
        top = min(room, each * MEASURES + 4)
        if room - top < 4:
            top = room
        rows = self._table(state, view, width, top)
        if state is None or room == top:
            return rows
        runs = state.standing.runs if state.standing else 2 * len(state.result.pairs)
        pairs = min(room - top, max(runs // 2, len(state.result.pairs)) + 3)
        left = room - top - pairs
        if left >= LEAST:
            rows += runs_rows(state.result, runs, width, left, view.glyphs)
        else:
            pairs = room - top
        return [*rows, *self._pairs(state, view, width, pairs)]

    def _table(
        self, state: ComparisonState | None, view: View, width: int, height: int
    ) -> list[Row]:
        title = "A and B"
        if state is None:
            words = "  one row per measure: A, B, and B / A with its interval around 1"
            return frame([((words, MUTED),)], width, height, view.glyphs, title=title)
        a, b = (f.clean(label, 40) for label in state.plan.labels)
        body = comparison_rows(state.result, width - 2, height - 2, view.glyphs)
        n = max((finding.n for finding in state.result.findings), default=0)
        head: list[Ranked] = [
            (0, [("A ", "key"), (a, MUTED), ("  B ", "key"), (b, MUTED)]),
            (1, [(f"n={n} pairs", MUTED)]),
            (2, [(f"at {state.plan.level:,} streams", MUTED)]),
        ]
        back = [(f.clean(state.back), "good" if "again" in state.back else "bad")]
        foot: list[Span] = back if state.back else []
        return frame(body, width, height, view.glyphs, title=title, head=head, foot=foot)

    def _pairs(
        self, state: ComparisonState | None, view: View, width: int, height: int
    ) -> list[Row]:
        body = pair_rows(state.result, width - 2, height - 2) if state else []
        left_out = state.result.left_out if state else 0
        head: list[Ranked] = [(0, [(f"{left_out} not counted", "warn")] if left_out else [])]
        return frame(body, width, height, view.glyphs, title="pairs", head=head)

    def _form(self, view: View, width: int, height: int) -> list[Row]:
        engine, what = view.engine, self.form.find(WHAT)
        what.hint = about(engine.options if engine else (), what.text)
        body = form_rows(self.form, width - 2, height - 2, view.glyphs)
        busy = view.load is not None and view.load.running
        head: list[Ranked] = [
            (0, [("the running load is stopped first", "warn")] if busy else []),
            (1, self._duration()),
        ]
        return frame(body, width, height, view.glyphs, title="a comparison", head=head, lit=True)

    def _duration(self) -> list[Span]:
        """The number of runs, and their time without warm-ups; [] if the form is not valid."""
        try:
            runs = 2 * (int(number(self.form, PAIRS, 4, 200)) + NOISE_PAIRS)
            seconds = runs * number(self.form, SECONDS, 0.5, MOST_SECONDS)
        except UsageError:
            return []
        return [(f"{runs} runs: {f.duration(seconds)} or more", MUTED)]

    def _keys(self, view: View) -> list[tuple[str, str]]:
        if self.form_open:
            return form_keys(view)
        if self.running(view):
            return [*running_keys(view), *usual_keys(view)]
        keys = view.keys
        back = (keys.label("experiment.back"), "back")
        return [(keys.label("experiment.start"), "another comparison"), back, *usual_keys(view)]


def _state(view: View) -> ComparisonState | None:
    """The comparison to show: the one that runs, else the selected engine's last one."""
    state, engine = view.store.comparison, view.engine
    if state is None or engine is None or not state.over:
        return state
    return state if engine.name in (state.plan.engine, state.plan.other) else None


def _status(state: ComparisonState | None) -> Span:
    if state is None:
        return ("no comparison yet", MUTED)
    if not state.over:
        return ("comparing", "load")
    if state.trouble:
        return ("ended early", "bad")
    return ("done", "good") if state.result.complete else ("stopped", "warn")


def _sentence(state: ComparisonState | None, width: int, rows: int) -> tuple[str, str]:
    if state is None:
        return "Is B better than A? A against A first, for the noise, then A B B A.", MUTED
    counted = any(finding.n for finding in state.result.findings)
    if state.trouble:
        return f"Ended early: {f.clean(state.trouble)}.", "bad"
    if not counted:
        first = "Measuring the noise: A against A ..." if state.standing else PREPARING + " ..."
        return ("Stopped before a pair was run." if state.over else first), "title"
    first = "So far: " if not state.over else ""
    if state.over and not state.result.complete:
        first = "Stopped. Results so far: "
    words = comparison_sentences(state.result, *state.plan.labels)
    return fitting([f"{first}{each}" for each in words], width, rows), "title"


def _progress(state: ComparisonState, view: View, width: int) -> Row:
    now = state.standing
    if now is not None:
        pairs = len(state.result.pairs)
        run, doing = f"run {now.run} of {now.runs}", f": {now.arm}, {now.phase}"
        words = [f"{run} (pair {pairs + 1} of {now.runs // 2}){doing}", f"{run}{doing}", run]
        left = remaining(now.left_s)
        share = (now.run - 1) / now.runs
        return progress_row(words, share, left, view, width)
    if not state.over:
        return progress_row([PREPARING], 0.0, "", view, width)
    return progress_row([f"{len(state.result.pairs)} pairs were run"], None, "", view, width)
